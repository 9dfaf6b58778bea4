// SPDX-License-Identifier: Apache-2.0
// A limb's part affinity field, sampled between its cells.
#pragma once

#include <algorithm>
#include <cstddef>

#include "core/tensor.h"

namespace posewire {

struct Vector {
  float x, y;
};

// Two float32 planes with column_stride 1. One sample at a time on purpose: eight loads and a dozen
// multiplications cost less than vector gathers, which are slow on many machines.
class Field {
 public:
  // Channels `first` (x) and `first` + 1 (y) of a float32 view of at least 2 x 2 cells.
  Field(const MapView& view, int first)
      : x_(static_cast<const float*>(view.data) + first * view.channel_stride),
        y_(x_ + view.channel_stride),
        row_stride_(view.row_stride),
        left_(view.width - 2),
        top_(view.height - 2),
        last_x_(static_cast<float>(view.width - 1)),
        last_y_(static_cast<float>(view.height - 1)) {}

  // Bilinear, clamped to the map; x and y (cells) are finite.
  Vector at(float x, float y) const {
    const float cx = std::min(std::max(x, 0.0F), last_x_);
    const float cy = std::min(std::max(y, 0.0F), last_y_);
    const int column = std::min(static_cast<int>(cx), left_);
    const int row = std::min(static_cast<int>(cy), top_);
    const float fx = cx - static_cast<float>(column), fy = cy - static_cast<float>(row);
    const std::ptrdiff_t index = row * row_stride_ + column;
    return {blend(x_ + index, fx, fy), blend(y_ + index, fx, fy)};
  }

  // The nearest cell's; x and y at least -0.5.
  Vector near(float x, float y) const {
    const int column = std::min(static_cast<int>(x + 0.5F), left_ + 1);
    const int row = std::min(static_cast<int>(y + 0.5F), top_ + 1);
    const std::ptrdiff_t index = row * row_stride_ + column;
    return {x_[index], y_[index]};
  }

 private:
  float blend(const float* upper, float fx, float fy) const {
    const float* lower = upper + row_stride_;
    const float a = upper[0] + (upper[1] - upper[0]) * fx;
    const float b = lower[0] + (lower[1] - lower[0]) * fx;
    return a + (b - a) * fy;
  }

  const float* x_;
  const float* y_;
  std::ptrdiff_t row_stride_;
  int left_, top_;
  float last_x_, last_y_;
};

}  // namespace posewire
