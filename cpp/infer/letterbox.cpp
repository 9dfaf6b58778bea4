// SPDX-License-Identifier: Apache-2.0
// The geometry alone: needs no OpenCV.
#include <algorithm>

#include "infer/preprocess.h"

namespace posewire {
namespace {

// round half up of size * to / from, exactly: floating point would miss the halves.
int rounded(int size, int to, int from) noexcept {
  const long long scaled = 2LL * size * to + from;
  return static_cast<int>(std::max(1LL, scaled / (2LL * from)));
}

}  // namespace

Letterbox letterbox_of(int frame_width, int frame_height, int width, int height) noexcept {
  Letterbox box;
  // scale = min(W / w, H / h), compared without dividing.
  if (static_cast<long long>(width) * frame_height <=
      static_cast<long long>(height) * frame_width) {
    box.width = width;
    box.height = rounded(frame_height, width, frame_width);
  } else {
    box.height = height;
    box.width = rounded(frame_width, height, frame_height);
  }
  box.left = (width - box.width) / 2;
  box.top = (height - box.height) / 2;
  box.scale_x = static_cast<float>(frame_width) / static_cast<float>(box.width);
  box.scale_y = static_cast<float>(frame_height) / static_cast<float>(box.height);
  return box;
}

}  // namespace posewire
