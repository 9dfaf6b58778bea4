// SPDX-License-Identifier: Apache-2.0
// People grown from seeds along the association fields, greedily and best connection first, and
// the suppression of keypoints that two people claim (Kreiss et al. 2019, section 3.4; 2021, 3.4).
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "decode/association.h"
#include "decode/kernels.h"

namespace posewire {

struct Seed {
  Joint joint;
  int type = 0;
};

// The squares around the keypoints of one type that are taken.
class Occupancy {
 public:
  explicit Occupancy(int max_people);

  void clear() noexcept { count_ = 0; }
  void take(const Joint& joint);
  // Half the side of the square around a keypoint, cells.
  static float reach_of(const Joint& joint) noexcept { return std::max(joint.scale, kMinTaken); }
  bool taken(float x, float y, const Kernels& kernels) const {
    return kernels.in_any_square(x_.data(), y_.data(), reach_.data(), count_, x, y);
  }

 private:
  static constexpr float kMinTaken = 0.5F;

  int count_ = 0;
  std::vector<float> x_, y_, reach_;  // padded to kLanes with a negative reach
};

class Growth {
 public:
  struct Settings {
    float keypoint_threshold;  // lowest score of a keypoint
    float keypoint_ratio;      // … as a share of the one that it was reached from
    bool reverse_check;        // the way back must lead where the way came from
    int max_people;            // grown in a frame
  };

  Growth(int keypoints, std::vector<std::pair<int, int>> limbs, const Settings& settings);

  // Per frame: clear, grow seeds best first until full() (max_people), suppress.
  void clear() noexcept;
  bool full() const noexcept {
    return means_.size() == static_cast<std::size_t>(settings_.max_people);
  }
  // The person's keypoints, until the next call.
  const Joint* grow(const Seed& seed, const Associations& associations, const Kernels& kernels);
  // Of two people's keypoints in one place the better person's stays; those below the threshold
  // go. Afterwards order() has all people, the best mean score first.
  void suppress(const Kernels& kernels);

  const std::vector<int>& order() const noexcept { return order_; }
  const Joint* joints_of(int person) const noexcept {
    return joints_.data() + static_cast<std::size_t>(person) * static_cast<std::size_t>(keypoints_);
  }
  float mean_score(int person) const noexcept;

 private:
  // A way to a keypoint that is still absent. Not `known`: an upper bound of its score stands for
  // it until it is the best of all and worth following.
  struct Way {
    float score = 0.0F;
    int edge = 0;
    bool known = false;
    Joint joint;
  };
  static bool worse(const Way& a, const Way& b) noexcept;
  void push(const Way& way);
  Way pop();
  void open_ways(const Joint* person, int from);
  Joint reach(const Joint& from, int edge, const Associations& associations,
              const Kernels& kernels) const;
  void sort_people();

  int keypoints_;
  std::vector<std::pair<int, int>> limbs_;
  Settings settings_;
  std::vector<std::vector<int>> edges_from_;  // per keypoint
  std::vector<Way> ways_;                     // a heap
  std::vector<Occupancy> occupancy_;          // per keypoint type
  std::vector<Joint> joints_;                 // person by person
  std::vector<float> means_;
  std::vector<int> order_;
};

}  // namespace posewire
