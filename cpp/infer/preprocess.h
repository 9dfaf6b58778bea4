// SPDX-License-Identifier: Apache-2.0
// Letterbox: scale = min(W/w, H/h), size rounded half up, centred (left = floor(rest / 2)), padded
// with 114, bilinear, area when shrinking by more than 2 (DESIGN.md 3.3). Once, here: the trainer's
// evaluation, the gate and the engine all call it.
#pragma once

#include <cstdint>

#include "core/image.h"
#include "core/pose.h"

namespace posewire {

// The way back from network pixels to the frame: x = (x_net - left + 0.5) * scale_x - 0.5 with
// scale_x = w / w_new, the rounded size per axis.
struct Letterbox {
  int left = 0, top = 0, width = 0, height = 0;  // the picture inside the network's input
  float scale_x = 1.0F, scale_y = 1.0F;          // frame pixels per network pixel

  void to_frame(float* x, float* y) const noexcept {
    *x = (*x - static_cast<float>(left) + 0.5F) * scale_x - 0.5F;
    *y = (*y - static_cast<float>(top) + 0.5F) * scale_y - 0.5F;
  }
  void to_network(float* x, float* y) const noexcept {
    *x = (*x + 0.5F) / scale_x - 0.5F + static_cast<float>(left);
    *y = (*y + 0.5F) / scale_y - 0.5F + static_cast<float>(top);
  }
};

// Throws nothing; sizes must be positive.
Letterbox letterbox_of(int frame_width, int frame_height, int width, int height) noexcept;

enum class Channels : std::uint8_t { kRGB, kBGR };

// Writes the letterboxed picture in place: uint8 NHWC, `out` has width * height * 3 bytes.
void letterbox(const Image& frame, const Letterbox& geometry, int width, int height,
               Channels channels, std::uint8_t* out);

// For the whole process, once at its start: OpenCV works in the calling thread. Its own pool would
// only compete with the pipeline's threads and the runtime's.
void use_no_opencv_threads();

// Maps every present keypoint back to the frame.
void to_frame(const Letterbox& letterbox, Poses* poses) noexcept;

}  // namespace posewire
