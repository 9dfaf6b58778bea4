// SPDX-License-Identifier: Apache-2.0
// Figures that an operator's thread writes and any thread reads, without locks or allocation.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace posewire {

// Written by one thread.
class OperatorStats {
 public:
  void add_frames(std::uint64_t count) noexcept {
    frames_.fetch_add(count, std::memory_order_relaxed);
  }
  void add_busy(std::chrono::steady_clock::duration time) noexcept {
    busy_ns_.fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count(),
                       std::memory_order_relaxed);
  }
  std::uint64_t frames() const noexcept { return frames_.load(std::memory_order_relaxed); }
  double busy_ms() const noexcept {
    return static_cast<double>(busy_ns_.load(std::memory_order_relaxed)) * 1e-6;
  }

 private:
  std::atomic<std::uint64_t> frames_{0};
  std::atomic<std::int64_t> busy_ns_{0};
};

// Adds the time between its construction and its end.
class BusyTimer {
 public:
  explicit BusyTimer(OperatorStats* stats) noexcept : stats_(stats) {}
  ~BusyTimer() { stats_->add_busy(std::chrono::steady_clock::now() - begin_); }
  BusyTimer(const BusyTimer&) = delete;
  BusyTimer& operator=(const BusyTimer&) = delete;

 private:
  OperatorStats* stats_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// Times from 1 us to more than an hour in buckets of 3 % width.
class LatencyHistogram {
 public:
  static constexpr std::size_t kBuckets = 32 * 28;
  using Counts = std::array<std::uint64_t, kBuckets>;

  void add(std::chrono::steady_clock::duration time) noexcept;  // one writer
  Counts counts() const noexcept;                               // any thread

 private:
  std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
};

// What came in between two snapshots.
LatencyHistogram::Counts operator-(const LatencyHistogram::Counts& later,
                                   const LatencyHistogram::Counts& earlier) noexcept;

// The time in ms below which a fraction `q` (0 … 1) of the counts lies; 0 when there are none.
double percentile_ms(const LatencyHistogram::Counts& counts, double q) noexcept;

}  // namespace posewire
