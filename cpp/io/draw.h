// SPDX-License-Identifier: Apache-2.0
// Poses drawn into a picture: for the video file, the window and the trainer's previews.
#pragma once

#include <string>
#include <vector>

#include "core/image.h"
#include "core/pose.h"
#include "core/skeleton.h"

namespace posewire {

// Limbs, keypoints and a box with the score for each person, in the person's colour; what lies on
// the right side of a body is darker, a keypoint of a low score faint. Lines are as thick as the
// picture and the person are large. poses: frame pixels, keypoints as many as the skeleton's
// (others draw keypoints without limbs). colors: one number a person, from PersonColors; empty: by
// index.
void draw_poses(Image* image, const Poses& poses, const Skeleton& skeleton,
                const std::vector<int>& colors = {});

// Small labels on dark plates along the upper edge, from the left; ASCII only.
void draw_captions(Image* image, const std::vector<std::string>& texts);

// Letterboxes a picture into another size, black around it; same size: a copy.
void fit_into(const Image& image, int width, int height, Image* out);

// Keeps a person's colour from frame to frame by where the person was: not a tracker, only good
// enough for the eye. One per camera.
class PersonColors {
 public:
  const std::vector<int>& assign(const Poses& poses);

 private:
  struct Seen {
    float left, top, right, bottom;
    int color, age;
  };
  std::vector<Seen> seen_;
  std::vector<int> colors_;
  int next_ = 0;
};

}  // namespace posewire
