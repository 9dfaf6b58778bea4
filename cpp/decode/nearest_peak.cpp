// SPDX-License-Identifier: Apache-2.0
#include "decode/nearest_peak.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decode/planes.h"

namespace posewire {
namespace {

constexpr int kNearCells = 2;  // looked at first: nearly all maxima are so near

// The cells within `radius` of (column, row), which is in the map, and one around them.
void fill(const MapView& heatmaps, int channel, int column, int row, int radius,
          const Kernels& kernels, PeakWindow* window) {
  window->side = 2 * radius + 3;
  window->left = column - radius - 1;
  window->top = row - radius - 1;
  const std::ptrdiff_t plane = channel * heatmaps.channel_stride;
  if (heatmaps.dtype == DType::kFloat32 && heatmaps.column_stride == 1 && window->left >= 0 &&
      window->top >= 0 && window->left + window->side <= heatmaps.width &&
      window->top + window->side <= heatmaps.height) {
    window->row_stride = heatmaps.row_stride;
    window->values = static_cast<const float*>(heatmaps.data) + plane +
                     window->top * heatmaps.row_stride + window->left;
    return;
  }
  float* to = window->copy.data();
  window->values = to;
  window->row_stride = window->side;
  std::fill_n(to, window->side * window->side, -std::numeric_limits<float>::infinity());
  const int first = std::max(window->left, 0);
  const int last = std::min(window->left + window->side, heatmaps.width);
  for (int y = std::max(window->top, 0); y < std::min(window->top + window->side, heatmaps.height);
       ++y) {
    float* cells = to + (y - window->top) * window->side + (first - window->left);
    read_values(heatmaps, plane + y * heatmaps.row_stride + first * heatmaps.column_stride,
                heatmaps.column_stride, last - first, kernels, cells);
  }
}

// Where the keypoint of a maximum at (row, column) of the window is.
PeakSpot place_of(const MapView& heatmaps, const MapView* offset, const PeakWindow& window, int row,
                  int column, const Kernels& kernels) {
  const int x = window.left + column, y = window.top + row;
  const float* at = window.values + row * window.row_stride + column;
  float dx = 0.0F, dy = 0.0F;
  if (offset != nullptr) {
    const std::ptrdiff_t index = y * offset->row_stride + x * offset->column_stride;
    dx = read_value(*offset, index, kernels);
    dy = read_value(*offset, index + offset->channel_stride, kernels);
    dx = dx > -1.0F ? std::min(dx, 1.0F) : -1.0F;  // NaN: -1
    dy = dy > -1.0F ? std::min(dy, 1.0F) : -1.0F;
  } else {  // across the map's border nothing is known: the cell's centre
    const bool inner_x = x > 0 && x<heatmaps.width - 1, inner_y = y> 0 && y < heatmaps.height - 1;
    std::array<float, kLanes> before{}, peak{}, after{}, shift{};
    peak[0] = peak[1] = *at;
    before[0] = inner_x ? at[-1] : *at;
    after[0] = inner_x ? at[1] : *at;
    before[1] = inner_y ? at[-window.row_stride] : *at;
    after[1] = inner_y ? at[window.row_stride] : *at;
    kernels.refine(before.data(), peak.data(), after.data(), 2, shift.data());
    dx = shift[0];
    dy = shift[1];
  }
  return {static_cast<float>(x) + dx, static_cast<float>(y) + dy, std::min(*at, 1.0F), true};
}

// Over the threshold and its eight neighbours; of equal ones the first in memory. A neighbour that
// is NaN is not higher. No branch between the comparisons: on a peak's flanks any may decide.
bool is_maximum(const float* at, std::ptrdiff_t row_stride, float threshold) {
  const float v = *at;
  const float* above = at - row_stride;
  const float* below = at + row_stride;
  const bool lower = (above[-1] >= v) | (above[0] >= v) | (above[1] >= v) | (at[-1] >= v) |
                     (at[1] > v) | (below[-1] > v) | (below[0] > v) | (below[1] > v);
  return (v > threshold) & !lower;
}

}  // namespace

PeakSpot nearest_peak(const MapView& heatmaps, int channel, const MapView* offset, float threshold,
                      float x, float y, float limit, const Kernels& kernels, PeakWindow* window) {
  const int column = std::clamp(static_cast<int>(std::floor(x + 0.5F)), 0, heatmaps.width - 1);
  const int row = std::clamp(static_cast<int>(std::floor(y + 0.5F)), 0, heatmaps.height - 1);
  const int farthest = std::min(static_cast<int>(std::ceil(limit + 1.5F)), kPeakReach);
  for (int radius = std::min(kNearCells, farthest);; radius = farthest) {
    fill(heatmaps, channel, column, row, radius, kernels, window);
    PeakSpot best{0.0F, 0.0F, 0.0F, false};
    float least = limit * limit;
    for (int r = 1; r < window->side - 1; ++r) {
      for (int c = 1; c < window->side - 1; ++c) {
        const float* at = window->values + r * window->row_stride + c;
        if (!is_maximum(at, window->row_stride, threshold)) {
          continue;
        }
        const PeakSpot spot = place_of(heatmaps, offset, *window, r, c, kernels);
        const float dx = spot.x - x, dy = spot.y - y;
        if (dx * dx + dy * dy < least || (!best.found && dx * dx + dy * dy <= least)) {
          least = dx * dx + dy * dy;
          best = spot;
        }
      }
    }
    // One further out than the window is at least half a cell nearer than its edge, being displaced
    // by one cell at most and (x, y) being half a cell from the middle at most.
    const float certain = static_cast<float>(radius) - 0.5F;
    if (radius == farthest || (best.found && least <= certain * certain)) {
      return best;
    }
  }
}

}  // namespace posewire
