// SPDX-License-Identifier: Apache-2.0
// The accumulated confidence of one keypoint type (Kreiss et al. 2019, equation 1; "CifHr"),
// without the high-resolution map: cells' discs lie in the buckets that they touch, and the sum is
// taken at the very points that are asked for, a bucket's together.
#pragma once

#include <vector>

#include "decode/buckets.h"
#include "decode/kernels.h"

namespace posewire {

class Intensity {
 public:
  // Memory for `max_discs` discs, all of it here.
  Intensity(const Buckets& buckets, int max_discs);

  void clear() noexcept { discs_.clear(); }

  // A Gaussian of `weight` at x, y (cells), cut at one sigma; at most max_discs of them.
  // sigma is kept to kMinSigma … kMaxSigma cells.
  void add(float x, float y, float sigma, float weight);

  // Before the first at() and after the last add(). O(buckets + discs).
  void sort();

  // The sums at points, at most 1 each, in the points' order. `sums` has kLanes elements to spare.
  void at(const SortedPoints& points, const Kernels& kernels, float* sums) const;

  static constexpr float kMinSigma = 0.125F;
  static constexpr float kMaxSigma = 8.0F;

 private:
  struct Disc {
    float x, y, fall, weight;
    int left, right, top, bottom;  // buckets that its square touches
  };
  template <class Visit>
  void each_bucket(const Disc& disc, Visit visit) const;

  Buckets buckets_;
  std::vector<Disc> discs_;
  std::vector<int> starts_;  // of a bucket's discs in the arrays below
  std::vector<float> x_, y_, fall_, weight_;
};

}  // namespace posewire
