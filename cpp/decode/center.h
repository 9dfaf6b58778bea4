// SPDX-License-Identifier: Apache-2.0
// What the two forms of the row `center` share (center.cpp describes them): a frame's people as
// they are kept, best detection first, and their report.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle/manifest.h"
#include "core/pose.h"
#include "decode/decoder.h"
#include "decode/kernels.h"
#include "decode/oks_nms.h"
#include "decode/params.h"

namespace posewire {

// Parameters of both forms; center.cpp has the table.
struct CenterSettings {
  float score_threshold, keypoint_threshold, person_threshold, nms_oks;
  int max_people;
};

// A frame's kept people in the order of their detections. Sized once.
class KeptPeople {
 public:
  KeptPeople(int keypoints, int max_people);

  void clear() noexcept { count_ = 0; }
  bool full() const noexcept { return count_ == most_; }
  int count() const noexcept { return count_; }

  // Where the next candidate's K keypoints go; all absent. Not to be called when full.
  Keypoint* next() noexcept;
  // Whether the candidate in next() repeats a kept pose.
  bool repeats(const OksNms& nms) noexcept;
  // Keeps the candidate in next() unless it has no keypoint or repeats a kept pose; whether it did.
  bool keep(const OksNms& nms) noexcept;
  // The kept people whose mean keypoint score reaches the threshold, best first.
  void report(float person_threshold, Poses* poses);

 private:
  struct Ranked {
    float score;
    int person;
  };
  Keypoint* at(int person) noexcept {
    return people_.data() + static_cast<std::size_t>(person) * static_cast<std::size_t>(keypoints_);
  }

  int keypoints_, most_, count_ = 0;
  std::vector<Keypoint> people_;
  std::vector<float> areas_;
  std::vector<Ranked> ranking_;
};

// A keypoint in network pixels, or an absent one where the score is under the threshold or the
// place is further out than one input's size (or not finite).
class KeypointRules {
 public:
  KeypointRules(const Manifest& manifest, float threshold);
  Keypoint operator()(float x, float y, float score) const noexcept;

 private:
  float width_, height_, threshold_;
};

CenterSettings read_center_settings(Params* params);

// Throws Error(kBundle).
[[noreturn]] void refuse_center(const std::string& where, const std::string& what);

std::unique_ptr<Decoder> open_center_grid(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_center_rows(const Manifest& manifest, const Kernels& kernels);

}  // namespace posewire
