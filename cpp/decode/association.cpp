// SPDX-License-Identifier: Apache-2.0
#include "decode/association.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace posewire {
namespace {

// What a cell keeps of its confidence where nothing says that its far end is a keypoint.
constexpr float kFloor = 0.1F;

}  // namespace

Associations::Associations(const Buckets& buckets, std::vector<std::pair<int, int>> limbs,
                           int max_cells)
    : buckets_(buckets), limbs_(std::move(limbs)) {
  const auto cells = static_cast<std::size_t>(max_cells);
  const std::size_t edges = 2 * limbs_.size();
  cells_.reserve(limbs_.size() * cells);
  first_cell_.resize(limbs_.size() + 1);
  starts_.resize(edges * (static_cast<std::size_t>(buckets_.count()) + 1));
  for (std::vector<float>* values : {&x_, &y_, &score_}) {
    values->resize(edges * cells + kLanes);
  }
  far_.resize(edges * cells);
  bucket_of_.resize(cells);
  weighted_.resize(cells + kLanes);
}

void Associations::clear() noexcept {
  cells_.clear();
  std::fill(first_cell_.begin(), first_cell_.end(), std::size_t{0});
  used_ = 0;
}

void Associations::add(const CompositeCell& cell) {
  cells_.push_back({cell.confidence,
                    {cell.x[0], cell.x[1]},
                    {cell.y[0], cell.y[1]},
                    {cell.scale[0], cell.scale[1]},
                    {0.0F, 0.0F}});
}

void Associations::rescore(std::size_t limb, int type, const Intensity& intensity,
                           const Kernels& kernels) {
  const int end = limbs_[limb].first == type ? 0 : 1;
  for (std::size_t i = first_cell_[limb]; i < first_cell_[limb + 1]; ++i) {
    Cell& cell = cells_[i];
    cell.share[end] = intensity.at(cell.x[end], cell.y[end], kernels);
  }
}

// A counting sort by the bucket of the near end.
void Associations::sort_edge(std::size_t edge, float threshold) {
  const std::size_t limb = edge / 2, near = edge % 2, far = 1 - near;
  const std::size_t first = first_cell_[limb], last = first_cell_[limb + 1];
  const auto buckets = static_cast<std::size_t>(buckets_.count());
  std::size_t* starts = starts_.data() + edge * (buckets + 1);
  std::fill(starts, starts + buckets + 1, std::size_t{0});
  const auto kept_score = [far](const Cell& cell) {
    return cell.confidence * (kFloor + (1.0F - kFloor) * cell.share[far]);
  };
  for (std::size_t i = first; i < last; ++i) {
    const Cell& cell = cells_[i];
    int bucket = -1;
    if (kept_score(cell) > threshold) {
      bucket = buckets_.at(cell.x[near], cell.y[near]);
      ++starts[bucket];
    }
    bucket_of_[i - first] = bucket;
  }
  for (std::size_t bucket = 0; bucket <= buckets; ++bucket) {  // ends; filled backwards to starts
    used_ += starts[bucket];
    starts[bucket] = used_;
  }
  for (std::size_t i = last; i-- > first;) {
    const int bucket = bucket_of_[i - first];
    if (bucket >= 0) {
      const Cell& cell = cells_[i];
      const std::size_t at = --starts[bucket];
      x_[at] = cell.x[near];
      y_[at] = cell.y[near];
      score_[at] = kept_score(cell);
      far_[at] = {cell.x[far], cell.y[far], cell.scale[far]};
    }
  }
}

void Associations::sort(float threshold) {
  for (std::size_t edge = 0; edge < 2 * limbs_.size(); ++edge) {
    sort_edge(edge, threshold);
  }
}

// The two best cells in the square around `from`; the buckets of a row stand side by side.
void Associations::search(std::size_t edge, const Joint& from, float reach, const Kernels& kernels,
                          Best* first, Best* second) {
  const std::size_t* starts =
      starts_.data() + edge * (static_cast<std::size_t>(buckets_.count()) + 1);
  const int left = buckets_.column(from.x - reach), right = buckets_.column(from.x + reach);
  const int bottom = buckets_.row(from.y + reach);
  for (int row = buckets_.row(from.y - reach); row <= bottom; ++row) {
    const std::size_t begin = starts[row * buckets_.columns() + left];
    const std::size_t end = starts[row * buckets_.columns() + right + 1];
    if (begin == end) {
      continue;
    }
    kernels.weigh_near(x_.data() + begin, y_.data() + begin, score_.data() + begin,
                       static_cast<int>(end - begin), from.x, from.y, reach, weighted_.data());
    for (std::size_t i = begin; i < end; ++i) {
      const float score = weighted_[i - begin];
      if (score > first->score) {
        *second = *first;
        *first = {score, i};
      } else if (score > second->score) {
        *second = {score, i};
      }
    }
  }
}

Joint Associations::follow(std::size_t edge, const Joint& from, const Kernels& kernels) {
  Best first, second;
  search(edge, from, 0.5F * std::max(from.scale, kMinScale), kernels, &first, &second);
  if (first.score == 0.0F) {
    return {};
  }
  const Far& one = far_[first.at];
  const Far& two = far_[second.at];
  // A second cell that is much weaker or leads elsewhere is no confirmation: half the score.
  const float apart = (one.x - two.x) * (one.x - two.x) + (one.y - two.y) * (one.y - two.y);
  const float radius = 0.5F * std::max(one.scale, kMinScale);
  if (second.score < 0.01F || second.score < 0.5F * first.score || apart > radius * radius) {
    return {0.5F * first.score, one.x, one.y, one.scale};
  }
  const float sum = first.score + second.score;
  const float a = first.score / sum, b = second.score / sum;
  return {0.5F * sum, a * one.x + b * two.x, a * one.y + b * two.y, a * one.scale + b * two.scale};
}

}  // namespace posewire
