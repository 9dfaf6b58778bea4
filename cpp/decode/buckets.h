// SPDX-License-Identifier: Apache-2.0
// A coarse grid over a map, so that "what is near this point" looks at a few points, not at all.
#pragma once

#include <algorithm>

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

  static constexpr int kSide = 4;  // cells

  int count() const noexcept { return rows_ * columns_; }
  int columns() const noexcept { return columns_; }

  // Clamped to the grid; x and y (cells) are finite and not huge.
  int column(float x) const noexcept { return clamped(x, columns_); }
  int row(float y) const noexcept { return clamped(y, rows_); }
  int at(float x, float y) const noexcept { return row(y) * columns_ + column(x); }

 private:
  int clamped(float cells, int count) const noexcept {
    return std::min(static_cast<int>(std::max(cells, 0.0F) * per_cell_), count - 1);
  }

  int columns_ = 0, rows_ = 0;
  float per_cell_ = 0.0F;
};

}  // namespace posewire
