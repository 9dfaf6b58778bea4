// SPDX-License-Identifier: Apache-2.0
#include "decode/matching.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace posewire {
namespace {

constexpr std::uint64_t kTaken = ~std::uint64_t{0};

// Greater is better: the bits of a positive float are in its order.
std::uint64_t rank(const LimbPair& pair) {
  std::uint32_t score;
  std::memcpy(&score, &pair.score, sizeof score);
  const std::uint32_t ends = std::uint32_t{pair.a} << 16 | pair.b;
  return std::uint64_t{score} << 32 | (~ends);
}

}  // namespace

Matching::Matching(int max_peaks)
    : best_a_(static_cast<std::size_t>(max_peaks)),
      best_b_(static_cast<std::size_t>(max_peaks)),
      open_(best_a_.size() * best_b_.size() + 1) {}

int Matching::run(LimbPair* pairs, int count) {
  if (count < 2) {
    return count;
  }
  std::fill(best_a_.begin(), best_a_.end(), 0);
  std::fill(best_b_.begin(), best_b_.end(), 0);
  LimbPair* open = open_.data();
  std::copy_n(pairs, count, open);
  constexpr int kRounds = 4;  // mostly one or two are enough
  int chosen = 0, left = count;
  for (int round = 0; round < kRounds && left > 0; ++round) {
    for (int i = 0; i < left; ++i) {
      const std::uint64_t own = rank(open[i]);
      best_a_[open[i].a] = std::max(best_a_[open[i].a], own);
      best_b_[open[i].b] = std::max(best_b_[open[i].b], own);
    }
    for (int i = 0; i < left; ++i) {
      const LimbPair pair = open[i];
      const std::uint64_t own = rank(pair);
      std::uint64_t& best_a = best_a_[pair.a];
      std::uint64_t& best_b = best_b_[pair.b];
      const bool best = own == best_a && own == best_b;
      best_a = best ? kTaken : best_a;
      best_b = best ? kTaken : best_b;
      pairs[chosen] = pair;
      chosen += best ? 1 : 0;
    }
    left = drop_taken(left);
  }
  std::sort(open, open + left,
            [](const LimbPair& one, const LimbPair& two) { return rank(one) > rank(two); });
  for (int i = 0; i < left; ++i) {
    std::uint64_t& best_a = best_a_[open[i].a];
    std::uint64_t& best_b = best_b_[open[i].b];
    if (best_a != kTaken && best_b != kTaken) {
      best_a = best_b = kTaken;
      pairs[chosen++] = open[i];
    }
  }
  return chosen;
}

// Keeps the open pairs whose ends are both free, and forgets those ends' best.
int Matching::drop_taken(int count) {
  LimbPair* open = open_.data();
  int left = 0;
  for (int i = 0; i < count; ++i) {
    const LimbPair pair = open[i];
    open[left] = pair;
    left += best_a_[pair.a] != kTaken && best_b_[pair.b] != kTaken ? 1 : 0;
  }
  for (int i = 0; i < left; ++i) {
    best_a_[open[i].a] = 0;
    best_b_[open[i].b] = 0;
  }
  return left;
}

}  // namespace posewire
