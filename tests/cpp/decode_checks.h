// SPDX-License-Identifier: Apache-2.0
// What every decoder test does: open, decode, and look whether the result can be true.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decode/decoder.h"
#include "scenes.h"

namespace posewire::test {

inline Skeleton skeleton_named(const std::string& name) {
  return read_skeleton(std::string(POSEWIRE_SKELETONS) + "/" + name + ".json");
}

inline std::vector<MapView> views_of(const Maps& maps, int height, int width) {
  return {dense_map(maps.heatmaps.data(), DType::kFloat32, Layout::kNCHW, maps.heatmap_channels,
                    height, width),
          dense_map(maps.fields.data(), DType::kFloat32, Layout::kNCHW, maps.field_channels, height,
                    width)};
}

inline Poses decoded(const Manifest& manifest, const std::vector<MapView>& views) {
  const auto decoder = open_decoder(manifest);
  const auto scratch = decoder->make_scratch();
  Poses poses;
  decoder->decode(views, scratch.get(), &poses);
  return poses;
}

// Finite, in the map, scores in range and consistent: whatever came in.
inline void expect_sane(const Poses& poses, int height, int width, int stride) {
  const auto right = static_cast<float>(width * stride);
  const auto bottom = static_cast<float>(height * stride);
  for (int p = 0; p < poses.size(); ++p) {
    float total = 0.0F;
    for (int k = 0; k < poses.keypoints_per_person(); ++k) {
      const Keypoint& point = poses.keypoints_of(p)[k];
      ASSERT_TRUE(std::isfinite(point.x) && std::isfinite(point.y));
      ASSERT_GE(point.score, 0.0F);
      ASSERT_LE(point.score, 1.0F);
      if (point.score > 0.0F) {
        ASSERT_GE(point.x, -1.0F);
        ASSERT_LE(point.x, right);
        ASSERT_GE(point.y, -1.0F);
        ASSERT_LE(point.y, bottom);
      } else {
        ASSERT_EQ(point.x, 0.0F);
        ASSERT_EQ(point.y, 0.0F);
      }
      total += point.score;
    }
    ASSERT_NEAR(poses.score(p), total / static_cast<float>(poses.keypoints_per_person()), 1e-5F);
  }
}

inline bool same(const Poses& left, const Poses& right) {
  if (left.size() != right.size()) {
    return false;
  }
  for (int p = 0; p < left.size(); ++p) {
    if (left.score(p) != right.score(p) ||
        std::memcmp(left.keypoints_of(p), right.keypoints_of(p),
                    sizeof(Keypoint) * static_cast<std::size_t>(left.keypoints_per_person())) !=
            0) {
      return false;
    }
  }
  return true;
}

// Leaves 3.4e38, no index of anything, all over the stack that the next call uses:
// a decoder that takes what it never wrote for a place is seen.
[[gnu::noinline]] inline void spoil_stack() {
  unsigned char bytes[1 << 16];
  std::memset(bytes, 0x7F, sizeof bytes);
  __asm__ volatile("" : : "r"(&bytes[0]) : "memory");
}

}  // namespace posewire::test
