// SPDX-License-Identifier: Apache-2.0
#include "pipeline/estimator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <thread>

#include "infer/preprocess.h"

namespace posewire {
namespace {

float from_half(std::uint16_t half) noexcept {
  const int exponent = (half >> 10) & 31;
  const auto mantissa = static_cast<float>(half & 1023);
  float value = 0.0F;
  if (exponent == 31) {
    value = mantissa == 0.0F ? INFINITY : NAN;
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else {
    value = std::ldexp(mantissa + 1024.0F, exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

float element(const MapView& map, std::ptrdiff_t index) noexcept {
  switch (map.dtype) {
    case DType::kFloat32:
      return static_cast<const float*>(map.data)[index];
    case DType::kFloat16:
      return from_half(static_cast<const std::uint16_t*>(map.data)[index]);
    case DType::kUint8:
      return map.scale *
             static_cast<float>(static_cast<const std::uint8_t*>(map.data)[index] - map.zero_point);
    case DType::kInt8:
      return map.scale *
             static_cast<float>(static_cast<const std::int8_t*>(map.data)[index] - map.zero_point);
  }
  return 0.0F;
}

RawMap copy_of(const MapView& map, const std::string& name) {
  RawMap raw{name, map.channels, map.height, map.width, {}};
  raw.values.reserve(static_cast<std::size_t>(map.channels) * static_cast<std::size_t>(map.height) *
                     static_cast<std::size_t>(map.width));
  for (int c = 0; c < map.channels; ++c) {
    for (int y = 0; y < map.height; ++y) {
      for (int x = 0; x < map.width; ++x) {
        raw.values.push_back(
            element(map, c * map.channel_stride + y * map.row_stride + x * map.column_stride));
      }
    }
  }
  return raw;
}

}  // namespace

// Waits for a free slot and gives it back at the end of the scope.
class Estimator::Lease {
 public:
  explicit Lease(Estimator* estimator) : estimator_(estimator) {
    std::unique_lock<std::mutex> lock(estimator_->mutex_);
    estimator_->freed_.wait(lock, [this] { return !estimator_->free_.empty(); });
    request_ = estimator_->free_.back();
    estimator_->free_.pop_back();
  }
  ~Lease() {
    {
      const std::lock_guard<std::mutex> lock(estimator_->mutex_);
      estimator_->free_.push_back(request_);
    }
    estimator_->freed_.notify_one();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int request() const noexcept { return request_; }
  Slot& slot() const noexcept { return estimator_->slots_[static_cast<std::size_t>(request_)]; }

  Letterbox letterbox;

 private:
  Estimator* estimator_;
  int request_ = 0;
};

std::unique_ptr<Estimator> Estimator::open(const std::string& directory,
                                           const RuntimeOptions& options) {
  std::unique_ptr<Estimator> estimator(new Estimator);
  estimator->bundle_ = open_bundle(directory);
  RuntimeOptions one = options;
  one.max_batch = 1;
  estimator->decoder_ = open_decoder(estimator->bundle_.manifest);
  estimator->runtime_ = open_runtime(estimator->bundle_, one);
  for (int request = 0; request < estimator->runtime_->requests(); ++request) {
    estimator->slots_.push_back({estimator->decoder_->make_scratch(), {}});
    estimator->free_.push_back(request);
  }
  return estimator;
}

void Estimator::infer(const Image& image, Lease* lease) {
  const Manifest& manifest = bundle_.manifest;
  if (image.width < 1 || image.height < 1) {
    throw Error(Code::kSource, "picture", "is empty");
  }
  lease->letterbox =
      letterbox_of(image.width, image.height, manifest.input_width, manifest.input_height);
  letterbox(image, lease->letterbox, manifest.input_width, manifest.input_height,
            manifest.input_rgb ? Channels::kRGB : Channels::kBGR,
            static_cast<std::uint8_t*>(runtime_->input(lease->request())));
  Status status = runtime_->start(lease->request(), 1);
  if (status.ok()) {
    status = runtime_->wait(lease->request());
  }
  if (!status.ok()) {
    throw Error(status.code(), bundle_.directory, status.what());
  }
  runtime_->outputs(lease->request(), 0, &lease->slot().views);
}

Poses Estimator::estimate(const Image& image) {
  Lease lease(this);
  infer(image, &lease);
  Poses poses;
  decoder_->decode(lease.slot().views, lease.slot().scratch.get(), &poses);
  to_frame(lease.letterbox, &poses);
  return poses;
}

std::vector<RawMap> Estimator::network(const Image& image) {
  Lease lease(this);
  infer(image, &lease);
  std::vector<RawMap> maps;
  for (std::size_t i = 0; i < lease.slot().views.size(); ++i) {
    maps.push_back(copy_of(lease.slot().views[i], bundle_.manifest.outputs[i].name));
  }
  return maps;
}

std::vector<Poses> Estimator::estimate_files(const std::vector<std::string>& paths) {
  std::vector<Poses> results(paths.size());
  std::vector<std::exception_ptr> failures(paths.size());
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    for (;;) {
      const std::size_t i = next.fetch_add(1);
      if (i >= paths.size() || failed) {
        return;
      }
      try {
        results[i] = estimate(read_picture(paths[i]));
      } catch (...) {
        failures[i] = std::current_exception();
        failed = true;
      }
    }
  };
  // A thread reads, prepares and decodes for each request in flight.
  const std::size_t workers = std::min(static_cast<std::size_t>(requests()), paths.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < workers; ++i) {
    threads.emplace_back(work);
  }
  work();
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
  return results;
}

Image read_picture(const std::string& path) {
  cv::Mat mat;
  try {
    mat = cv::imread(path, cv::IMREAD_COLOR);
  } catch (const cv::Exception& error) {
    throw Error(Code::kSource, path, "cannot be read as a picture: " + error.err);
  }
  if (mat.empty()) {
    throw Error(Code::kSource, path, "is missing or cannot be read as a picture");
  }
  Image image;
  image.resize(mat.cols, mat.rows);
  for (int y = 0; y < mat.rows; ++y) {
    std::memcpy(image.row(y), mat.ptr(y), image.stride_bytes);
  }
  return image;
}

}  // namespace posewire
