// SPDX-License-Identifier: Apache-2.0
// A coarse grid over a map, to put near points together.
#pragma once

#include <algorithm>
#include <cstddef>

namespace posewire {

class Buckets {
 public:
  // At least kSide cells a side, and no more than 64 x 64 buckets whatever the map's size.
  Buckets(int height, int width) {
    const int side = std::max(kSide, (std::max(height, width) + 63) / 64);
    columns_ = (width + side - 1) / side;
    rows_ = (height + side - 1) / side;
    per_cell_ = 1.0F / static_cast<float>(side);
  }

  static constexpr int kSide = 2;  // cells

  std::size_t count() const noexcept {
    return static_cast<std::size_t>(rows_) * static_cast<std::size_t>(columns_);
  }
  int columns() const noexcept { return columns_; }

  // Clamped to the grid; NaN counts as 0.
  int column(float x) const noexcept { return clamped(x, columns_); }
  int row(float y) const noexcept { return clamped(y, rows_); }
  int at(float x, float y) const noexcept { return row(y) * columns_ + column(x); }

 private:
  int clamped(float cells, int count) const noexcept {
    return static_cast<int>(
        std::min(std::max(0.0F, cells) * per_cell_, static_cast<float>(count) - 0.5F));
  }

  int columns_ = 0, rows_ = 0;
  float per_cell_ = 0.0F;
};

}  // namespace posewire
