// SPDX-License-Identifier: Apache-2.0
// Local maxima of heatmaps at their native resolution, with sub-cell positions.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

// Working memory of find_peaks, sized once for a map size.
struct PeakScratch {
  PeakScratch(int height, int width, int max_peaks);

  std::vector<float> bordered;      // (height + 2) x (width + 2), the border is -Inf
  std::vector<std::uint8_t> flags;  // of the inner rows
  std::vector<int> places;          // of flagged cells in `bordered`
  // Values around each peak: left, centre, right, upper, lower; max_peaks padded to kLanes.
  std::vector<float> left, centre, right, upper, lower;
};

// Peaks of one keypoint type, best first among those kept; arrays padded to kLanes.
struct Peaks {
  explicit Peaks(int max_peaks);

  int count = 0;
  std::vector<float> x, y;   // cells, sub-cell
  std::vector<float> score;  // the map's value at the peak, clamped to 0 … 1
};

// Local maxima over `threshold` of channel `channel` of a float32 view with column_stride 1: at
// most max_peaks of them, the highest (equal ones: first in memory).
// Positions: a parabola through the logarithms of three neighbours per axis, exact for a Gaussian.
// Time O(height * width); memory as sized.
void find_peaks(const MapView& heatmaps, int channel, float threshold, int max_peaks,
                const Kernels& kernels, PeakScratch* scratch, Peaks* peaks);

}  // namespace posewire
