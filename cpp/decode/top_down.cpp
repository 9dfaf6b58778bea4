// SPDX-License-Identifier: Apache-2.0
#include "decode/top_down.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace posewire {

void require_top_down(const Manifest& manifest, const char* row) {
  if (manifest.mode != Mode::kTopDown) {
    throw Error(Code::kBundle, "mode",
                std::string(row) + " decodes the crop of one person: must be \"top_down\"");
  }
  const int keypoints = manifest.skeleton.count();
  if (keypoints < 1 || keypoints > 1024) {
    throw Error(Code::kBundle, "skeleton", std::string(row) + " needs 1 … 1024 keypoints");
  }
}

void add_one_person(const std::vector<Keypoint>& keypoints, Poses* poses) {
  float total = 0.0F;
  for (const Keypoint& keypoint : keypoints) {
    total += keypoint.score;
  }
  if (total > 0.0F) {
    Keypoint* person = poses->add(total / static_cast<float>(keypoints.size()));
    std::copy(keypoints.begin(), keypoints.end(), person);
  }
}

}  // namespace posewire
