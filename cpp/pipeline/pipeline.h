// SPDX-License-Identifier: Apache-2.0
// The stream API: from engine.json to poses in sinks. What posewire-engine runs, as a library.
//
//   source threads -> a lane per camera -> preprocess (fills the runtime's slots in place)
//                  -> decode (waits for the oldest slot) -> sink
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/sink.h"
#include "pipeline/config.h"
#include "pipeline/events.h"

namespace posewire {

struct Outcome {
  Code code = Code::kOk;
  std::uint64_t frames = 0;  // that reached the sinks
  std::string why;           // one line; empty when everything went well
};

class Pipeline {
 public:
  // Both outlive the pipeline. Nothing happens yet.
  Pipeline(EngineConfig config, Events* events);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // Before run(): a sink besides the config's.
  void add_sink(const std::string& name, std::unique_ptr<Sink> sink);

  // Once, one thread: opens everything, works until every finite source has ended or stop(), closes
  // everything. Events: ready, source, frame, stats, warning and, at last and always, stopped. The
  // last stats event covers the whole run, the others the time since the one before.
  Outcome run();

  // Any thread, at any time: the sources stop, what is under way still reaches the sinks; what
  // takes longer than `drain_ms` is dropped.
  void stop(int drain_ms = 4000) noexcept;

 private:
  struct Running;  // everything that lives from open to close

  Outcome run_opened(Running* running);
  void open(Running* running);
  void open_sources(Running* running);
  void open_sinks(Running* running);
  void build(Running* running);
  void watch(Running* running);
  void tell_ends(Running* running, bool all);
  void report(Running* running, bool whole_run);
  void warn_of_refused_poses(Running* running);

  const EngineConfig config_;
  Events* const events_;
  std::vector<std::pair<std::string, std::unique_ptr<Sink>>> own_sinks_;

  std::atomic<bool> stopping_{false};
  std::atomic<std::chrono::steady_clock::time_point> deadline_{};  // of the drain
  std::mutex mutex_;                                               // guards running_
  Running* running_ = nullptr;                                     // while it may be stopped
};

}  // namespace posewire
