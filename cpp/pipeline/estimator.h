// SPDX-License-Identifier: Apache-2.0
// The operator API: a picture in, its poses out, without threads or channels of one's own. The
// stream API is pipeline.h.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/image.h"
#include "core/pose.h"
#include "decode/decoder.h"
#include "infer/runtime.h"

namespace posewire {

// One network output, dequantised: [channels, height, width], dense.
struct RawMap {
  std::string name;
  int channels = 0, height = 0, width = 0;
  std::vector<float> values;
};

// Any thread may call any method at any time; as many calls run at once as the runtime has
// requests. All methods throw Error; a failure while running carries the runtime's code.
class Estimator {
 public:
  // `directory` holds a compiled bundle.
  static std::unique_ptr<Estimator> open(const std::string& directory,
                                         const RuntimeOptions& options);

  // Poses in pixels of the picture. For a top-down bundle the picture is one person's crop; a
  // detector's poses are boxes (Manifest::keypoints).
  Poses estimate(const Image& image);

  // Reads the files (EXIF orientation applied) and estimates several at once; one result per path,
  // in order. The first file that cannot be read fails the call: Error(kSource).
  std::vector<Poses> estimate_files(const std::vector<std::string>& paths);

  // What the network says of the letterboxed picture, in manifest order.
  std::vector<RawMap> network(const Image& image);

  const Bundle& bundle() const noexcept { return bundle_; }
  int requests() const noexcept { return runtime_->requests(); }

 private:
  class Lease;  // a slot for the time of one picture

  struct Slot {
    std::unique_ptr<Decoder::Scratch> scratch;
    std::vector<MapView> views;
  };

  Estimator() = default;
  void infer(const Image& image, Lease* lease);

  Bundle bundle_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<Slot> slots_;

  std::mutex mutex_;  // guards free_
  std::condition_variable freed_;
  std::vector<int> free_;
};

// A picture file as BGR, EXIF orientation applied. Throws Error(kSource).
Image read_picture(const std::string& path);

}  // namespace posewire
