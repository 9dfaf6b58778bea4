// SPDX-License-Identifier: Apache-2.0
// Arrays between numpy and the engine, for the files of posewire._core.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <utility>

#include "core/image.h"
#include "core/pose.h"

namespace posewire {

using FloatArray = nanobind::ndarray<nanobind::numpy, float>;
// Taken as it is, whatever its strides: nanobind would convert other types silently (noconvert).
using Picture =
    nanobind::ndarray<const std::uint8_t, nanobind::shape<-1, -1, 3>, nanobind::device::cpu>;

// A new numpy array, uninitialised, and its values.
template <typename T>
std::pair<nanobind::ndarray<nanobind::numpy, T>, T*> new_array(
    std::initializer_list<std::size_t> shape) {
  std::size_t count = 1;
  for (const std::size_t size : shape) {
    count *= size;
  }
  auto memory = std::make_unique<T[]>(std::max<std::size_t>(count, 1));
  T* data = memory.get();
  nanobind::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  memory.release();
  return {nanobind::ndarray<nanobind::numpy, T>(data, shape, owner), data};
}

// uint8 [H, W, 3], a copy.
inline nanobind::object array_of(const Image& image) {
  auto [result, pixels] = new_array<std::uint8_t>(
      {static_cast<std::size_t>(image.height), static_cast<std::size_t>(image.width), 3});
  for (int y = 0; y < image.height; ++y) {
    pixels = std::copy(image.row(y), image.row(y) + 3 * image.width, pixels);
  }
  return nanobind::cast(result);
}

// (scores [N], keypoints [N, K, 3] of x, y, score), both float32.
inline nanobind::tuple arrays_of(const Poses& poses, int keypoints_per_person) {
  const auto people = static_cast<std::size_t>(poses.size());
  const auto count = static_cast<std::size_t>(keypoints_per_person);
  auto [scores, score] = new_array<float>({people});
  auto [keypoints, values] = new_array<float>({people, count, 3});
  for (int person = 0; person < poses.size(); ++person) {
    *score++ = poses.score(person);
    const Keypoint* keypoint = poses.keypoints_of(person);
    for (std::size_t k = 0; k < count; ++k) {
      *values++ = keypoint[k].x;
      *values++ = keypoint[k].y;
      *values++ = keypoint[k].score;
    }
  }
  return nanobind::make_tuple(scores, keypoints);
}

// The engine's Image owns its memory: one copy of the picture, whatever its strides.
inline void copy_picture(const Picture& picture, Image* image) {
  image->resize(static_cast<int>(picture.shape(1)), static_cast<int>(picture.shape(0)));
  const bool dense_rows = picture.stride(2) == 1 && picture.stride(1) == 3;
  for (int y = 0; y < image->height; ++y) {
    const std::uint8_t* from = picture.data() + y * picture.stride(0);
    std::uint8_t* to = image->row(y);
    if (dense_rows) {
      std::copy(from, from + image->stride_bytes, to);
      continue;
    }
    for (int x = 0; x < image->width; ++x, from += picture.stride(1)) {
      for (int c = 0; c < 3; ++c) {
        *to++ = from[c * picture.stride(2)];
      }
    }
  }
}

}  // namespace posewire
