// SPDX-License-Identifier: Apache-2.0
// What travels between the stages. Everything is pooled: the steady state does not allocate.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "core/error.h"
#include "core/image.h"
#include "core/pose.h"
#include "flow/pool.h"
#include "flow/stats.h"
#include "infer/preprocess.h"
#include "pipeline/payload.h"

namespace posewire {

// A frame on its way from the runtime's input to the sinks.
struct Work {
  Pool<Frame>::Ptr picture;  // null when no sink wants it: its memory went back early
  Frame frame;               // what is known about the frame; its image has a size, but no pixels
  Letterbox letterbox;
  Latency latency;
  Poses poses;
  std::string payload;
};
using WorkPtr = Pool<Work>::Ptr;
using FramePtr = Pool<Frame>::Ptr;

// Counted by the stages' threads, read by the one that reports.
struct CameraCounts {
  std::atomic<std::uint64_t> captured{0}, published{0};
};

// What ends the engine with a code other than 0 although its graph goes on: a source that broke, a
// sink that is full. The first one wins. Any thread.
class Verdict {
 public:
  void fail(Code code, const std::string& why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_.ok()) {
      status_ = Status(code, why);
    }
  }
  Status status() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

 private:
  mutable std::mutex mutex_;
  Status status_;
};

}  // namespace posewire
