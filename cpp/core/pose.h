// SPDX-License-Identifier: Apache-2.0
// What decoders return. Index coordinates: the centre of the first pixel is (0, 0).
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace posewire {

struct Keypoint {
  float x = 0.0F, y = 0.0F;  // pixels of the network's input, or of the frame after mapping back
  float score = 0.0F;        // 0 … 1; 0 means absent and then x = y = 0
};

// People of one frame, flat: person p's keypoints are [p * keypoints_per_person, …). Reused between
// frames: clear() keeps the memory, so the steady state does not allocate.
class Poses {
 public:
  void clear(int keypoints_per_person) noexcept {
    keypoints_per_person_ = keypoints_per_person;
    scores_.clear();
    keypoints_.clear();
  }
  // Adds a person whose keypoints are all absent; the pointer holds until the next add().
  Keypoint* add(float score) {
    scores_.push_back(score);
    keypoints_.resize(keypoints_.size() + static_cast<std::size_t>(keypoints_per_person_));
    return keypoints_of(size() - 1);
  }

  // Keeps the people for whom keep(person) is true, in their order. Moves, never allocates.
  template <class Keep>
  void keep_if(Keep keep) {
    const auto k = static_cast<std::size_t>(keypoints_per_person_);
    std::size_t kept = 0;
    for (std::size_t p = 0; p < scores_.size(); ++p) {
      if (keep(static_cast<int>(p))) {
        scores_[kept] = scores_[p];
        std::copy_n(keypoints_.begin() + static_cast<std::ptrdiff_t>(p * k), k,
                    keypoints_.begin() + static_cast<std::ptrdiff_t>(kept * k));
        ++kept;
      }
    }
    scores_.resize(kept);
    keypoints_.resize(kept * k);
  }

  int size() const noexcept { return static_cast<int>(scores_.size()); }
  int keypoints_per_person() const noexcept { return keypoints_per_person_; }
  float score(int person) const noexcept { return scores_[static_cast<std::size_t>(person)]; }
  Keypoint* keypoints_of(int person) noexcept {
    return keypoints_.data() + static_cast<std::size_t>(person * keypoints_per_person_);
  }
  const Keypoint* keypoints_of(int person) const noexcept {
    return keypoints_.data() + static_cast<std::size_t>(person * keypoints_per_person_);
  }

 private:
  int keypoints_per_person_ = 0;
  std::vector<float> scores_;  // mean keypoint score over all K, an absent one counting 0
  std::vector<Keypoint> keypoints_;
};

}  // namespace posewire
