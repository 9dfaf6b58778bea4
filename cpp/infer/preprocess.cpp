// SPDX-License-Identifier: Apache-2.0
#include "infer/preprocess.h"

#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

namespace posewire {
namespace {

constexpr int kPad = 114;  // grey, as the networks were trained

// A header over memory that somebody else owns; OpenCV's constructor takes no const.
cv::Mat picture(const void* data, int width, int height, std::size_t stride_bytes) {
  return {height, width, CV_8UC3, const_cast<void*>(data), stride_bytes};
}

void pad(cv::Mat* canvas, const cv::Rect& inside) {
  const cv::Scalar grey = cv::Scalar::all(kPad);
  const int right = inside.x + inside.width;
  const int bottom = inside.y + inside.height;
  const cv::Rect borders[] = {{0, 0, canvas->cols, inside.y},
                              {0, bottom, canvas->cols, canvas->rows - bottom},
                              {0, inside.y, inside.x, inside.height},
                              {right, inside.y, canvas->cols - right, inside.height}};
  for (const cv::Rect& border : borders) {
    if (border.width > 0 && border.height > 0) {
      (*canvas)(border).setTo(grey);
    }
  }
}

}  // namespace

void letterbox(const Image& frame, const Letterbox& geometry, int width, int height,
               Channels channels, std::uint8_t* out) {
  const std::size_t stride_bytes = static_cast<std::size_t>(width) * 3;
  const cv::Mat source = picture(frame.bytes.data(), frame.width, frame.height, frame.stride_bytes);
  cv::Mat canvas = picture(out, width, height, stride_bytes);
  const cv::Rect inside(geometry.left, geometry.top, geometry.width, geometry.height);
  cv::Mat target = canvas(inside);

  // "By more than 2" is meant of the unrounded scale, that of the axis which fills its side.
  const bool fills_width = geometry.width == width;
  const bool area = fills_width ? frame.width > 2 * width : frame.height > 2 * height;
  cv::resize(source, target, target.size(), 0.0, 0.0, area ? cv::INTER_AREA : cv::INTER_LINEAR);
  if (channels == Channels::kRGB) {
    // A second header over the same memory: OpenCV copies the source first when both are one
    // object.
    cv::Mat swapped = canvas(inside);
    cv::cvtColor(target, swapped, cv::COLOR_BGR2RGB);
  }
  pad(&canvas, inside);
}

void use_no_opencv_threads() { cv::setNumThreads(1); }

void to_frame(const Letterbox& letterbox, Poses* poses) noexcept {
  const int count = poses->keypoints_per_person();
  for (int person = 0; person < poses->size(); ++person) {
    Keypoint* keypoints = poses->keypoints_of(person);
    for (int k = 0; k < count; ++k) {
      if (keypoints[k].score > 0.0F) {
        letterbox.to_frame(&keypoints[k].x, &keypoints[k].y);
      }
    }
  }
}

}  // namespace posewire
