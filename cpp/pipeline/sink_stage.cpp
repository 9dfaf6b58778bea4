// SPDX-License-Identifier: Apache-2.0
#include "pipeline/sink_stage.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace posewire {
namespace {

class EventsSink final : public Sink {
 public:
  explicit EventsSink(Events* events) noexcept : events_(events) {}
  void open(const Skeleton& /*skeleton*/) override {}
  bool wants_picture() const noexcept override { return false; }
  Status write(const Result& result) override {
    events_->frame(*result.payload);
    return {};  // a reader that went away ends the engine elsewhere, without a failure
  }
  Status close() override { return {}; }

 private:
  Events* const events_;
};

}  // namespace

std::unique_ptr<Sink> make_events_sink(Events* events) {
  return std::make_unique<EventsSink>(events);
}

SinkStage::SinkStage(const PayloadWriter* payload, std::vector<NamedSink> sinks,
                     std::vector<CameraCounts*> cameras, Channel<WorkPtr>* results, Events* events,
                     Verdict* verdict)
    : Operator("sink"),
      payload_(payload),
      sinks_(std::move(sinks)),
      cameras_(std::move(cameras)),
      results_(results),
      events_(events),
      verdict_(verdict) {}

Status SinkStage::run() {
  WorkPtr work;
  while (results_->wait_pop(&work)) {
    {
      const BusyTimer timer(&stats());
      write(work.get());
    }
    stats().add_frames(1);
    work->picture.reset();
    work.reset();
  }
  return {};
}

void SinkStage::write(Work* work) {
  const auto total = std::chrono::steady_clock::now() - work->frame.t_arrival;
  work->latency.total_ms = std::chrono::duration<double, std::milli>(total).count();
  const Image& image = work->frame.image;
  payload_->write(work->frame, image.width, image.height, work->poses, work->latency,
                  &work->payload);
  const Result result{work->picture != nullptr ? work->picture.get() : &work->frame, &work->poses,
                      &work->payload};
  for (NamedSink& named : sinks_) {
    if (named.sink != nullptr) {
      const Status status = named.sink->write(result);
      if (!status.ok()) {
        drop_sink(&named, status);
      }
    }
  }
  latencies_.add(total);
  cameras_[static_cast<std::size_t>(work->frame.camera)]->published.fetch_add(
      1, std::memory_order_relaxed);
  published_.fetch_add(1, std::memory_order_relaxed);
}

void SinkStage::drop_sink(NamedSink* named, const Status& status) {
  events_->warning(named->name, status.what());
  verdict_->fail(status.code(), status.what());
  [[maybe_unused]] const Status closed = named->sink->close();  // failed already, and said so
  named->sink.reset();
  nobody_listens_ = std::all_of(sinks_.begin(), sinks_.end(),
                                [](const NamedSink& other) { return other.sink == nullptr; });
}

void SinkStage::close_sinks(bool whole) {
  for (NamedSink& named : sinks_) {
    if (named.sink != nullptr) {
      if (!whole) {
        named.sink->cut_off();
      }
      const Status status = named.sink->close();
      named.sink.reset();
      if (!status.ok()) {
        events_->warning(named.name, status.what());
        verdict_->fail(status.code(), status.what());
      }
    }
  }
}

}  // namespace posewire
