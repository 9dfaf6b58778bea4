// SPDX-License-Identifier: Apache-2.0
// Greedy one-to-one matching of one limb's candidate pairs: the best pair first, then the best of
// what is left (Cao et al. 2017, section 2.4), found without sorting: a pair that is the best of
// both its ends is taken by the greedy order whatever else there is.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/kernels.h"

namespace posewire {

class Matching {
 public:
  explicit Matching(int max_peaks);

  // Moves the chosen pairs to the front and returns how many. Scores are positive; of equal ones
  // the lower a, then the lower b is better. O(C) for clear cases, at most O(C log C).
  int run(LimbPair* pairs, int count);

 private:
  int drop_taken(int count);

  std::vector<std::uint64_t> best_a_, best_b_;  // per end: the rank of its best pair left
  std::vector<LimbPair> open_;                  // not yet decided
};

}  // namespace posewire
