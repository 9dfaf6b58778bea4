// SPDX-License-Identifier: Apache-2.0
#include "infer/preprocess.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace posewire {
namespace {

Image plain(int width, int height, std::uint8_t blue, std::uint8_t green, std::uint8_t red) {
  Image image;
  image.resize(width, height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.row(y)[3 * x] = blue;
      image.row(y)[3 * x + 1] = green;
      image.row(y)[3 * x + 2] = red;
    }
  }
  return image;
}

// Pixel (x, y) is (x, y, 0): coordinates can be read back from the result.
Image ramp(int width, int height) {
  Image image = plain(width, height, 0, 0, 0);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      image.row(y)[3 * x] = static_cast<std::uint8_t>(x);
      image.row(y)[3 * x + 1] = static_cast<std::uint8_t>(y);
    }
  }
  return image;
}

std::vector<std::uint8_t> boxed(const Image& image, int width, int height, Channels channels) {
  // Guard bytes on both sides: nothing outside the slot may be written.
  const std::size_t size = static_cast<std::size_t>(width * height * 3);
  std::vector<std::uint8_t> guarded(size + 64, 0xA5);
  letterbox(image, letterbox_of(image.width, image.height, width, height), width, height, channels,
            guarded.data() + 32);
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(guarded[i], 0xA5);
    EXPECT_EQ(guarded[size + 32 + i], 0xA5);
  }
  return {guarded.begin() + 32, guarded.end() - 32};
}

TEST(Letterbox, IsCentredAndRoundedHalfUp) {
  // 640 x 480 into 432 x 368: scale 0.675, height 324 exactly, rest 44.
  Letterbox box = letterbox_of(640, 480, 432, 368);
  EXPECT_EQ(box.width, 432);
  EXPECT_EQ(box.height, 324);
  EXPECT_EQ(box.left, 0);
  EXPECT_EQ(box.top, 22);
  // 1000 x 25 into 100 x 100: 2.5 rounds up to 3, rest 97 gives top 48.
  box = letterbox_of(1000, 25, 100, 100);
  EXPECT_EQ(box.height, 3);
  EXPECT_EQ(box.top, 48);
  EXPECT_FLOAT_EQ(box.scale_x, 10.0F);
  EXPECT_FLOAT_EQ(box.scale_y, 25.0F / 3.0F);
  // Never thinner than a pixel.
  box = letterbox_of(4000, 1, 256, 256);
  EXPECT_EQ(box.height, 1);
  EXPECT_EQ(letterbox_of(1, 4000, 256, 256).width, 1);
}

TEST(Letterbox, FitsAndTouchesTwoSidesForAnySize) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> size(1, 4000);
  for (int i = 0; i < 20000; ++i) {
    const int w = size(random), h = size(random);
    const int width = 32 * (1 + size(random) % 20), height = 32 * (1 + size(random) % 20);
    const Letterbox box = letterbox_of(w, h, width, height);
    ASSERT_TRUE(box.width == width || box.height == height) << w << "x" << h;
    ASSERT_GE(box.width, 1);
    ASSERT_GE(box.height, 1);
    ASSERT_LE(box.width, width) << w << "x" << h;
    ASSERT_LE(box.height, height) << w << "x" << h;
    ASSERT_EQ(box.left, (width - box.width) / 2);
    ASSERT_EQ(box.top, (height - box.height) / 2);
    const double scale = std::min(static_cast<double>(width) / w, static_cast<double>(height) / h);
    ASSERT_NEAR(box.width, std::max(1.0, w * scale), 0.5 + 1e-9);
    ASSERT_NEAR(box.height, std::max(1.0, h * scale), 0.5 + 1e-9);
  }
}

TEST(Letterbox, PointsComeBackForAnySize) {
  std::mt19937 random(8);
  std::uniform_int_distribution<int> size(1, 4000);
  std::uniform_real_distribution<float> part(0.0F, 1.0F);
  for (int i = 0; i < 20000; ++i) {
    const int w = size(random), h = size(random);
    const Letterbox box = letterbox_of(w, h, 432, 368);
    const float x0 = part(random) * static_cast<float>(w - 1);
    const float y0 = part(random) * static_cast<float>(h - 1);
    float x = x0, y = y0;
    box.to_network(&x, &y);
    ASSERT_GE(x, static_cast<float>(box.left) - 0.51F);
    ASSERT_LE(x, static_cast<float>(box.left + box.width) - 0.49F);
    box.to_frame(&x, &y);
    ASSERT_NEAR(x, x0, 2e-3F * static_cast<float>(w) / 100.0F + 1e-3F);
    ASSERT_NEAR(y, y0, 2e-3F * static_cast<float>(h) / 100.0F + 1e-3F);
  }
}

TEST(Letterbox, TheFramesCornersAreTheBoxsCorners) {
  const Letterbox box = letterbox_of(1280, 720, 256, 256);
  float x = static_cast<float>(box.left) - 0.5F, y = static_cast<float>(box.top) - 0.5F;
  box.to_frame(&x, &y);
  EXPECT_FLOAT_EQ(x, -0.5F);
  EXPECT_FLOAT_EQ(y, -0.5F);
}

TEST(Preprocess, PadsWith114AndSwapsChannels) {
  const Image image = plain(100, 50, 10, 20, 30);
  const auto rgb = boxed(image, 64, 64, Channels::kRGB);
  const auto bgr = boxed(image, 64, 64, Channels::kBGR);
  const Letterbox box = letterbox_of(100, 50, 64, 64);
  ASSERT_EQ(box.top, 16);
  for (int y = 0; y < 64; ++y) {
    for (int x = 0; x < 64; ++x) {
      const auto i = static_cast<std::size_t>((y * 64 + x) * 3);
      const bool inside = y >= 16 && y < 48;
      ASSERT_EQ(rgb[i], inside ? 30 : 114) << x << "," << y;
      ASSERT_EQ(rgb[i + 1], inside ? 20 : 114);
      ASSERT_EQ(rgb[i + 2], inside ? 10 : 114);
      ASSERT_EQ(bgr[i], inside ? 10 : 114);
    }
  }
}

TEST(Preprocess, PadsLeftAndRight) {
  const auto out = boxed(plain(20, 80, 1, 2, 3), 65, 64, Channels::kBGR);
  const Letterbox box = letterbox_of(20, 80, 65, 64);
  ASSERT_EQ(box.width, 16);
  ASSERT_EQ(box.left, 24);
  for (int x = 0; x < 65; ++x) {
    ASSERT_EQ(out[static_cast<std::size_t>(x * 3)], x >= 24 && x < 40 ? 1 : 114) << x;
  }
}

TEST(Preprocess, IsBilinearBetweenPixelCentres) {
  // 2 x enlargement: output x shows frame (x + 0.5) / 2 - 0.5.
  const auto out = boxed(ramp(64, 64), 128, 128, Channels::kBGR);
  for (int x = 2; x < 126; ++x) {
    const double expected = (x + 0.5) / 2.0 - 0.5;
    ASSERT_NEAR(out[static_cast<std::size_t>((64 * 128 + x) * 3)], expected, 0.51) << x;
  }
}

TEST(Preprocess, AveragesWhenItShrinksByMoreThanTwo) {
  // Columns alternate 0 and 200. By 4: every output pixel is the mean, 100. By exactly 2, bilinear
  // takes the mean of two neighbours as well; by 3 bilinear would alias to 0 or 200.
  Image stripes = plain(96, 96, 0, 0, 0);
  for (int y = 0; y < 96; ++y) {
    for (int x = 1; x < 96; x += 2) {
      stripes.row(y)[3 * x] = 200;
    }
  }
  const auto area = boxed(stripes, 32, 32, Channels::kBGR);
  for (int x = 0; x < 32; ++x) {
    const int value = area[static_cast<std::size_t>((16 * 32 + x) * 3)];
    ASSERT_GE(value, 66);
    ASSERT_LE(value, 134);
  }
}

TEST(Preprocess, ReadsPaddedRows) {
  const Image dense = ramp(30, 20);
  Image padded;
  padded.width = 30;
  padded.height = 20;
  padded.stride_bytes = 128;
  padded.bytes.assign(128 * 20, 0xEE);
  for (int y = 0; y < 20; ++y) {
    std::copy(dense.row(y), dense.row(y) + 90, padded.row(y));
  }
  EXPECT_EQ(boxed(dense, 64, 64, Channels::kRGB), boxed(padded, 64, 64, Channels::kRGB));
}

TEST(Preprocess, ExtremeSizesStayInsideTheSlot) {
  for (const auto& [w, h] : {std::pair{1, 1}, {1, 4000}, {4000, 1}, {3, 2}, {4000, 3999}}) {
    const auto out = boxed(plain(w, h, 7, 7, 7), 96, 64, Channels::kRGB);
    const Letterbox box = letterbox_of(w, h, 96, 64);
    const auto centre =
        static_cast<std::size_t>(((box.top + box.height / 2) * 96 + box.left + box.width / 2) * 3);
    EXPECT_EQ(out[centre], 7) << w << "x" << h;
  }
}

TEST(Preprocess, MapsPresentKeypointsOnly) {
  Poses poses;
  poses.clear(2);
  Keypoint* keypoints = poses.add(0.5F);
  keypoints[0] = {10.0F, 32.0F, 0.9F};
  const Letterbox box = letterbox_of(128, 64, 64, 64);
  to_frame(box, &poses);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 20.5F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].y, 32.5F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].x, 0.0F);  // absent stays 0, 0, 0
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].y, 0.0F);
}

}  // namespace
}  // namespace posewire
