// SPDX-License-Identifier: Apache-2.0
// The composite association fields' active cells (Kreiss et al. 2019, section 3.3), per limb in
// blocks of near ones with a box around either end, so that following a limb looks at the blocks
// that start near a keypoint and at no other.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "decode/composite.h"
#include "decode/intensity.h"
#include "decode/kernels.h"

namespace posewire {

// A keypoint of a person being grown; cells of the map. Score 0: absent.
struct Joint {
  float score = 0.0F, x = 0.0F, y = 0.0F, scale = 0.0F;
};

class Associations {
 public:
  // Memory for `room` cells a limb, copies included, all of it here.
  Associations(std::vector<std::pair<int, int>> limbs, std::size_t room);

  // Per frame: read, weigh every keypoint type, score.
  void read(const CompositeFields& fields);
  // The accumulated confidence at those ends of the limbs that are of `type`.
  void weigh(int type, const Intensity& intensity, const Kernels& kernels);
  // A cell counts, a direction at a time, with its confidence times a floor plus the accumulated
  // confidence at the far end, and only over `threshold`.
  void score(float threshold);

  // Edge 2 l follows limb l from its first keypoint to its second, 2 l + 1 back. The best two
  // cells that start near `from` are blended; score 0: none.
  Joint follow(int edge, const Joint& from, const Kernels& kernels) const;

  // Scales below are taken for this, a pixel's reach at stride 8.
  static constexpr float kMinScale = 0.25F;

 private:
  std::vector<std::pair<int, int>> limbs_;
  CompositeCells cells_;  // limb by limb
  // Per cell and end: the accumulated confidence there; the score of the way from there.
  std::vector<float> share_[2], score_[2];
};

}  // namespace posewire
