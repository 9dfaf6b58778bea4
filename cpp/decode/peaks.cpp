// SPDX-License-Identifier: Apache-2.0
#include "decode/peaks.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace posewire {
namespace {

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

// A neighbour's value; NaN and -Inf tell no more than the outside does.
float known(float value) { return value >= -3e38F ? value : kOutside; }

void mend_border(float* before, float peak, float* after, float curvature) {
  if (*before == kOutside && *after != kOutside) {
    *before = across_border(peak, std::max(*after, 0.02F * peak), curvature);
  } else if (*after == kOutside && *before != kOutside) {
    *after = across_border(peak, std::max(*before, 0.02F * peak), curvature);
  }
}

}  // namespace

PeakScratch::PeakScratch(int height, int width, int max_peaks)
    : blocks(static_cast<std::size_t>(height * width / kBlock + 3)),
      border(blocks.size(), 0),
      // No two neighbours are both maxima: at most one in each block of 2 x 2. One more is written.
      places(static_cast<std::size_t>((height + 1) / 2) *
                 static_cast<std::size_t>((width + 1) / 2) +
             1),
      left(padded(max_peaks)),
      centre(padded(max_peaks)),
      right(padded(max_peaks)),
      upper(padded(max_peaks)),
      lower(padded(max_peaks)) {
  const int cells = height * width;
  for (int i = 0; i < cells; ++i) {
    const int first = i / kBlock * kBlock;
    const bool rows_whole = first >= width && first + kBlock + width <= cells;
    std::uint32_t& edge = border[static_cast<std::size_t>(i / kBlock)];
    if (!rows_whole) {
      edge = kAllOfBlock;
    } else if (i % width == 0 || i % width == width - 1) {
      edge |= 1U << i % kBlock;
    }
  }
}

Peaks::Peaks(int max_peaks)
    : x(padded(max_peaks)),
      y(padded(max_peaks)),
      score(padded(max_peaks)),
      cell(padded(max_peaks)) {}

void find_peaks(const MapView& heatmaps, int channel, float threshold, float noise_margin,
                int max_peaks, const Kernels& kernels, PeakScratch* scratch, Peaks* peaks) {
  const int height = heatmaps.height, width = heatmaps.width, cells = height * width;
  const float* plane = static_cast<const float*>(heatmaps.data) + channel * heatmaps.channel_stride;
  peaks->count = 0;
  int blocks = 0;
  const float squares = kernels.scan(plane, cells, threshold, scratch->blocks.data(), &blocks);
  // Half of white noise is negative.
  const float noise = std::sqrt(2.0F * squares / static_cast<float>(std::max(cells / 32 * 8, 1)));
  const float floor = std::max(threshold, noise_margin * noise);
  int* places = scratch->places.data();
  int found = kernels.maxima(plane, height, width, floor, scratch->blocks.data(), blocks,
                             scratch->border.data(), places);
  if (found > max_peaks) {
    std::nth_element(places, places + max_peaks, places + found, [plane](int i, int k) {
      return plane[i] != plane[k] ? plane[i] > plane[k] : i < k;
    });
    std::sort(places, places + max_peaks);
    found = max_peaks;
  }
  for (int i = 0; i < found; ++i) {
    const auto n = static_cast<std::size_t>(i);
    const int row = places[i] / width, column = places[i] - row * width;
    const float* at = plane + places[i];
    const float peak = *at;
    float left = column > 0 ? known(at[-1]) : kOutside;
    float right = column < width - 1 ? known(at[1]) : kOutside;
    float upper = row > 0 ? known(at[-width]) : kOutside;
    float lower = row < height - 1 ? known(at[width]) : kOutside;
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
    const int row = places[i] / width;
    peaks->x[n] += static_cast<float>(places[i] - row * width);
    peaks->y[n] += static_cast<float>(row);
    peaks->cell[n] = places[i];
  }
  peaks->count = found;
}

}  // namespace posewire
