// SPDX-License-Identifier: Apache-2.0
// A static topology of operators: starts a thread for each, ends them in order, reports who failed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "flow/any_channel.h"
#include "flow/operator.h"

namespace posewire {

class Graph {
 public:
  Graph() = default;
  ~Graph();  // aborts and joins what still runs
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Before start(). `outputs` are the channels that the operator writes; each is closed when the
  // last of its writers has ended. The channels outlive the graph.
  void add(Operator* op, std::vector<AnyChannel*> outputs);

  // Throws Error(kUnavailable) when the machine gives no thread; nothing runs then.
  void start();

  // Any thread: asks the operators to stop; what is under way is still worked off.
  void stop() noexcept;

  // Any thread: closes every channel and drops what is inside.
  void abort() noexcept;

  // The owner: true when every operator has ended.
  bool wait_for(std::chrono::steady_clock::duration timeout);

  // The owner: joins every thread; the first failure, "<operator>: <what>", or success.
  Status wait();

 private:
  struct Node {
    Operator* op = nullptr;
    std::vector<AnyChannel*> outputs;
  };
  struct Output {
    AnyChannel* channel = nullptr;
    int writers = 0;
  };

  void run(const Node& node) noexcept;
  void join();
  void ended(const Node& node, const Status& status) noexcept;

  std::vector<Node> nodes_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;  // guards all below
  std::condition_variable all_ended_;
  std::vector<Output> outputs_;
  std::size_t running_ = 0;
  Status failure_;
};

}  // namespace posewire
