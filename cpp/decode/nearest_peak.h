// SPDX-License-Identifier: Apache-2.0
// The maximum of a heatmap that is nearest to a place: for rows that know already where about a
// keypoint is and need not look for peaks all over the map.
#pragma once

#include <array>
#include <cstddef>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

constexpr float kFarthestPeak = 16.0F;  // cells
// Cells on each side of the middle one: the farthest maximum, displaced by one, and a border.
constexpr int kPeakReach = static_cast<int>(kFarthestPeak) + 2;

// Working memory: a heatmap's cells around one, the map's own where it is float32 in rows and all
// are inside, else a copy with -Inf outside the map.
struct PeakWindow {
  const float* values;
  std::ptrdiff_t row_stride;
  int side, left, top;  // the map's column and row of the first one
  std::array<float, static_cast<std::size_t>(2 * kPeakReach + 3) * (2 * kPeakReach + 3)> copy;
};

struct PeakSpot {
  float x, y, score;  // cells; the maximum's value, at most 1
  bool found;
};

// The maximum over `threshold` of channel `channel` nearest to (x, y), cells in the map or one
// beside it, within `limit` <= kFarthestPeak; of equally near ones the first in memory. Its place
// is its cell plus what `offset` (two channels x, y, at most one cell each) says there, or, with
// null, by a parabola through the logarithms of its neighbours. Any element type and layout;
// heatmaps of 2 x 2 cells and more. Time O(1): most often 7 x 7 cells are read, (2 limit + 7)² at
// most.
PeakSpot nearest_peak(const MapView& heatmaps, int channel, const MapView* offset, float threshold,
                      float x, float y, float limit, const Kernels& kernels, PeakWindow* window);

}  // namespace posewire
