// SPDX-License-Identifier: Apache-2.0
#include "flow/stats.h"

#include <algorithm>
#include <cmath>

namespace posewire {
namespace {

constexpr std::uint64_t kPerOctave = 32;

// Below 32 us a bucket is 1 us wide; above, every power of two has 32 buckets.
std::size_t bucket_of(std::uint64_t us) noexcept {
  std::size_t octave = 0;
  while ((us >> octave) >= 2 * kPerOctave) {
    ++octave;
  }
  const std::size_t bucket = octave * kPerOctave + static_cast<std::size_t>(us >> octave);
  return std::min(bucket, LatencyHistogram::kBuckets - 1);
}

double middle_us(std::size_t bucket) noexcept {
  if (bucket < 2 * kPerOctave) {
    return static_cast<double>(bucket) + 0.5;
  }
  const std::size_t octave = bucket / kPerOctave - 1;
  const auto mantissa = static_cast<double>(bucket - octave * kPerOctave);
  return std::ldexp(mantissa + 0.5, static_cast<int>(octave));
}

}  // namespace

void LatencyHistogram::add(std::chrono::steady_clock::duration time) noexcept {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  const std::size_t bucket = bucket_of(static_cast<std::uint64_t>(us < 0 ? 0 : us));
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
}

LatencyHistogram::Counts LatencyHistogram::counts() const noexcept {
  Counts result{};
  for (std::size_t i = 0; i < kBuckets; ++i) {
    result[i] = counts_[i].load(std::memory_order_relaxed);
  }
  return result;
}

LatencyHistogram::Counts operator-(const LatencyHistogram::Counts& later,
                                   const LatencyHistogram::Counts& earlier) noexcept {
  LatencyHistogram::Counts result{};
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = later[i] - earlier[i];
  }
  return result;
}

double percentile_ms(const LatencyHistogram::Counts& counts, double q) noexcept {
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) {
    total += count;
  }
  if (total == 0) {
    return 0.0;
  }
  const auto rank =
      static_cast<std::uint64_t>(std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(total)));
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    below += counts[i];
    if (below >= std::max<std::uint64_t>(rank, 1)) {
      return middle_us(i) * 1e-3;
    }
  }
  return 0.0;
}

}  // namespace posewire
