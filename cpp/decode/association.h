// SPDX-License-Identifier: Apache-2.0
// The composite association fields' active cells (Kreiss et al. 2019, section 3.3), per limb and
// direction in buckets by where they start, so that following a limb looks at the cells that start
// near a keypoint and at no other.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "decode/buckets.h"
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
  // Memory for `max_cells` cells a limb, all of it here.
  Associations(const Buckets& buckets, std::vector<std::pair<int, int>> limbs, int max_cells);

  // Per frame: clear, all cells of limb 0, its end, all of limb 1 …, rescore once a keypoint type,
  // sort.
  void clear() noexcept;
  void add(const CompositeCell& cell);
  void end_limb(std::size_t limb) noexcept { first_cell_[limb + 1] = cells_.size(); }
  // The share of the accumulated confidence at those ends of the limb's cells that are of `type`.
  void rescore(std::size_t limb, int type, const Intensity& intensity, const Kernels& kernels);
  // Cells whose confidence times (floor + (1 - floor) * share at the far end) is over `threshold`
  // stay, a direction at a time.
  void sort(float threshold);

  // Edge 2 l follows limb l from its first keypoint to its second, 2 l + 1 back. The best two
  // cells that start near `from` are blended; score 0: none.
  Joint follow(std::size_t edge, const Joint& from, const Kernels& kernels);

  // Scales below are taken for this, a pixel's reach at stride 8.
  static constexpr float kMinScale = 0.25F;

 private:
  struct Cell {
    float confidence;
    float x[2], y[2], scale[2];
    float share[2];  // of the accumulated confidence at this end
  };
  // Where a cell of one direction leads.
  struct Far {
    float x, y, scale;
  };
  struct Best {
    float score = 0.0F;
    std::size_t at = 0;
  };
  void sort_edge(std::size_t edge, float threshold);
  void search(std::size_t edge, const Joint& from, float reach, const Kernels& kernels, Best* first,
              Best* second);

  Buckets buckets_;
  std::vector<std::pair<int, int>> limbs_;
  std::vector<Cell> cells_;
  std::vector<std::size_t> first_cell_;  // per limb, and the end
  // Per edge `count() + 1` starts of its buckets in the arrays below.
  std::vector<std::size_t> starts_;
  std::vector<float> x_, y_, score_;  // where they start
  std::vector<Far> far_;
  std::size_t used_ = 0;
  std::vector<int> bucket_of_;   // of one edge's cells; -1: dropped
  std::vector<float> weighted_;  // of one row of buckets
};

}  // namespace posewire
