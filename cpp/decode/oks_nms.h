// SPDX-License-Identifier: Apache-2.0
// Which of two poses is the other once more: object keypoint similarity (COCO), the measure that
// poses are evaluated by. For rows that report a person per centre, anchor or seed.
#pragma once

#include <vector>

#include "core/pose.h"

namespace posewire {

class OksNms {
 public:
  // The skeleton's sigmas; a pose at or over `threshold` is a duplicate (1 and more: none is).
  OksNms(const std::vector<float>& sigmas, float threshold);

  // The pose's area, pixels², estimated: its keypoints' extents multiplied, at least a quarter of
  // the longer one's square (people seen from the side, a few keypoints in a line), at least 1.
  float area(const Keypoint* pose) const noexcept;

  // The mean over the weaker pose's keypoints of exp(-d² / (2 (2 sigma)² area)); one that the
  // better pose lacks counts 0. `area` is the better pose's. O(K), no state.
  float similarity(const Keypoint* better, float area, const Keypoint* weaker) const noexcept;

  // similarity() >= threshold, decided as soon as it is certain.
  bool duplicate(const Keypoint* better, float area, const Keypoint* weaker) const noexcept;

 private:
  std::vector<float> falloff_;  // per keypoint: 1 / (2 (2 sigma)²)
  float threshold_;
};

}  // namespace posewire
