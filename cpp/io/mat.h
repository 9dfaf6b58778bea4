// SPDX-License-Identifier: Apache-2.0
// An Image seen as an OpenCV matrix: the same memory, no copy.
#pragma once

#include <opencv2/core.hpp>

#include "core/image.h"

namespace posewire {

inline cv::Mat mat_of(Image* image) {
  return cv::Mat(image->height, image->width, CV_8UC3, image->bytes.data(), image->stride_bytes);
}

// OpenCV has no read-only matrix: the caller only reads.
inline const cv::Mat mat_of(const Image& image) {
  return cv::Mat(image.height, image.width, CV_8UC3, const_cast<std::uint8_t*>(image.bytes.data()),
                 image.stride_bytes);
}

}  // namespace posewire
