// SPDX-License-Identifier: Apache-2.0
// The letterbox that runs on the device makes the bytes that preprocess.cpp makes with OpenCV, and
// its half-precision numbers are IEEE's. scripts/gpu_check.sh shows that the device computes what
// the CPU does here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <random>
#include <tuple>

#include "infer/preprocess.h"
#include "tensorrt/host_kernels.h"

namespace posewire {
namespace {

struct Size {
  int width, height, net_width, net_height;
};
std::ostream& operator<<(std::ostream& out, const Size& size) {
  return out << size.width << 'x' << size.height << " to " << size.net_width << 'x'
             << size.net_height;
}

// Area, whole numbers of pixels, exactly two, bilinear, none, enlarged; odd, thin and tiny.
constexpr Size kSizes[] = {
    {1920, 1080, 432, 368}, {640, 480, 432, 368},   {1280, 720, 432, 368}, {864, 736, 432, 368},
    {432, 368, 432, 368},   {1296, 1104, 432, 368}, {100, 37, 432, 368},   {3000, 333, 432, 368},
    {333, 3000, 256, 192},  {865, 737, 432, 368},   {863, 400, 432, 368},  {4000, 3, 432, 368},
    {500, 2000, 641, 640},  {258, 192, 64, 48},     {130, 97, 64, 48},     {7, 5, 64, 48},
    {1, 1, 64, 48},         {2, 1, 64, 48},         {1, 300, 64, 48},      {128, 96, 64, 48}};

std::vector<std::uint8_t> random_bytes(std::size_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::vector<std::uint8_t> bytes(count);
  for (std::uint8_t& value : bytes) {
    value = static_cast<std::uint8_t>(random() >> 24);
  }
  return bytes;
}

LetterboxJob job_for(const Size& size, const Letterbox& box) {
  LetterboxJob job;
  job.frame_width = size.width;
  job.frame_height = size.height;
  job.left = box.left;
  job.top = box.top;
  job.width = box.width;
  job.height = box.height;
  job.to.width = size.net_width;
  job.to.height = size.net_height;
  return job;
}

std::size_t values_of(const Size& size) {
  return static_cast<std::size_t>(size.net_width) * static_cast<std::size_t>(size.net_height) * 3;
}

Image frame_of(const Size& size) {
  Image image;
  image.resize(size.width, size.height);
  image.bytes = random_bytes(image.bytes.size());
  return image;
}

Letterbox box_of(const Size& size) {
  return letterbox_of(size.width, size.height, size.net_width, size.net_height);
}

void check_bytes(const Size& size) {
  const Letterbox box = box_of(size);
  const Image image = frame_of(size);
  for (const Channels channels : {Channels::kRGB, Channels::kBGR}) {
    std::vector<std::uint8_t> expected(values_of(size)), found(values_of(size), 1);
    letterbox(image, box, size.net_width, size.net_height, channels, expected.data());
    LetterboxJob job = job_for(size, box);
    job.planes[0] = image.bytes.data();
    job.stride_bytes[0] = image.stride_bytes;
    job.to.rgb = channels == Channels::kRGB;
    job.to.data = found.data();
    test::host_letterbox(job);
    EXPECT_TRUE(found == expected);
  }
}

void check_nv12(const Size& size) {
  const Letterbox box = box_of(size);
  const std::size_t luma =
      static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height);
  std::vector<std::uint8_t> nv12 = random_bytes(luma * 3 / 2);
  const cv::Mat yuv(size.height * 3 / 2, size.width, CV_8UC1, nv12.data());
  cv::Mat bgr;
  cv::cvtColor(yuv, bgr, cv::COLOR_YUV2BGR_NV12);
  Image image;
  image.resize(size.width, size.height);
  std::copy_n(bgr.data, image.bytes.size(), image.bytes.begin());
  std::vector<std::uint8_t> expected(values_of(size)), found(values_of(size), 1);
  letterbox(image, box, size.net_width, size.net_height, Channels::kRGB, expected.data());

  LetterboxJob job = job_for(size, box);
  job.pixels = Pixels::kNv12;
  job.planes[0] = nv12.data();
  job.planes[1] = nv12.data() + luma;
  job.stride_bytes[0] = job.stride_bytes[1] = static_cast<std::size_t>(size.width);
  job.to.data = found.data();
  test::host_letterbox(job);
  EXPECT_TRUE(found == expected);
}

void check_normalised(const Size& size) {
  const Letterbox box = box_of(size);
  const Image image = frame_of(size);
  std::vector<std::uint8_t> bytes(values_of(size));
  letterbox(image, box, size.net_width, size.net_height, Channels::kRGB, bytes.data());
  std::vector<float> found(values_of(size));
  LetterboxJob job = job_for(size, box);
  job.planes[0] = image.bytes.data();
  job.stride_bytes[0] = image.stride_bytes;
  job.to.element = Element::kFloat32;
  job.to.planar = true;
  job.to.data = found.data();
  for (int c = 0; c < 3; ++c) {
    job.to.mean[c] = 100.0F + static_cast<float>(c);
    job.to.std[c] = 50.0F + static_cast<float>(c);
  }
  test::host_letterbox(job);
  const std::size_t cells = values_of(size) / 3;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto c = static_cast<float>(i % 3);
    ASSERT_EQ(found[i % 3 * cells + i / 3],
              (static_cast<float>(bytes[i]) - (100.0F + c)) / (50.0F + c));
  }
}

TEST(LetterboxKernel, MakesTheBytesOfOpenCv) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::PrintToString(size));
    check_bytes(size);
  }
}

TEST(LetterboxKernel, TakesNv12AsOpenCvConvertsIt) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::PrintToString(size));
    if (size.width % 2 == 0 && size.height % 2 == 0) {  // OpenCV converts no others
      check_nv12(size);
    }
  }
}

TEST(LetterboxKernel, NormalisesTheSameBytes) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(::testing::PrintToString(size));
    check_normalised(size);
  }
}

TEST(Half, IsWhatOpenCvRoundsTo) {
  std::vector<float> values = {0.0F,     -0.0F,    65504.0F, 65519.9F, 65520.0F, 1e9F,      6.1e-5F,
                               5.97e-8F, 2.98e-8F, 2.99e-8F, 1e-30F,   INFINITY, -INFINITY, 1.0F};
  std::mt19937 random(3);
  while (values.size() < 20000) {
    const float value = float_of_bits(static_cast<std::uint32_t>(random()));
    if (!std::isnan(value)) {
      values.push_back(value);
    }
  }
  for (const float value : values) {
    const cv::float16_t half(value);
    std::uint16_t bits = 0;
    std::memcpy(&bits, &half, sizeof(bits));
    ASSERT_EQ(to_half_bits(value), bits) << value;
    ASSERT_EQ(bits_of_float(from_half_bits(bits)), bits_of_float(static_cast<float>(half)));
  }
  EXPECT_TRUE(std::isnan(from_half_bits(to_half_bits(NAN))));
}

}  // namespace
}  // namespace posewire
