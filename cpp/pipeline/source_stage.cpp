// SPDX-License-Identifier: Apache-2.0
#include "pipeline/source_stage.h"

#include <algorithm>
#include <utility>

namespace posewire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstBackOff{500};
constexpr milliseconds kLastBackOff{5000};
constexpr std::chrono::seconds kDamageInterval{5};

}  // namespace

SourceStage::SourceStage(std::string camera, int index, std::unique_ptr<Source> source, bool retry,
                         Events* events, Verdict* verdict)
    : Operator("source:" + camera),
      camera_(std::move(camera)),
      index_(index),
      retry_(retry),
      events_(events),
      verdict_(verdict),
      source_(std::move(source)),
      back_off_(kFirstBackOff) {}

void SourceStage::open() {
  try {
    source_->open();
    opened_ = true;
  } catch (const Error& error) {
    const bool absent = error.code() == Code::kSource || error.code() == Code::kUnavailable;
    if (!absent || !source_->live() || !retry_) {
      throw;
    }
    absent_ = error.what();  // told after the engine is ready
  }
}

void SourceStage::connect(Channel<FramePtr>* lane, Pool<Frame>* frames) noexcept {
  lane_ = lane;
  frames_ = frames;
}

void SourceStage::stop() noexcept {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  source_->stop();
  wake_.notify_all();
}

Status SourceStage::run() {
  if (!opened_) {
    offline(absent_);
  }
  for (;;) {
    if (opened_) {
      if (read() == Next::kDone) {
        return {};
      }
      opened_ = false;
    }
    if (!wait_before_retry()) {
      return {};
    }
    opened_ = try_open();
  }
}

bool SourceStage::wait_before_retry() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (wake_.wait_for(lock, back_off_, [this] { return stopped_; })) {
    return false;
  }
  back_off_ = std::min(back_off_ * 2, kLastBackOff);
  return true;
}

bool SourceStage::try_open() {
  try {
    source_->open();
    return true;
  } catch (const Error& error) {
    offline(error.what());
  }
  return false;
}

SourceStage::Next SourceStage::read() {
  for (;;) {
    FramePtr frame = frames_->wait_take();
    if (frame == nullptr) {
      return Next::kDone;
    }
    Status status;
    Read read = Read::kStopped;
    {
      const BusyTimer timer(&stats());
      read = source_->read(frame.get(), &status);
    }
    switch (read) {
      case Read::kStopped:
        return Next::kDone;
      case Read::kEnd:
        return ended(source_->live() ? "the stream ended" : "", source_->live());
      case Read::kFailed:
        return ended(status.what(), true);
      case Read::kFrame:
        break;
    }
    if (!online_) {
      online_ = true;
      last_why_.clear();
      back_off_ = kFirstBackOff;
      events_->source({camera_, SourceState::kOnline, frame->image.width, frame->image.height, ""});
    }
    report_damage(false);
    frame->camera = index_;
    frame->seq = counts_.captured.fetch_add(1, std::memory_order_relaxed);
    stats().add_frames(1);
    if (!lane_->wait_push(std::move(frame))) {
      return Next::kDone;  // somebody failed, or the engine ends
    }
  }
}

SourceStage::Next SourceStage::ended(const std::string& why, bool failed) {
  report_damage(true);
  if (source_->live() && retry_) {
    offline(why);
    return Next::kReopen;
  }
  failed_ = failed;
  if (failed) {
    const std::string reason = why.empty() ? "failed" : why;
    events_->warning(camera_, reason);
    // A library that names its source already is not made to stammer.
    verdict_->fail(Code::kSource,
                   reason.find(camera_) == std::string::npos ? camera_ + ": " + reason : reason);
  }
  end_event_ = {camera_, SourceState::kEnded, 0, 0, why};
  ended_.store(true, std::memory_order_release);
  return Next::kDone;
}

void SourceStage::offline(const std::string& why) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) {
      return;  // what fails because it was told to stop is no news
    }
  }
  if (online_ || why != last_why_) {
    events_->source({camera_, SourceState::kOffline, 0, 0, why});
  }
  online_ = false;
  last_why_ = why;
}

// Damaged pictures do not end a stream, but somebody is told, at most every few seconds.
void SourceStage::report_damage(bool now_or_never) {
  const std::uint64_t damaged = source_->damaged();
  if (damaged < damaged_) {
    damaged_ = 0;  // the source was opened again and counts from 0
  }
  const auto now = steady_clock::now();
  if (damaged > damaged_ && (now_or_never || now - damage_told_ > kDamageInterval)) {
    events_->warning(camera_,
                     std::to_string(damaged - damaged_) + " damaged pictures in the stream");
    damaged_ = damaged;
    damage_told_ = now;
  }
}

}  // namespace posewire
