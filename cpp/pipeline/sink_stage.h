// SPDX-License-Identifier: Apache-2.0
// The end of the dataflow: writes each frame's message and hands it to the sinks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "flow/channel.h"
#include "flow/operator.h"
#include "flow/stats.h"
#include "io/sink.h"
#include "pipeline/events.h"
#include "pipeline/payload.h"
#include "pipeline/work.h"

namespace posewire {

// "events": every message as a frame event.
std::unique_ptr<Sink> make_events_sink(Events* events);

struct NamedSink {
  std::string name;  // for messages
  std::unique_ptr<Sink> sink;
};

class SinkStage final : public Operator {
 public:
  // `sinks` are open. A sink that fails is closed and the others go on; without any left there is
  // nobody to work for.
  SinkStage(const PayloadWriter* payload, std::vector<NamedSink> sinks,
            std::vector<CameraCounts*> cameras, Channel<WorkPtr>* results, Events* events,
            Verdict* verdict);

  Status run() override;
  // After run(), once, when the graph did not fail: finishes the outputs; `whole` is false when a
  // source failed, and they then do not replace what is there.
  void close_sinks(bool whole);

  const LatencyHistogram& latencies() const noexcept { return latencies_; }
  std::uint64_t published() const noexcept { return published_; }
  bool nobody_listens() const noexcept { return nobody_listens_; }

 private:
  void write(Work* work);
  void drop_sink(NamedSink* named, const Status& status);

  const PayloadWriter* const payload_;
  std::vector<NamedSink> sinks_;
  const std::vector<CameraCounts*> cameras_;
  Channel<WorkPtr>* const results_;
  Events* const events_;
  Verdict* const verdict_;
  LatencyHistogram latencies_;
  std::atomic<std::uint64_t> published_{0};
  std::atomic<bool> nobody_listens_{false};
};

}  // namespace posewire
