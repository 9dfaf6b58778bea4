// SPDX-License-Identifier: Apache-2.0
#include "flow/graph.h"

#include <pthread.h>

#include <algorithm>
#include <exception>
#include <system_error>

namespace posewire {
namespace {

Status run_guarded(Operator* op) noexcept {
  try {
    return op->run();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::exception& error) {
    return {Code::kBug, error.what()};
  } catch (...) {
    return {Code::kBug, "threw something unknown"};
  }
}

}  // namespace

Graph::~Graph() {
  abort();
  stop();
  join();
}

void Graph::add(Operator* op, std::vector<AnyChannel*> outputs) {
  for (AnyChannel* channel : outputs) {
    const auto known = std::find_if(outputs_.begin(), outputs_.end(),
                                    [&](const Output& o) { return o.channel == channel; });
    if (known == outputs_.end()) {
      outputs_.push_back({channel, 1});
    } else {
      ++known->writers;
    }
  }
  nodes_.push_back({op, std::move(outputs)});
}

void Graph::start() {
  running_ = nodes_.size();
  threads_.reserve(nodes_.size());
  try {
    for (const Node& node : nodes_) {
      threads_.emplace_back([this, &node] { run(node); });
    }
  } catch (const std::system_error& error) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      running_ -= nodes_.size() - threads_.size();
    }
    abort();
    stop();
    join();
    throw Error(Code::kUnavailable, "threads", error.what());
  }
}

void Graph::run(const Node& node) noexcept {
  // The kernel keeps 15 characters.
  ::pthread_setname_np(::pthread_self(), node.op->name().substr(0, 15).c_str());
  ended(node, run_guarded(node.op));
}

void Graph::ended(const Node& node, const Status& status) noexcept {
  if (!status.ok()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (failure_.ok()) {
        failure_ = Status(status.code(), node.op->name() + ": " + status.what());
      }
    }
    abort();
    stop();
  }
  // Under the lock, so that of two writers that end together one sees the count reach 0.
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Output& output : outputs_) {
    for (const AnyChannel* channel : node.outputs) {
      if (channel == output.channel && --output.writers == 0) {
        output.channel->close();
      }
    }
  }
  --running_;
  if (running_ == 0) {
    all_ended_.notify_all();
  }
}

void Graph::stop() noexcept {
  for (const Node& node : nodes_) {
    node.op->stop();
  }
}

void Graph::abort() noexcept {
  // outputs_ does not change after start(), except for its writers' counts.
  for (const Output& output : outputs_) {
    output.channel->abort();
  }
}

bool Graph::wait_for(std::chrono::steady_clock::duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return all_ended_.wait_for(lock, timeout, [&] { return running_ == 0; });
}

void Graph::join() {
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

Status Graph::wait() {
  join();
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

}  // namespace posewire
