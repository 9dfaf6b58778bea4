// SPDX-License-Identifier: Apache-2.0
#include "core/image.h"

namespace posewire {

void Image::resize(int new_width, int new_height) {
  width = new_width;
  height = new_height;
  stride_bytes = static_cast<std::size_t>(new_width) * 3;
  bytes.resize(stride_bytes * static_cast<std::size_t>(new_height));
}

}  // namespace posewire
