// SPDX-License-Identifier: Apache-2.0
// The engine's protocol: one JSON object a line. An event is written whole or not at all, by
// whichever thread has it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"

namespace posewire {

// Where lines go. Calls are serialised by Events.
class LineOut {
 public:
  virtual ~LineOut() = default;
  // Takes one line, its '\n' included; may block while the reader is slow. False: nobody reads any
  // more, and nobody will.
  virtual bool write(const std::string& line) = 0;
  // Any thread: the engine ends; a write that still blocks at `deadline` gives up.
  virtual void give_up_at(std::chrono::steady_clock::time_point /*deadline*/) noexcept {}
};

// A file descriptor that it does not own, usually stdout. SIGPIPE must be ignored.
class FdLines final : public LineOut {
 public:
  explicit FdLines(int descriptor) noexcept : descriptor_(descriptor) {}
  bool write(const std::string& line) override;
  void give_up_at(std::chrono::steady_clock::time_point deadline) noexcept override {
    deadline_ = deadline;
  }

 private:
  const int descriptor_;
  bool torn_ = false;  // half a line is out: another one after it would not be JSON
  std::atomic<std::chrono::steady_clock::time_point> deadline_{
      std::chrono::steady_clock::time_point::max()};
};

struct ReadyEvent {
  std::string bundle, runtime, skeleton, precision;
  int requests = 0, max_batch = 0;
};

enum class SourceState : std::uint8_t { kOnline, kOffline, kEnded };

struct SourceEvent {
  std::string camera;
  SourceState state = SourceState::kOffline;
  int width = 0, height = 0;  // of the first picture; 0 while unknown
  std::string why;
};

struct StatsEvent {
  struct Row {
    std::string name;
    std::uint64_t frames = 0;
    double busy_ms = 0.0;
    std::uint64_t depth = 0, dropped = 0;  // of the operator's input
  };
  struct Camera {
    std::string camera;
    std::uint64_t captured = 0, published = 0, dropped = 0;
  };
  double fps = 0.0, p50_ms = 0.0, p99_ms = 0.0;
  std::vector<Row> operators;   // counted from the start
  std::vector<Camera> cameras;  // counted from the start
};

// Every method: any thread.
class Events {
 public:
  explicit Events(LineOut* out) noexcept : out_(out) {}

  void ready(const ReadyEvent& event);
  void source(const SourceEvent& event);
  void frame(const std::string& payload);  // a JSON object
  void stats(const StatsEvent& event);
  void warning(const std::string& where, const std::string& what);  // also on stderr
  void stopped(Code code, std::uint64_t frames, const std::string& why);

  bool closed() const noexcept { return closed_; }  // the reader went away
  void give_up_at(std::chrono::steady_clock::time_point deadline) noexcept {
    out_->give_up_at(deadline);
  }

 private:
  void write(const std::string& object);

  LineOut* const out_;
  std::mutex mutex_;  // guards out_ and line_
  std::string line_;
  std::atomic<bool> closed_{false};
};

}  // namespace posewire
