// SPDX-License-Identifier: Apache-2.0
#include "decode/oks_nms.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace posewire {
namespace {

float term(const Keypoint& better, const Keypoint& weaker, float falloff, float area) {
  if (better.score <= 0.0F) {
    return 0.0F;
  }
  const float dx = better.x - weaker.x, dy = better.y - weaker.y;
  const float exponent = (dx * dx + dy * dy) * falloff / area;
  return exponent < 20.0F ? std::exp(-exponent) : 0.0F;
}

}  // namespace

OksNms::OksNms(const std::vector<float>& sigmas, float threshold) : threshold_(threshold) {
  for (const float sigma : sigmas) {
    falloff_.push_back(1.0F / (8.0F * sigma * sigma));
  }
}

float OksNms::area(const Keypoint* pose) const noexcept {
  bool any = false;
  float left = 0.0F, right = 0.0F, top = 0.0F, bottom = 0.0F;
  for (std::size_t k = 0; k < falloff_.size(); ++k) {
    const Keypoint& point = pose[k];
    if (point.score <= 0.0F) {
      continue;
    }
    left = any ? std::min(left, point.x) : point.x;
    right = any ? std::max(right, point.x) : point.x;
    top = any ? std::min(top, point.y) : point.y;
    bottom = any ? std::max(bottom, point.y) : point.y;
    any = true;
  }
  const float width = right - left, height = bottom - top;
  const float longer = std::max(width, height);
  return std::max({width * height, 0.25F * longer * longer, 1.0F});
}

float OksNms::similarity(const Keypoint* better, float area,
                         const Keypoint* weaker) const noexcept {
  float sum = 0.0F;
  int count = 0;
  for (std::size_t k = 0; k < falloff_.size(); ++k) {
    if (weaker[k].score > 0.0F) {
      sum += term(better[k], weaker[k], falloff_[k], area);
      ++count;
    }
  }
  return count > 0 ? sum / static_cast<float>(count) : 0.0F;
}

bool OksNms::duplicate(const Keypoint* better, float area, const Keypoint* weaker) const noexcept {
  if (threshold_ >= 1.0F) {
    return false;
  }
  int count = 0;
  for (std::size_t k = 0; k < falloff_.size(); ++k) {
    count += weaker[k].score > 0.0F ? 1 : 0;
  }
  if (count == 0) {
    return false;
  }
  // What the similarity may still lose: most pairs are far apart and seen so after few keypoints.
  float loss_left = (1.0F - threshold_) * static_cast<float>(count);
  for (std::size_t k = 0; k < falloff_.size() && loss_left >= 0.0F; ++k) {
    if (weaker[k].score > 0.0F) {
      loss_left -= 1.0F - term(better[k], weaker[k], falloff_[k], area);
    }
  }
  return loss_left >= 0.0F;
}

}  // namespace posewire
