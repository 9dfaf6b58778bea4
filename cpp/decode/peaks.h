// SPDX-License-Identifier: Apache-2.0
// Local maxima of heatmaps at their native resolution, with sub-cell positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

// Elements of an array for up to `count` candidates that the kernels may read in whole vectors.
constexpr std::size_t padded(int count) {
  const auto vectors = static_cast<std::size_t>((count + kLanes - 1) / kLanes);
  return vectors * kLanes;
}

// Working memory of find_peaks, sized once for a map size.
struct PeakScratch {
  PeakScratch(int height, int width, int max_peaks);

  std::vector<std::uint32_t> blocks, border;  // Kernels::scan, Kernels::maxima
  std::vector<int> places;                    // of the maxima in the plane
  // Values around each peak: left, centre, right, upper, lower; max_peaks padded to kLanes.
  std::vector<float> left, centre, right, upper, lower;
};

// Peaks of one keypoint type, in the order of the cells; arrays padded to kLanes.
struct Peaks {
  explicit Peaks(int max_peaks);

  int count = 0;
  std::vector<float> x, y;   // cells, sub-cell
  std::vector<float> score;  // the map's value at the peak, clamped to 0 … 1
  std::vector<int> cell;     // row * width + column of the maximum itself
};

// Local maxima over `threshold` of channel `channel` of dense float32 planes, and over
// `noise_margin` standard deviations of the map's white noise: at most max_peaks of them, the
// highest (equal ones: first in memory). The noise is estimated from negative values, which a
// network's own response hardly has.
// Positions: a parabola through the logarithms of three neighbours per axis, exact for a Gaussian.
// Time O(height * width); memory as sized.
void find_peaks(const MapView& heatmaps, int channel, float threshold, float noise_margin,
                int max_peaks, const Kernels& kernels, PeakScratch* scratch, Peaks* peaks);

}  // namespace posewire
