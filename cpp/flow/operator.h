// SPDX-License-Identifier: Apache-2.0
// A stage of the dataflow. It runs on a thread of its own, reads and writes channels, and knows its
// neighbours only through them.
#pragma once

#include <string>
#include <utility>

#include "core/error.h"
#include "flow/stats.h"

namespace posewire {

class Operator {
 public:
  explicit Operator(std::string name) : name_(std::move(name)) {}
  virtual ~Operator() = default;
  Operator(const Operator&) = delete;
  Operator& operator=(const Operator&) = delete;

  // The operator's own thread, once: works until its inputs are drained, until an output refuses
  // (it was closed because somebody failed: return success), or until stop(). The graph closes the
  // outputs afterwards. A failure here ends the whole graph.
  virtual Status run() = 0;

  // Any thread, also before and after run(): for sources, which no channel wakes.
  virtual void stop() noexcept {}

  const std::string& name() const noexcept { return name_; }
  OperatorStats& stats() noexcept { return stats_; }

 private:
  std::string name_;
  OperatorStats stats_;
};

}  // namespace posewire
