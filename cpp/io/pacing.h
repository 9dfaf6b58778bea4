// SPDX-License-Identifier: Apache-2.0
// Waiting that stop() ends at once, and the clock by which files are played.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace posewire {

class StopFlag {
 public:
  void stop() noexcept {
    {
      // Under the lock, or a waiter between its test and its sleep would miss it.
      const std::lock_guard<std::mutex> lock(mutex_);
      stopped_.store(true);
    }
    changed_.notify_all();
  }
  bool stopped() const noexcept { return stopped_.load(); }

  // False when stopped, before or while waiting.
  bool wait_until(std::chrono::steady_clock::time_point when) {
    std::unique_lock<std::mutex> lock(mutex_);
    return !changed_.wait_until(lock, when, [this] { return stopped_.load(); });
  }

 private:
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// Delivers at `fps`, or by media time when fps is 0 and realtime is set, or at once. A consumer
// that was slow is not flooded afterwards: the schedule moves with it.
class Pacer {
 public:
  Pacer(double fps, bool realtime) : fps_(fps), realtime_(realtime) {}

  void restart() noexcept { due_.reset(); }

  // False when stopped. media_ms: the frame's position, where it has one.
  bool wait(StopFlag* flag, std::optional<double> media_ms) {
    const auto now = std::chrono::steady_clock::now();
    double step_ms = 0.0;
    if (fps_ > 0.0) {
      step_ms = 1000.0 / fps_;
    } else if (realtime_ && media_ms) {
      // A position that went back (a loop) or jumped by hours is no schedule.
      step_ms = *media_ms - last_media_ms_;
      step_ms = step_ms < 0.0 || step_ms > 10000.0 ? 0.0 : step_ms;
    } else {
      return !flag->stopped();
    }
    last_media_ms_ = media_ms.value_or(0.0);
    const std::chrono::duration<double, std::milli> step(step_ms);
    due_ = due_ ? *due_ + std::chrono::duration_cast<std::chrono::nanoseconds>(step) : now;
    if (*due_ <= now) {
      due_ = now - *due_ > kSlack ? now : *due_;
      return !flag->stopped();
    }
    return flag->wait_until(*due_);
  }

 private:
  static constexpr std::chrono::milliseconds kSlack{100};  // made up for; more is forgotten
  double fps_;
  bool realtime_;
  double last_media_ms_ = 0.0;
  std::optional<std::chrono::steady_clock::time_point> due_;
};

}  // namespace posewire
