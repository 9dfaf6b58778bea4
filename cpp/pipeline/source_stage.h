// SPDX-License-Identifier: Apache-2.0
// One camera: reads frames into its lane, tells when it comes and goes, reopens a live source for
// ever.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "flow/channel.h"
#include "flow/operator.h"
#include "io/source.h"
#include "pipeline/events.h"
#include "pipeline/work.h"

namespace posewire {

class SourceStage final : public Operator {
 public:
  // `index`: of the camera in the engine's list. `retry`: a live source is reopened for ever.
  SourceStage(std::string camera, int index, std::unique_ptr<Source> source, bool retry,
              Events* events, Verdict* verdict);

  // Opens the source, before run(), in any one thread. Throws Error when the engine cannot start:
  // a finite source that is missing, a wrong URI. A camera that is absent is tried again in run().
  void open();
  bool live() const noexcept { return source_->live(); }  // after open()

  // Before run(), after open().
  void connect(Channel<FramePtr>* lane, Pool<Frame>* frames) noexcept;

  Status run() override;
  void stop() noexcept override;

  const std::string& camera() const noexcept { return camera_; }
  CameraCounts& counts() noexcept { return counts_; }
  // Any thread: what to tell when the last frame is published; null while the source goes on.
  // After the graph has ended: the source ended by a failure.
  bool failed() const noexcept { return failed_; }
  const SourceEvent* end_event() const noexcept {
    return ended_.load(std::memory_order_acquire) ? &end_event_ : nullptr;
  }

 private:
  enum class Next { kReopen, kDone };

  bool try_open();  // false: absent, try again
  Next read();      // until the stream ends
  Next ended(const std::string& why, bool failed);
  void offline(const std::string& why);
  void report_damage(bool now_or_never);
  bool wait_before_retry();  // false: stopped

  const std::string camera_;
  const int index_;
  const bool retry_;
  Events* const events_;
  Verdict* const verdict_;
  std::unique_ptr<Source> source_;
  Channel<FramePtr>* lane_ = nullptr;
  Pool<Frame>* frames_ = nullptr;
  CameraCounts counts_;

  bool opened_ = false, online_ = false;
  std::string absent_, last_why_;
  std::uint64_t damaged_ = 0;  // as told last
  std::chrono::steady_clock::time_point damage_told_{};
  std::chrono::milliseconds back_off_{0};

  SourceEvent end_event_;  // written before ended_
  bool failed_ = false;    // the same
  std::atomic<bool> ended_{false};

  std::mutex mutex_;  // guards stopped_
  std::condition_variable wake_;
  bool stopped_ = false;
};

}  // namespace posewire
