// SPDX-License-Identifier: Apache-2.0
// What the top-down rows share: a frame is the crop of one person.
#pragma once

#include <vector>

#include "bundle/manifest.h"
#include "core/pose.h"

namespace posewire {

// Throws Error(kBundle) unless the manifest is of a top-down network with 1 … 1024 keypoints.
void require_top_down(const Manifest& manifest, const char* row);

// The one person, all of whose K keypoints are given; nobody where none of them has a score.
void add_one_person(const std::vector<Keypoint>& keypoints, Poses* poses);

}  // namespace posewire
