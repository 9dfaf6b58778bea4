// SPDX-License-Identifier: Apache-2.0
// Wakes one consumer of several channels.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace posewire {

class Doorbell {
 public:
  // Any thread.
  void ring() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++rings_;
    }
    rung_.notify_all();
  }

  // The consumer: read rings() first, look into the channels, and when there is nothing
  // wait_past(that number), so that a ring in between is not slept through.
  std::uint64_t rings() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return rings_;
  }
  void wait_past(std::uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    rung_.wait(lock, [&] { return rings_ != seen; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable rung_;
  std::uint64_t rings_ = 0;
};

}  // namespace posewire
