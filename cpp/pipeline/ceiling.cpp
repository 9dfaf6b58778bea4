// SPDX-License-Identifier: Apache-2.0
#include "pipeline/ceiling.h"

#include <chrono>
#include <cstring>
#include <random>

#include "bundle/bundle.h"
#include "infer/preprocess.h"

namespace posewire {
namespace {

using Picture = std::vector<std::uint8_t>;

std::vector<Picture> prepared(const Manifest& manifest, const std::vector<Image>& pictures) {
  const std::size_t bytes = static_cast<std::size_t>(manifest.input_width) *
                            static_cast<std::size_t>(manifest.input_height) * 3;
  std::vector<Picture> inputs;
  for (const Image& picture : pictures) {
    inputs.emplace_back(bytes);
    letterbox(
        picture,
        letterbox_of(picture.width, picture.height, manifest.input_width, manifest.input_height),
        manifest.input_width, manifest.input_height,
        manifest.input_rgb ? Channels::kRGB : Channels::kBGR, inputs.back().data());
  }
  if (inputs.empty()) {
    std::mt19937 random(1);
    inputs.emplace_back(bytes);
    for (std::uint8_t& value : inputs.back()) {
      value = static_cast<std::uint8_t>(random() >> 24);
    }
  }
  return inputs;
}

class Driver {
 public:
  Driver(Runtime* runtime, const std::vector<Picture>& inputs, const std::string& directory)
      : runtime_(runtime), inputs_(inputs), directory_(directory) {}

  void start(int request) {
    auto* slot = static_cast<std::uint8_t*>(runtime_->input(request));
    for (int i = 0; i < runtime_->max_batch(); ++i) {
      const Picture& input = inputs_[next_++ % inputs_.size()];
      std::memcpy(slot + input.size() * static_cast<std::size_t>(i), input.data(), input.size());
    }
    check(runtime_->start(request, runtime_->max_batch()));
  }
  void wait(int request) { check(runtime_->wait(request)); }

  // Every request stays busy until the time is over; returns the pictures done by then.
  long run(double seconds) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    for (int request = 0; request < runtime_->requests(); ++request) {
      start(request);
    }
    long done = 0;
    int request = 0;
    for (; Clock::now() < end; request = (request + 1) % runtime_->requests()) {
      wait(request);
      done += runtime_->max_batch();
      start(request);
    }
    for (int i = 0; i < runtime_->requests(); ++i) {
      wait((request + i) % runtime_->requests());
      done += runtime_->max_batch();
    }
    return done;
  }

 private:
  void check(const Status& status) const {
    if (!status.ok()) {
      throw Error(status.code(), directory_, status.what());
    }
  }

  Runtime* runtime_;
  const std::vector<Picture>& inputs_;
  const std::string& directory_;
  std::size_t next_ = 0;
};

}  // namespace

Ceiling measure_ceiling(const std::string& directory, const RuntimeOptions& options, double seconds,
                        const std::vector<Image>& pictures) {
  const Bundle bundle = open_bundle(directory);
  const std::unique_ptr<Runtime> runtime = open_runtime(bundle, options);
  const std::vector<Picture> inputs = prepared(bundle.manifest, pictures);
  Driver driver(runtime.get(), inputs, directory);
  driver.run(0.0);  // first runs allocate

  const auto begin = std::chrono::steady_clock::now();
  Ceiling ceiling;
  ceiling.pictures = driver.run(seconds);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  ceiling.seconds = time.count();
  ceiling.fps = static_cast<double>(ceiling.pictures) / ceiling.seconds;
  ceiling.requests = runtime->requests();
  ceiling.max_batch = runtime->max_batch();
  return ceiling;
}

}  // namespace posewire
