// SPDX-License-Identifier: Apache-2.0
// The fake runtime: no network, recorded or generated maps. Tests use it, and it can stand in for a
// device when a pipeline is sized. Its artifact (format "fake") is one JSON file and, optionally,
// one recording:
//
//   {"schema": 1,
//    "requests": 2,        slots in flight
//    "infer_ms": 0.0,      time per picture; the "device" serves one batch after the other
//    "seed": 1,            without a recording: noise in [0, amplitude), a function of the seed and
//    "amplitude": 0.05,    of the picture's bytes alone
//    "fail_at": -1,        wait() fails at the batch that holds this picture (from 0) and ever
//    after "hang_at": -1,        wait() sleeps for hang_ms at the batch that holds this picture
//    "hang_ms": 3600000,
//    "nan_every": 0}       every n-th picture's maps are NaN
//
// All keys are optional, unknown ones are errors. The recording: for each picture in turn, for each
// manifest output in order, channels * height * width little-endian float32 in the artifact's
// layout. Picture i, in the order of start(), is given recording i modulo their number.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <mutex>
#include <thread>

#include "infer/rows.h"

namespace posewire {
namespace {

constexpr const char* kVersion = "1";
using Clock = std::chrono::steady_clock;

struct Parameters {
  int requests = 2;
  double infer_ms = 0.0;
  std::uint64_t seed = 1;
  float amplitude = 0.05F;
  std::int64_t fail_at = -1;
  std::int64_t hang_at = -1;
  std::int64_t hang_ms = 3600000;
  std::int64_t nan_every = 0;
};

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) {
    throw Error(Code::kBundle, path, "cannot be read");
  }
  return bytes;
}

template <typename T>
void take(const nlohmann::json& value, const std::string& where, double low, T* out) {
  if (!value.is_number() || value.get<double>() < low || value.get<double>() > 1e12) {
    throw Error(Code::kBundle, where, "must be a number of at least " + std::to_string(low));
  }
  *out = value.get<T>();
}

Parameters parse(const std::string& path) {
  const nlohmann::json json = nlohmann::json::parse(slurp(path), nullptr, false);
  if (!json.is_object()) {
    throw Error(Code::kBundle, path, "is not a JSON object");
  }
  Parameters parameters;
  for (const auto& [key, value] : json.items()) {
    std::string where = path;
    where.append(": ").append(key);
    if (key == "schema") {
      if (value != 1) {
        throw Error(Code::kBundle, where, "must be 1");
      }
    } else if (key == "requests") {
      take(value, where, 1.0, &parameters.requests);
    } else if (key == "infer_ms") {
      take(value, where, 0.0, &parameters.infer_ms);
    } else if (key == "seed") {
      take(value, where, 0.0, &parameters.seed);
    } else if (key == "amplitude") {
      take(value, where, 0.0, &parameters.amplitude);
    } else if (key == "fail_at") {
      take(value, where, -1.0, &parameters.fail_at);
    } else if (key == "hang_at") {
      take(value, where, -1.0, &parameters.hang_at);
    } else if (key == "hang_ms") {
      take(value, where, 0.0, &parameters.hang_ms);
    } else if (key == "nan_every") {
      take(value, where, 0.0, &parameters.nan_every);
    } else {
      throw Error(Code::kBundle, where,
                  "unknown key (known: schema, requests, infer_ms, seed, amplitude, fail_at, "
                  "hang_at, hang_ms, nan_every)");
    }
  }
  return parameters;
}

struct Map {
  MapView shape;             // data is null
  std::size_t offset = 0;    // of a picture's values, in floats
  std::size_t elements = 0;  // of one picture
};

struct Slot {
  std::vector<std::uint8_t> input;
  std::vector<float> maps;  // [max_batch, all outputs one after the other]
  std::int64_t first = 0;   // number of the batch's first picture
  int batch = 0;
  Clock::time_point done;
};

class Fake : public Runtime {
 public:
  Fake(const Bundle& bundle, const RuntimeOptions& options)
      : max_batch_(batch_of(bundle, options)) {
    const Manifest& manifest = bundle.manifest;
    const Artifact& artifact = manifest.artifacts[0];
    const std::string where = bundle.directory + "/manifest.json: artifacts[0]";
    if (artifact.files.empty() || artifact.files.size() > 2) {
      throw Error(Code::kBundle, where + ".files", "must be a JSON file and at most a recording");
    }
    if (artifact.input_dtype != DType::kUint8 || artifact.input_layout != Layout::kNHWC) {
      throw Error(Code::kBundle, where + ".input", "must be uint8 NHWC");
    }
    parameters_ = parse(bundle.path(artifact.files[0]));
    for (const OutputSpec& output : manifest.outputs) {
      Map map;
      map.shape = frame_shape(manifest, output, DType::kFloat32,
                              artifact_output(bundle, output.name).layout);
      map.offset = picture_;
      map.elements = static_cast<std::size_t>(map.shape.channels) *
                     static_cast<std::size_t>(map.shape.height) *
                     static_cast<std::size_t>(map.shape.width);
      picture_ += map.elements;
      maps_.push_back(map);
    }
    if (artifact.files.size() == 2) {
      record(bundle.path(artifact.files[1]));
    }
    picture_bytes_ = static_cast<std::size_t>(manifest.input_width) *
                     static_cast<std::size_t>(manifest.input_height) * 3;
    const int requests = options.requests == 0 ? parameters_.requests : options.requests;
    slots_.resize(static_cast<std::size_t>(requests));
    for (Slot& slot : slots_) {
      slot.input.resize(picture_bytes_ * static_cast<std::size_t>(max_batch_));
      slot.maps.resize(picture_ * static_cast<std::size_t>(max_batch_));
    }
  }

  int requests() const noexcept override { return static_cast<int>(slots_.size()); }
  int max_batch() const noexcept override { return max_batch_; }
  void* input(int request) noexcept override { return at(request).input.data(); }

  Status start(int request, int batch) override {
    if (batch < 1 || batch > max_batch_) {
      return {Code::kBug, "fake: batch of " + std::to_string(batch) + " pictures, at most " +
                              std::to_string(max_batch_)};
    }
    Slot& slot = at(request);
    slot.batch = batch;
    slot.first = next_picture_.fetch_add(batch);
    const auto time = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double, std::milli>(parameters_.infer_ms * batch));
    const std::lock_guard<std::mutex> lock(device_);
    free_at_ = std::max(free_at_, Clock::now()) + time;
    slot.done = free_at_;
    return {};
  }

  Status wait(int request) override {
    Slot& slot = at(request);
    std::this_thread::sleep_until(slot.done);
    const std::int64_t end = slot.first + slot.batch;
    if (parameters_.hang_at >= slot.first && parameters_.hang_at < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(parameters_.hang_ms));
    }
    if (parameters_.fail_at >= 0 && parameters_.fail_at < end) {
      return {Code::kUnavailable,
              "fake: failure injected at picture " + std::to_string(parameters_.fail_at)};
    }
    for (int i = 0; i < slot.batch; ++i) {
      fill(slot, i);
    }
    return {};
  }

  void outputs(int request, int index, std::vector<MapView>* views) const override {
    const Slot& slot = slots_[static_cast<std::size_t>(request)];
    views->clear();
    for (const Map& map : maps_) {
      views->push_back(map.shape);
      views->back().data =
          slot.maps.data() + picture_ * static_cast<std::size_t>(index) + map.offset;
    }
  }

 private:
  Slot& at(int request) noexcept { return slots_[static_cast<std::size_t>(request)]; }

  void record(const std::string& path) {
    const std::string bytes = slurp(path);
    const std::size_t one = picture_ * sizeof(float);
    if (bytes.empty() || bytes.size() % one != 0) {
      throw Error(Code::kBundle, path,
                  "has " + std::to_string(bytes.size()) + " bytes; a picture's maps take " +
                      std::to_string(one));
    }
    recording_.resize(bytes.size() / sizeof(float));
    std::memcpy(recording_.data(), bytes.data(), bytes.size());
  }

  void fill(Slot& slot, int index) const {
    const auto i = static_cast<std::size_t>(index);
    float* out = slot.maps.data() + picture_ * i;
    const auto number = static_cast<std::uint64_t>(slot.first + index);
    const auto every = static_cast<std::uint64_t>(parameters_.nan_every);
    if (every > 0 && (number + 1) % every == 0) {
      std::fill(out, out + picture_, std::numeric_limits<float>::quiet_NaN());
    } else if (!recording_.empty()) {
      const std::size_t recorded = recording_.size() / picture_;
      const float* from = recording_.data() + picture_ * (number % recorded);
      std::copy(from, from + picture_, out);
    } else {
      noise(slot.input.data() + picture_bytes_ * i, out);
    }
  }

  // FNV-1a of the picture seeds a xorshift64* stream.
  void noise(const std::uint8_t* picture, float* out) const {
    std::uint64_t state = 1469598103934665603ULL ^ (parameters_.seed * 0x9E3779B97F4A7C15ULL);
    for (std::size_t i = 0; i < picture_bytes_; ++i) {
      state = (state ^ picture[i]) * 1099511628211ULL;
    }
    state |= 1;
    for (std::size_t i = 0; i < picture_; ++i) {
      state ^= state >> 12;
      state ^= state << 25;
      state ^= state >> 27;
      const auto bits = static_cast<std::uint32_t>((state * 0x2545F4914F6CDD1DULL) >> 40);
      out[i] = static_cast<float>(bits) / 16777216.0F * parameters_.amplitude;
    }
  }

  Parameters parameters_;
  int max_batch_;
  std::vector<Map> maps_;
  std::size_t picture_ = 0;  // floats of all outputs of one picture
  std::size_t picture_bytes_ = 0;
  std::vector<float> recording_;
  std::vector<Slot> slots_;
  std::atomic<std::int64_t> next_picture_{0};
  std::mutex device_;  // guards free_at_
  Clock::time_point free_at_{};
};

}  // namespace

std::unique_ptr<Runtime> open_fake(const Bundle& bundle, const RuntimeOptions& options) {
  check_version(bundle, kVersion);
  return std::make_unique<Fake>(bundle, options);
}

RuntimeInfo fake_info() { return {"fake", kVersion, true, ""}; }

}  // namespace posewire
