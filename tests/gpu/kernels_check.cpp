// SPDX-License-Identifier: Apache-2.0
// The kernels on a real device against the same arithmetic on the CPU, which
// tests/cpp/letterbox_kernel_test.cpp holds against OpenCV.
#include <cmath>
#include <cstring>

#include "gpu_check.h"
#include "infer/preprocess.h"
#include "tensorrt/host_kernels.h"

namespace posewire::test {
namespace {

struct Size {
  int width, height, net_width, net_height;
};
// Shrinks by area, by whole numbers, by two and by less; grows; is copied; odd and thin ones.
constexpr Size kSizes[] = {{1920, 1080, 432, 368}, {3840, 2160, 640, 640}, {1280, 720, 656, 368},
                           {640, 480, 432, 368},   {864, 736, 432, 368},   {1296, 1104, 432, 368},
                           {432, 368, 432, 368},   {100, 38, 432, 368},    {334, 3000, 256, 192},
                           {4000, 4, 432, 368},    {866, 738, 432, 368},   {6, 4, 64, 48}};

LetterboxJob job_for(const Size& size, Pixels pixels) {
  const Letterbox box = letterbox_of(size.width, size.height, size.net_width, size.net_height);
  LetterboxJob job;
  job.pixels = pixels;
  job.frame_width = size.width;
  job.frame_height = size.height;
  job.left = box.left;
  job.top = box.top;
  job.width = box.width;
  job.height = box.height;
  job.to.width = size.net_width;
  job.to.height = size.net_height;
  const auto width = static_cast<std::size_t>(size.width);
  job.stride_bytes[0] = pixels == Pixels::kBgr ? width * 3 + 5 : width + 6;  // padded rows
  job.stride_bytes[1] = job.stride_bytes[0];
  return job;
}

std::size_t frame_bytes(const LetterboxJob& job) {
  const std::size_t luma = job.stride_bytes[0] * static_cast<std::size_t>(job.frame_height);
  return job.pixels == Pixels::kBgr ? luma : luma + luma / 2;
}

void place(LetterboxJob* job, const std::uint8_t* frame) {
  job->planes[0] = frame;
  job->planes[1] = frame + job->stride_bytes[0] * static_cast<std::size_t>(job->frame_height);
}

template <typename T>
void compare_letterbox(const std::string& name, LetterboxJob job) {
  const std::vector<std::uint8_t> frame = random_bytes(frame_bytes(job), 7);
  const std::size_t values =
      static_cast<std::size_t>(job.to.width) * static_cast<std::size_t>(job.to.height) * 3;
  std::vector<T> expected(values);
  place(&job, frame.data());
  job.to.data = expected.data();
  host_letterbox(job);

  std::uint8_t* const device_frame = on_device(frame);
  T* const device_out = on_device(std::vector<T>(values));
  place(&job, device_frame);
  job.to.data = device_out;
  must(launch_letterbox(job, nullptr), "letterbox");
  const std::vector<T> found = from_device(device_out, values);
  double most = 0.0;
  long differ = 0;
  for (std::size_t i = 0; i < values; ++i) {
    const double difference =
        std::abs(static_cast<double>(expected[i]) - static_cast<double>(found[i]));
    most = std::max(most, difference);
    differ += difference > 0.0 ? 1 : 0;
  }
  const double us = microseconds([&](cudaStream_t on) { return launch_letterbox(job, on); });
  char detail[200];
  std::snprintf(detail, sizeof(detail),
                "\"max_difference\": %g, \"differ\": %ld, \"of\": %zu, \"microseconds\": %.2f",
                most, differ, values, us);
  finding(name, differ == 0, detail);
  cudaFree(device_frame);
  cudaFree(device_out);
}

void check_letterbox() {
  for (const Size& size : kSizes) {
    for (const Pixels pixels : {Pixels::kBgr, Pixels::kNv12}) {
      const std::string name =
          std::string("letterbox ") + (pixels == Pixels::kBgr ? "BGR " : "NV12 ") +
          std::to_string(size.width) + "x" + std::to_string(size.height) + " to " +
          std::to_string(size.net_width) + "x" + std::to_string(size.net_height);
      compare_letterbox<std::uint8_t>(name + " uint8 NHWC", job_for(size, pixels));
    }
  }
  for (const bool planar : {false, true}) {
    LetterboxJob job = job_for(kSizes[0], Pixels::kBgr);
    job.to.element = Element::kFloat32;
    job.to.planar = planar;
    job.to.rgb = !planar;
    const float mean[3] = {123.675F, 116.28F, 103.53F}, std[3] = {58.395F, 57.12F, 57.375F};
    std::memcpy(job.to.mean, mean, sizeof(mean));
    std::memcpy(job.to.std, std, sizeof(std));
    compare_letterbox<float>(
        std::string("letterbox BGR 1920x1080 float32 ") + (planar ? "NCHW" : "NHWC"), job);
  }
}

void check_half() {
  std::vector<float> values = {0.0F,   -0.0F,    65504.0F,  65519.9F, 65520.0F,
                               1e9F,   6.1e-5F,  5.97e-8F,  2.98e-8F, 2.99e-8F,
                               1e-30F, INFINITY, -INFINITY, NAN,      1.00048828F};
  std::mt19937 random(3);
  while (values.size() < 200001) {  // any bits at all, and an odd count
    const std::uint32_t bits = random();
    values.push_back(float_of_bits(bits));
  }
  std::vector<std::uint16_t> expected(values.size());
  host_to_half(values.data(), expected.data(), values.size());
  float* const from = on_device(values);
  std::uint16_t* const to = on_device(std::vector<std::uint16_t>(values.size()));
  must(launch_to_half(from, to, values.size(), nullptr), "half");
  const std::vector<std::uint16_t> found = from_device(to, values.size());
  long differ = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool both_nan = std::isnan(values[i]) && std::isnan(from_half_bits(found[i]));
    differ += found[i] != expected[i] && !both_nan ? 1 : 0;
  }
  // 57 channels of 46 x 54: the maps of one picture.
  const double us =
      microseconds([&](cudaStream_t on) { return launch_to_half(from, to, 57 * 46 * 54, on); });
  finding("float32 to float16", differ == 0,
          "\"differ\": " + std::to_string(differ) + ", \"microseconds\": " + std::to_string(us));
  cudaFree(from);
  cudaFree(to);
}

// Noise with plateaus, NaN and infinities: more than a network makes.
std::vector<float> strange_maps(std::size_t count) {
  std::mt19937 random(11);
  std::vector<float> maps(count);
  for (std::size_t i = 0; i < count; ++i) {
    maps[i] = static_cast<float>(random() % 64) / 64.0F;  // equal neighbours are common
    if (random() % 97 == 0) {
      maps[i] = random() % 2 == 0 ? NAN : INFINITY;
    }
  }
  return maps;
}

template <typename T>
void compare_peaks(const std::string& name, const std::vector<T>& maps, PeakJob job) {
  const auto planes = static_cast<std::size_t>(job.planes);
  const std::size_t most = planes * static_cast<std::size_t>(job.max_peaks);
  std::vector<std::int32_t> counts(planes);
  std::vector<DevicePeak> peaks(most);
  std::memset(peaks.data(), 0, most * sizeof(DevicePeak));
  job.maps = maps.data();
  job.counts = counts.data();
  job.peaks = peaks.data();
  host_peaks(job);

  T* const device_maps = on_device(maps);
  std::int32_t* const device_counts = on_device(std::vector<std::int32_t>(planes));
  std::vector<DevicePeak> empty(most);
  std::memset(empty.data(), 0, most * sizeof(DevicePeak));
  DevicePeak* const device_peaks = on_device(empty);
  job.maps = device_maps;
  job.counts = device_counts;
  job.peaks = device_peaks;
  must(launch_peaks(job, nullptr), "peaks");
  const std::vector<std::int32_t> found_counts = from_device(device_counts, planes);
  const std::vector<DevicePeak> found = from_device(device_peaks, most);
  long differ = 0, all = 0, over = 0;
  for (std::size_t i = 0; i < planes; ++i) {
    differ += found_counts[i] != counts[i] ? 1 : 0;
    all += counts[i];
    over += counts[i] > job.max_peaks ? 1 : 0;
  }
  for (std::size_t i = 0; i < most; ++i) {
    const float* const a = &peaks[i].centre;
    const float* const b = &found[i].centre;
    bool same = peaks[i].cell == found[i].cell;
    for (int k = 0; k < 5; ++k) {
      same = same && (a[k] == b[k] || (std::isnan(a[k]) && std::isnan(b[k])));
    }
    differ += same ? 0 : 1;
  }
  const double us = microseconds([&](cudaStream_t on) { return launch_peaks(job, on); });
  finding(name, differ == 0 && all > 0,
          "\"differ\": " + std::to_string(differ) + ", \"peaks\": " + std::to_string(all) +
              ", \"planes_over_max\": " + std::to_string(over) +
              ", \"microseconds\": " + std::to_string(us));
  cudaFree(device_maps);
  cudaFree(device_counts);
  cudaFree(device_peaks);
}

void check_peaks() {
  PeakJob job;
  job.planes = 8 * 18;
  job.height = 46;
  job.width = 54;
  job.threshold = 0.3F;
  job.max_peaks = 96;
  const std::vector<float> maps = strange_maps(static_cast<std::size_t>(job.planes) * 46 * 54);
  compare_peaks("peaks float32, 8 pictures x 18 x 46 x 54", maps, job);
  std::vector<std::uint16_t> half(maps.size());
  host_to_half(maps.data(), half.data(), maps.size());
  job.half = true;
  job.max_peaks = 1024;  // room for all
  compare_peaks("peaks float16, 8 pictures x 18 x 46 x 54", half, job);
  job.half = false;
  job.max_peaks = 96;
  job.planes = 3;
  job.height = 1;  // thinner than a neighbourhood, and not a multiple of a block
  job.width = 333;
  compare_peaks("peaks float32, 3 x 1 x 333", maps, job);
}

}  // namespace

void check_kernels() {
  must(kernels_run_here(), "kernels_run_here");
  check_letterbox();
  check_half();
  check_peaks();
}

}  // namespace posewire::test
