// SPDX-License-Identifier: Apache-2.0
// A skeleton is data from the manifest; the C++ knows no data set's by heart.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace posewire {

struct Skeleton {
  std::string name;
  std::vector<std::string> keypoints;      // K names
  std::vector<std::pair<int, int>> limbs;  // L pairs of keypoint indices from 0
  std::vector<int> flips;                  // permutation of length K: the mirrored keypoint
  std::vector<float> sigmas;               // K OKS sigmas

  int count() const noexcept { return static_cast<int>(keypoints.size()); }
};

}  // namespace posewire
