// SPDX-License-Identifier: Apache-2.0
// One-stage networks: a person is one place of the output that tells all keypoints. Two forms, told
// apart by the outputs' names.
//
// Grids (center_grid.cpp): CenterNet (Zhou et al., "Objects as Points", arXiv 1904.07850, section
// 4.2) and DEKR (Geng et al., CVPR 2021, arXiv 2104.02300).
// Rows (center_rows.cpp): YOLO-pose (Maji et al., arXiv 2204.06806; Ultralytics' exports) and RTMO
// (Lu et al., CVPR 2024, arXiv 2312.07526).
//
// Detectors (mode detector): boxes alone, center_rows.cpp.
//
// Both: candidates over score_threshold by their detection score, best first; one that repeats a
// better one (OKS, oks_nms.h) is dropped; at most max_people are kept. The detection score ranks
// and selects only. A keypoint has its own score where the network gives one (heatmaps, rows), else
// the detection's; a person's score is the mean over all K keypoints (docs/design.md 3.3).
//
// Parameters of both (manifest "decode"; every one optional):
//   score_threshold     0.1    lowest detection score of a candidate
//   keypoint_threshold  0.05   lowest score of a keypoint that is not absent
//   person_threshold    0.05   lowest mean score over all K keypoints of a reported person
//   nms_oks             0.7    a pose this similar to a better one is its duplicate; 1: none is
//   max_people          100    kept people, the best detections
#include "decode/center.h"

#include <algorithm>

#include "core/error.h"
#include "decode/rows.h"

namespace posewire {

void refuse_center(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

CenterSettings read_center_settings(Params* params) {
  CenterSettings settings{};
  settings.score_threshold = params->number("score_threshold", 0.1F, 1e-6F, 1.0F);
  settings.keypoint_threshold = params->number("keypoint_threshold", 0.05F, 0.0F, 1.0F);
  settings.person_threshold = params->number("person_threshold", 0.05F, 0.0F, 1.0F);
  settings.nms_oks = params->number("nms_oks", 0.7F, 0.0F, 1.0F);
  settings.max_people = params->integer("max_people", 100, 1, 1000);
  return settings;
}

KeptPeople::KeptPeople(int keypoints, int max_people)
    : keypoints_(keypoints),
      most_(max_people),
      people_(static_cast<std::size_t>(keypoints) * static_cast<std::size_t>(max_people)),
      areas_(static_cast<std::size_t>(max_people)) {
  ranking_.reserve(areas_.size());
}

Keypoint* KeptPeople::next() noexcept {
  Keypoint* person = at(count_);
  std::fill_n(person, keypoints_, Keypoint{});
  return person;
}

bool KeptPeople::repeats(const OksNms& nms) noexcept {
  for (int better = 0; better < count_; ++better) {
    if (nms.duplicate(at(better), areas_[static_cast<std::size_t>(better)], at(count_))) {
      return true;
    }
  }
  return false;
}

bool KeptPeople::keep(const OksNms& nms) noexcept {
  const Keypoint* person = at(count_);
  if (std::none_of(person, person + keypoints_,
                   [](const Keypoint& point) { return point.score > 0.0F; }) ||
      repeats(nms)) {
    return false;
  }
  areas_[static_cast<std::size_t>(count_++)] = nms.area(person);
  return true;
}

void KeptPeople::report(float person_threshold, Poses* poses) {
  ranking_.clear();
  for (int p = 0; p < count_; ++p) {
    float total = 0.0F;
    for (int k = 0; k < keypoints_; ++k) {
      total += at(p)[k].score;
    }
    const float score = total / static_cast<float>(keypoints_);
    if (score >= person_threshold) {
      ranking_.push_back({score, p});
    }
  }
  std::sort(ranking_.begin(), ranking_.end(), [](const Ranked& left, const Ranked& right) {
    return left.score != right.score ? left.score > right.score : left.person < right.person;
  });
  for (const Ranked& ranked : ranking_) {
    std::copy_n(at(ranked.person), keypoints_, poses->add(ranked.score));
  }
}

KeypointRules::KeypointRules(const Manifest& manifest, float threshold)
    : width_(static_cast<float>(manifest.input_width)),
      height_(static_cast<float>(manifest.input_height)),
      threshold_(threshold) {}

Keypoint KeypointRules::operator()(float x, float y, float score) const noexcept {
  const bool near = x >= -width_ && x <= 2.0F * width_ && y >= -height_ && y <= 2.0F * height_;
  if (!near || !(score >= threshold_) || !(score > 0.0F)) {
    return {};
  }
  return {x, y, std::min(score, 1.0F)};
}

std::unique_ptr<Decoder> open_center(const Manifest& manifest, const Kernels& kernels) {
  const int keypoints = manifest.keypoints();
  if (keypoints < 1 || keypoints > 1024) {
    refuse_center("skeleton", "center needs 1 … 1024 keypoints");
  }
  if (manifest.mode == Mode::kDetector) {
    return open_center_rows(manifest, kernels);
  }
  for (const OutputSpec& output : manifest.outputs) {
    if (output.name == "rows" || output.name == "boxes" || output.name == "keypoints") {
      return open_center_rows(manifest, kernels);
    }
  }
  return open_center_grid(manifest, kernels);
}

}  // namespace posewire
