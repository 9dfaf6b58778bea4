// SPDX-License-Identifier: Apache-2.0
#include "decode/association.h"

#include <algorithm>

namespace posewire {
namespace {

// What a cell keeps of its confidence where nothing says that its far end is a keypoint.
constexpr float kFloor = 0.1F;

}  // namespace

Associations::Associations(std::vector<std::pair<int, int>> limbs, std::size_t room)
    : limbs_(std::move(limbs)), cells_(2, limbs_.size(), room) {
  for (std::vector<float>* values : {&share_[0], &share_[1], &score_[0], &score_[1]}) {
    values->resize(cells_.confidence.size());
  }
}

void Associations::read(const CompositeFields& fields) {
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    fields.append(static_cast<int>(limb), &cells_);
  }
}

void Associations::weigh(int type, const Intensity& intensity, const Kernels& kernels) {
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    if (limbs_[limb].first != type && limbs_[limb].second != type) {
      continue;
    }
    const int end = limbs_[limb].first == type ? 0 : 1;
    const std::size_t first = cells_.first[limb];
    intensity.at(cells_.x[end].data() + first, cells_.y[end].data() + first,
                 cells_.boxes[end].data() + cells_.box_of(limb), cells_.count(limb), kernels,
                 share_[end].data() + first);
  }
}

void Associations::score(float threshold) {
  const float* confidence = cells_.confidence.data();
  for (int end = 0; end < 2; ++end) {
    const float* share = share_[1 - end].data();
    float* scores = score_[end].data();
    for (std::size_t i = 0; i < cells_.first.back(); ++i) {
      const float score = confidence[i] * (kFloor + (1.0F - kFloor) * share[i]);
      scores[i] = score > threshold ? score : 0.0F;
    }
  }
}

Joint Associations::follow(int edge, const Joint& from, const Kernels& kernels) const {
  const auto limb = static_cast<std::size_t>(edge / 2), start = cells_.first[limb];
  const int near = edge % 2, far = 1 - near;
  const TwoBest best =
      kernels.two_near(cells_.x[near].data() + start, cells_.y[near].data() + start,
                       score_[near].data() + start, cells_.boxes[near].data() + cells_.box_of(limb),
                       cells_.count(limb), from.x, from.y, 0.5F * std::max(from.scale, kMinScale));
  if (best.first == 0.0F) {
    return {};
  }
  const auto joint_at = [&](float score, int at) -> Joint {
    const std::size_t cell = start + static_cast<std::size_t>(at);
    return {score, cells_.x[far][cell], cells_.y[far][cell], cells_.scale[far][cell]};
  };
  const Joint one = joint_at(best.first, best.first_at);
  const Joint two = joint_at(best.second, best.second_at);
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
