// SPDX-License-Identifier: Apache-2.0
#include "decode/peaks.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

namespace posewire {
namespace {

std::size_t padded(int count) {
  const int lanes = (count + kLanes - 1) / kLanes * kLanes;
  return static_cast<std::size_t>(lanes);
}

// Indices (from the first inner row) of flagged cells into `places`. Peaks are rare: eight flags
// are looked at together. Returns how many.
int collect(const std::vector<std::uint8_t>& flags, int count, std::vector<int>* places) {
  int found = 0;
  int* to = places->data();
  for (int i = 0; i < count; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, flags.data() + i, sizeof eight);
    if (eight == 0) {
      continue;
    }
    for (int k = i; k < i + 8; ++k) {
      if (flags[static_cast<std::size_t>(k)] != 0) {
        to[found++] = k;
      }
    }
  }
  return found;
}

// A neighbour outside the map is unknown, not low: with the other axis' curvature (a keypoint's
// blob is round) the parabola is still determined. `missing` is the logarithm's place to fill.
float across_border(float peak, float inside, float curvature_log) {
  // log(outside) = 2 log(peak) - log(inside) - curvature
  const float ratio = peak / inside;
  const float outside = peak * ratio * std::exp(-curvature_log);
  return std::isfinite(outside) ? outside : peak;
}

// -d²/dx² of the logarithm, from three values in a row; 1 (a Gaussian of one cell) if unknown.
float curvature_of(float before, float peak, float after) {
  const float product = before * after;
  const float curvature = product > 0.0F ? std::log(peak * peak / product) : 1.0F;
  return curvature > 0.05F && curvature < 4.0F ? curvature : 1.0F;
}

constexpr float kOutside = -std::numeric_limits<float>::infinity();

void mend_border(float* before, float peak, float* after, float curvature) {
  if (*before == kOutside && *after != kOutside) {
    *before = across_border(peak, std::max(*after, 0.02F * peak), curvature);
  } else if (*after == kOutside && *before != kOutside) {
    *after = across_border(peak, std::max(*before, 0.02F * peak), curvature);
  }
}

}  // namespace

PeakScratch::PeakScratch(int height, int width, int max_peaks)
    : bordered(static_cast<std::size_t>(height + 2) * static_cast<std::size_t>(width + 2) + kLanes,
               kOutside),
      flags(static_cast<std::size_t>(height) * static_cast<std::size_t>(width + 2) + kLanes, 0),
      // No two neighbours are both maxima: at most one in each block of 2 x 2.
      places(static_cast<std::size_t>((height + 1) / 2) * static_cast<std::size_t>((width + 1) / 2),
             0),
      left(padded(max_peaks)),
      centre(padded(max_peaks)),
      right(padded(max_peaks)),
      upper(padded(max_peaks)),
      lower(padded(max_peaks)) {}

Peaks::Peaks(int max_peaks)
    : x(padded(max_peaks)), y(padded(max_peaks)), score(padded(max_peaks)) {}

void find_peaks(const MapView& heatmaps, int channel, float threshold, int max_peaks,
                const Kernels& kernels, PeakScratch* scratch, Peaks* peaks) {
  peaks->count = 0;
  const int stride = heatmaps.width + 2;
  const int cells = heatmaps.height * stride;
  const float* plane = static_cast<const float*>(heatmaps.data) + channel * heatmaps.channel_stride;
  if (!kernels.copy_plane(plane, heatmaps.row_stride, heatmaps.height, heatmaps.width, threshold,
                          scratch->bordered.data())) {
    return;
  }
  const float* inner = scratch->bordered.data() + stride;
  // From the first inner cell to the last: the border cells between rows are never over a
  // threshold.
  kernels.flag_peaks(inner + 1, stride, cells - 2, threshold, scratch->flags.data() + 1);
  int found = collect(scratch->flags, cells, &scratch->places);
  int* places = scratch->places.data();
  if (found > max_peaks) {
    std::nth_element(places, places + max_peaks, places + found, [inner](int i, int k) {
      return inner[i] != inner[k] ? inner[i] > inner[k] : i < k;
    });
    std::sort(places, places + max_peaks);
    found = max_peaks;
  }
  for (int i = 0; i < found; ++i) {
    const auto n = static_cast<std::size_t>(i);
    const float* at = inner + places[i];
    const float peak = *at;
    float left = at[-1], right = at[1], upper = at[-stride], lower = at[stride];
    if (left == kOutside || right == kOutside) {
      mend_border(&left, peak, &right, curvature_of(upper, peak, lower));
    }
    if (upper == kOutside || lower == kOutside) {
      mend_border(&upper, peak, &lower, curvature_of(left, peak, right));
    }
    scratch->left[n] = left;
    scratch->centre[n] = peak;
    scratch->right[n] = right;
    scratch->upper[n] = upper;
    scratch->lower[n] = lower;
    peaks->score[n] = std::min(peak, 1.0F);
  }
  kernels.refine(scratch->left.data(), scratch->centre.data(), scratch->right.data(), found,
                 peaks->x.data());
  kernels.refine(scratch->upper.data(), scratch->centre.data(), scratch->lower.data(), found,
                 peaks->y.data());
  for (int i = 0; i < found; ++i) {
    const auto n = static_cast<std::size_t>(i);
    peaks->x[n] += static_cast<float>(places[i] % stride - 1);
    const int row = places[i] / stride;
    peaks->y[n] += static_cast<float>(row);
  }
  peaks->count = found;
}

}  // namespace posewire
