// SPDX-License-Identifier: Apache-2.0
#include "decode/blobs.h"

#include <algorithm>
#include <cstddef>

namespace posewire {
namespace {

constexpr int kReach = 2;  // 5 x 5 cells
constexpr int kSide = 2 * kReach + 1;
constexpr int kEight = 8;  // sum_window writes whole vectors

int blocks_of(int width) { return (width + kBlockCells - 1) / kBlockCells; }

const float* plane_of(const MapView& maps, int channel) {
  return static_cast<const float*>(maps.data) + channel * maps.channel_stride;
}

// Whether no cell within kReach is higher, nor an earlier one as high. NaN is lower than anything.
bool highest(const float* plane, const MapView& maps, int x, int y) {
  const float* row = plane + y * maps.row_stride;
  const float value = row[x];
  const int left = std::max(x - kReach, 0), right = std::min(x + kReach, maps.width - 1);
  const int top = std::max(y - kReach, 0), bottom = std::min(y + kReach, maps.height - 1);
  for (int v = top; v <= bottom; ++v) {
    const float* at = plane + v * maps.row_stride;
    const int later = v < y ? right + 1 : v > y ? left : x;  // from here on an equal one may stand
    for (int u = left; u <= right; ++u) {
      if (at[u] > value || (at[u] == value && u < later)) {
        return false;
      }
    }
  }
  return true;
}

bool before(const Blob& a, const Blob& b) {
  return a.value != b.value ? a.value > b.value
         : a.row != b.row   ? a.row < b.row
                            : a.column < b.column;
}

// Sums along one axis; 0: not in the map, or left out.
struct Profile {
  float sums[kEight];

  bool falls() const {
    return (sums[0] <= sums[1] || sums[1] == 0.0F) && (sums[4] <= sums[3] || sums[3] == 0.0F);
  }
};

// The sums over the cells within `reach` of (x, y) that are in the map.
void sum_around(const float* plane, const MapView& maps, int x, int y, int reach, Profile* across,
                Profile* down) {
  *across = *down = {};
  const float* middle = plane + y * maps.row_stride + x;
  const float scale = 1.0F / std::max(std::min(*middle, 1e30F), 1e-30F);
  const int left = std::max(-reach, -x), right = std::min(reach, maps.width - 1 - x);
  const int top = std::max(-reach, -y), bottom = std::min(reach, maps.height - 1 - y);
  for (int v = top; v <= bottom; ++v) {
    const float* row = middle + v * maps.row_stride;
    for (int u = left; u <= right; ++u) {
      const float share = row[u] * scale;
      const float bounded = share > kLowShare ? std::min(share, 1.0F) : kLowShare;  // NaN: low
      across->sums[kReach + u] += bounded;
      down->sums[kReach + v] += bounded;
    }
  }
}

}  // namespace

BlobScratch::BlobScratch(int height, int width, int most)
    : pitch((blocks_of(width) + 2) * kBlockCells),
      bordered(static_cast<std::size_t>(height + 2) * static_cast<std::size_t>(pitch)),
      blocks(static_cast<std::size_t>(height) * static_cast<std::size_t>(blocks_of(width)) + 1),
      places(blocks.size() * kBlockCells),
      found(static_cast<std::size_t>((height + 2) / 3) * static_cast<std::size_t>((width + 2) / 3)),
      lanes((2 * most + kEight - 1) / kEight * kEight),
      sums(static_cast<std::size_t>(kSide * lanes)),
      offsets(static_cast<std::size_t>(lanes)) {}

int find_blobs(const MapView& maps, int channel, const BlobRules& rules, const Kernels& kernels,
               BlobScratch* scratch, Blob* blobs) {
  const float* plane = plane_of(maps, channel);
  const int pitch = scratch->pitch;
  const int blocks =
      kernels.copy_blocks(plane, maps.row_stride, maps.height, maps.width, rules.threshold,
                          scratch->bordered.data(), pitch, scratch->blocks.data());
  const int supported =
      kernels.find_supported(scratch->bordered.data(), pitch, scratch->blocks.data(), blocks,
                             rules.threshold, 8.0F * rules.support, scratch->places.data());
  Blob* found = scratch->found.data();
  int count = 0;
  for (int i = 0; i < supported; ++i) {
    const int place = scratch->places[static_cast<std::size_t>(i)];
    const int y = place / pitch - 1, x = place % pitch - kBlockCells;
    if (x < maps.width && highest(plane, maps, x, y)) {
      found[count++] = {plane[y * maps.row_stride + x], x, y};
    }
  }
  if (count > rules.most) {
    std::nth_element(found, found + rules.most, found + count, before);
    count = rules.most;
  }
  std::sort(found, found + count, before);
  std::copy_n(found, count, blobs);
  return count;
}

void centre_blobs(const MapView& maps, int channel, bool just_found, const Kernels& kernels,
                  BlobScratch* scratch, Blob* blobs, int count) {
  const float* plane = plane_of(maps, channel);
  float* sums = scratch->sums.data();
  for (int i = 0; i < count; ++i) {
    const int x = blobs[i].column, y = blobs[i].row;
    Profile across, down;
    if (just_found && x >= kReach && y >= kReach && x < maps.width - kReach &&
        y < maps.height - kReach) {
      const int place = (y + 1) * scratch->pitch + kBlockCells + x;
      kernels.sum_window(scratch->bordered.data() + place, scratch->pitch, across.sums, down.sums);
    } else {
      sum_around(plane, maps, x, y, kReach, &across, &down);
    }
    if (!across.falls() || !down.falls()) {
      sum_around(plane, maps, x, y, 1, &across, &down);
    }
    for (int k = 0; k < kSide; ++k) {
      sums[k * scratch->lanes + 2 * i] = across.sums[k];
      sums[k * scratch->lanes + 2 * i + 1] = down.sums[k];
    }
  }
  kernels.fit_parabolas(sums, scratch->lanes, 2 * count, scratch->offsets.data());
  for (int i = 0; i < count; ++i) {
    const float* offset = scratch->offsets.data() + 2 * i;
    blobs[i].x = static_cast<float>(blobs[i].column) + offset[0];
    blobs[i].y = static_cast<float>(blobs[i].row) + offset[1];
  }
}

}  // namespace posewire
