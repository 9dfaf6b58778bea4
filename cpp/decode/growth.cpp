// SPDX-License-Identifier: Apache-2.0
#include "decode/growth.h"

#include <algorithm>
#include <cmath>

namespace posewire {
namespace {

int source_of(const std::vector<std::pair<int, int>>& limbs, int edge) {
  const auto& limb = limbs[static_cast<std::size_t>(edge / 2)];
  return edge % 2 == 0 ? limb.first : limb.second;
}

}  // namespace

Occupancy::Occupancy(int max_people) {
  const int room = (max_people + kLanes - 1) / kLanes * kLanes;
  for (std::vector<float>* values : {&x_, &y_, &reach_}) {
    values->resize(static_cast<std::size_t>(room));
  }
}

void Occupancy::take(const Joint& joint) {
  const auto n = static_cast<std::size_t>(count_);
  if (count_ % kLanes == 0) {
    std::fill_n(reach_.begin() + count_, kLanes, -1.0F);
  }
  x_[n] = joint.x;
  y_[n] = joint.y;
  reach_[n] = reach_of(joint);
  ++count_;
}

Growth::Growth(int keypoints, std::vector<std::pair<int, int>> limbs, const Settings& settings)
    : keypoints_(keypoints),
      limbs_(std::move(limbs)),
      settings_(settings),
      edges_from_(static_cast<std::size_t>(keypoints)),
      occupancy_(static_cast<std::size_t>(keypoints), Occupancy(settings.max_people)) {
  const int edges = 2 * static_cast<int>(limbs_.size());
  for (int edge = 0; edge < edges; ++edge) {
    edges_from_[static_cast<std::size_t>(source_of(limbs_, edge))].push_back(edge);
  }
  // Each edge is pushed at most twice: once when its start is reached, once when it is known.
  ways_.reserve(2 * static_cast<std::size_t>(edges));
  const auto people = static_cast<std::size_t>(settings.max_people);
  joints_.reserve(people * static_cast<std::size_t>(keypoints));
  means_.reserve(people);
  order_.reserve(people);
}

void Growth::clear() noexcept {
  joints_.clear();
  means_.clear();
  order_.clear();
}

// Equal scores by the edge, so that the order is the same everywhere.
bool Growth::worse(const Way& a, const Way& b) noexcept {
  return a.score != b.score ? a.score < b.score : a.edge > b.edge;
}

void Growth::push(const Way& way) {
  ways_.push_back(way);
  std::push_heap(ways_.begin(), ways_.end(), worse);
}

Growth::Way Growth::pop() {
  std::pop_heap(ways_.begin(), ways_.end(), worse);
  const Way best = ways_.back();
  ways_.pop_back();
  return best;
}

void Growth::open_ways(const Joint* person, int from) {
  // A connection's score is sqrt(association * keypoint), and no association is over 1.
  const float bound = std::sqrt(person[from].score);
  for (const int edge : edges_from_[static_cast<std::size_t>(from)]) {
    if (person[source_of(limbs_, edge ^ 1)].score == 0.0F) {
      push({bound, edge, false, {}});
    }
  }
}

Joint Growth::reach(const Joint& from, int edge, const Associations& associations,
                    const Kernels& kernels) const {
  Joint to = associations.follow(edge, from, kernels);
  to.score = std::sqrt(to.score * from.score);
  if (to.score == 0.0F || to.score < settings_.keypoint_threshold ||
      to.score < settings_.keypoint_ratio * from.score) {
    return {};
  }
  if (settings_.reverse_check) {
    const Joint back = associations.follow(edge ^ 1, to, kernels);
    const float missed = std::fabs(back.x - from.x) + std::fabs(back.y - from.y);
    if (back.score == 0.0F || missed > std::max(from.scale, Associations::kMinScale)) {
      return {};
    }
  }
  return to;
}

const Joint* Growth::grow(const Seed& seed, const Associations& associations,
                          const Kernels& kernels) {
  const auto count = static_cast<std::size_t>(keypoints_);
  joints_.resize(joints_.size() + count);
  means_.push_back(0.0F);
  Joint* person = joints_.data() + joints_.size() - count;
  person[seed.type] = seed.joint;
  ways_.clear();
  open_ways(person, seed.type);
  while (!ways_.empty()) {
    const Way way = pop();
    const int target = source_of(limbs_, way.edge ^ 1);
    if (person[target].score > 0.0F) {
      continue;  // reached on another way
    }
    if (way.known) {
      person[target] = way.joint;
      open_ways(person, target);
      continue;
    }
    const Joint joint = reach(person[source_of(limbs_, way.edge)], way.edge, associations, kernels);
    if (joint.score > 0.0F) {
      push({joint.score, way.edge, true, joint});
    }
  }
  return person;
}

float Growth::mean_score(int person) const noexcept {
  const Joint* joints = joints_of(person);
  float total = 0.0F;
  for (int k = 0; k < keypoints_; ++k) {
    total += joints[k].score;
  }
  return total / static_cast<float>(keypoints_);
}

void Growth::sort_people() {
  for (std::size_t person = 0; person < means_.size(); ++person) {
    means_[person] = mean_score(static_cast<int>(person));
  }
  std::sort(order_.begin(), order_.end(), [this](int a, int b) {
    const float left = means_[static_cast<std::size_t>(a)];
    const float right = means_[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  });
}

void Growth::suppress(const Kernels& kernels) {
  for (std::size_t person = 0; person < means_.size(); ++person) {
    order_.push_back(static_cast<int>(person));
  }
  sort_people();
  for (Occupancy& occupancy : occupancy_) {
    occupancy.clear();
  }
  const auto count = static_cast<std::size_t>(keypoints_);
  for (const int person : order_) {
    Joint* joints = joints_.data() + static_cast<std::size_t>(person) * count;
    for (std::size_t k = 0; k < count; ++k) {
      if (joints[k].score == 0.0F) {
        continue;
      }
      if (occupancy_[k].taken(joints[k].x, joints[k].y, kernels)) {
        joints[k] = {};
        continue;
      }
      occupancy_[k].take(joints[k]);
      if (joints[k].score <= settings_.keypoint_threshold) {
        joints[k] = {};
      }
    }
  }
  sort_people();
}

}  // namespace posewire
