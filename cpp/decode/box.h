// SPDX-License-Identifier: Apache-2.0
// Boxes and how much two of them overlap.
#pragma once

#include <algorithm>

namespace posewire {

struct Box {
  float left, top, right, bottom;  // network pixels
};

// Intersection over union, 0 … 1; 0 for boxes without an area. NaN where the areas overflow, which
// no comparison takes for an overlap.
inline float iou(const Box& a, const Box& b) {
  const float width = std::min(a.right, b.right) - std::max(a.left, b.left);
  const float height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  if (!(width > 0.0F && height > 0.0F)) {
    return 0.0F;
  }
  const float both = width * height;
  return both /
         ((a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top) - both);
}

}  // namespace posewire
