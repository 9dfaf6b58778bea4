// SPDX-License-Identifier: Apache-2.0
#include "decode/association.h"

#include <algorithm>

namespace posewire {
namespace {

// What a cell keeps of its confidence where nothing says that its far end is a keypoint.
constexpr float kFloor = 0.1F;

}  // namespace

Associations::Associations(const Buckets& buckets, std::vector<std::pair<int, int>> limbs,
                           int max_cells)
    : buckets_(buckets),
      limbs_(std::move(limbs)),
      max_cells_(max_cells),
      cells_(2, limbs_.size() * static_cast<std::size_t>(max_cells)),
      first_(limbs_.size() + 1),
      starts_(2 * limbs_.size() * (buckets.count() + 1)) {
  const auto cells = static_cast<std::size_t>(max_cells);
  for (std::vector<float>* values : {&share_[0], &share_[1]}) {
    values->resize(limbs_.size() * cells);
  }
  for (std::vector<float>* values : {&x_, &y_, &score_}) {
    values->resize(2 * limbs_.size() * cells + kLanes);
  }
  index_.resize(2 * limbs_.size() * cells);
  bucket_of_.resize(cells);
  sums_.resize(cells + kLanes);
  weighted_.resize(cells + kLanes);
}

SortedPoints Associations::points_of(int edge) {
  const auto n = static_cast<std::size_t>(edge), limb = n / 2;
  const std::size_t at = first_[limb] + (n % 2 == 0 ? first_[limb] : first_[limb + 1]);
  return {starts_.data() + n * (buckets_.count() + 1), x_.data() + at, y_.data() + at,
          index_.data() + at};
}

void Associations::read(const CompositeFields& fields, float threshold) {
  cells_.count = 0;
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    fields.append(static_cast<int>(limb), threshold, max_cells_, &cells_);
    first_[limb + 1] = cells_.count;
    const auto count = static_cast<int>(cells_.count - first_[limb]);
    for (int end = 0; end < 2; ++end) {
      sort_points(buckets_, cells_.x[end].data() + first_[limb],
                  cells_.y[end].data() + first_[limb], count, bucket_of_.data(),
                  points_of(2 * static_cast<int>(limb) + end));
    }
  }
}

void Associations::weigh(int type, const Intensity& intensity, const Kernels& kernels) {
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    const std::size_t count = first_[limb + 1] - first_[limb];
    if (count == 0 || (limbs_[limb].first != type && limbs_[limb].second != type)) {
      continue;
    }
    const int end = limbs_[limb].first == type ? 0 : 1;
    const SortedPoints points = points_of(2 * static_cast<int>(limb) + end);
    intensity.at(points, kernels, sums_.data());
    float* share = share_[end].data() + first_[limb];
    for (std::size_t i = 0; i < count; ++i) {
      share[points.index[i]] = sums_[i];
    }
  }
}

void Associations::score(float threshold) {
  const int edges = 2 * static_cast<int>(limbs_.size());
  for (int edge = 0; edge < edges; ++edge) {
    const auto limb = static_cast<std::size_t>(edge / 2);
    const SortedPoints points = points_of(edge);
    const float* share = share_[1 - edge % 2].data() + first_[limb];
    const float* confidence = cells_.confidence.data() + first_[limb];
    float* scores = score_.data() + (points.x - x_.data());
    for (std::size_t i = 0; i < first_[limb + 1] - first_[limb]; ++i) {
      const int cell = points.index[i];
      const float score = confidence[cell] * (kFloor + (1.0F - kFloor) * share[cell]);
      scores[i] = score > threshold ? score : 0.0F;
    }
  }
}

// The two best cells in the square around `from`; the buckets of a row stand side by side.
void Associations::search(int edge, const Joint& from, float reach, const Kernels& kernels,
                          Best* first, Best* second) {
  const SortedPoints points = points_of(edge);
  const float* scores = score_.data() + (points.x - x_.data());
  const int left = buckets_.column(from.x - reach), right = buckets_.column(from.x + reach);
  const int bottom = buckets_.row(from.y + reach);
  for (int row = buckets_.row(from.y - reach); row <= bottom; ++row) {
    const int begin = points.starts[row * buckets_.columns() + left];
    const int end = points.starts[row * buckets_.columns() + right + 1];
    if (begin == end) {
      continue;
    }
    kernels.weigh_near(points.x + begin, points.y + begin, scores + begin, end - begin, from.x,
                       from.y, reach, weighted_.data());
    for (int i = begin; i < end; ++i) {
      const float score = weighted_[static_cast<std::size_t>(i - begin)];
      if (score > second->score) {
        if (score > first->score) {
          *second = *first;
          *first = {score, i};
        } else {
          *second = {score, i};
        }
      }
    }
  }
}

Joint Associations::follow(int edge, const Joint& from, const Kernels& kernels) {
  Best first, second;
  search(edge, from, 0.5F * std::max(from.scale, kMinScale), kernels, &first, &second);
  if (first.score == 0.0F) {
    return {};
  }
  const int* index = points_of(edge).index;
  const int far = 1 - edge % 2;
  const auto joint_at = [&](const Best& best) -> Joint {
    const std::size_t cell =
        first_[static_cast<std::size_t>(edge / 2)] + static_cast<std::size_t>(index[best.at]);
    return {best.score, cells_.x[far][cell], cells_.y[far][cell], cells_.scale[far][cell]};
  };
  const Joint one = joint_at(first), two = joint_at(second);
  // A second cell that is much weaker or leads elsewhere is no confirmation: half the score.
  const float apart = (one.x - two.x) * (one.x - two.x) + (one.y - two.y) * (one.y - two.y);
  const float radius = 0.5F * std::max(one.scale, kMinScale);
  if (two.score < 0.01F || two.score < 0.5F * one.score || apart > radius * radius) {
    return {0.5F * one.score, one.x, one.y, one.scale};
  }
  const float sum = one.score + two.score;
  const float a = one.score / sum, b = two.score / sum;
  return {0.5F * sum, a * one.x + b * two.x, a * one.y + b * two.y, a * one.scale + b * two.scale};
}

}  // namespace posewire
