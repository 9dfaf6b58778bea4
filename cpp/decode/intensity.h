// SPDX-License-Identifier: Apache-2.0
// The accumulated confidence of one keypoint type (Kreiss et al. 2019, equation 1; "CifHr"),
// without the high-resolution map: the sum is taken at the very points that are asked for, a block
// of kLanes together, over the blocks of discs whose box touches theirs.
#pragma once

#include <cstddef>
#include <vector>

#include "decode/composite.h"
#include "decode/kernels.h"

namespace posewire {

class Intensity {
 public:
  // Memory for `room` cells, all of it here.
  explicit Intensity(std::size_t room);

  // The Gaussians of one field's cells: sigma half the scale, kept to kMinSigma … kMaxSigma cells,
  // cut at one sigma; weights confidence / 16, of confidences over the threshold.
  void set(const CompositeCells& cells, std::size_t field, float threshold, const Kernels& kernels);

  // The sums at points, at most 1 each: `count` in whole blocks with their boxes.
  void at(const float* x, const float* y, const float* boxes, int count, const Kernels& kernels,
          float* sums) const {
    kernels.sum_discs(x_, y_, fall_.data(), weight_.data(), boxes_.data(), count_, x, y, boxes,
                      count, sums);
  }

  static constexpr float kMinSigma = 0.125F;
  static constexpr float kMaxSigma = 8.0F;

 private:
  int count_ = 0;
  const float* x_ = nullptr;  // the cells' own
  const float* y_ = nullptr;
  std::vector<float> reach_, fall_, weight_, boxes_;
};

}  // namespace posewire
