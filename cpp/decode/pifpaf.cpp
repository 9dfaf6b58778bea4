// SPDX-License-Identifier: Apache-2.0
// Composite fields: Kreiss, Bertoni, Alahi, "PifPaf: Composite Fields for Human Pose Estimation"
// (CVPR 2019) and "OpenPifPaf: Composite Fields for Semantic Keypoint Detection and
// Spatio-Temporal Association" (arXiv 2103.02440), sections 3.3 and 3.4.
//
// Outputs, as the heads of OpenPifPaf 0.12 and 0.13 export them (field by field; activations and
// the cell's own index are inside the network; b, the width of the loss, is not read):
//   cif  5 K channels: 5 k … 5 k + 4 are b, confidence, x, y, scale of keypoint k
//   caf  8 L channels: 8 l … 8 l + 7 are b, confidence, x1, y1, x2, y2, scale1, scale2 of limb l
// or with 9 L channels in the order of earlier heads and of the training targets:
//   cif  5 K: confidence, x, y, b, scale     caf  9 L: confidence, x1, y1, x2, y2, b1, b2, scale1,
//   scale2
// Confidences are 0 … 1; x, y are positions in the map, in cells (cell i's centre is i), scales
// two sigmas of the keypoint, in cells. Both have one stride.
//
// Parameters (manifest "decode"; every one optional):
//   relative            false  x, y are offsets from their own cell (what int8 outputs need)
//   origin_px           (s-1)/2  network pixel of cell 0's centre; 0 for OpenPifPaf's own networks
//   cif_threshold       0.3    lowest confidence of a cell that adds to the accumulated confidence
//   caf_threshold       0.3    lowest rescored confidence of an association
//   seed_threshold      0.2    lowest score of a seed
//   keypoint_threshold  0.15   lowest score of a keypoint
//   keypoint_ratio      0.5    … as a share of the keypoint's that it was reached from
//   person_threshold    0.15   lowest mean score over all K keypoints of a reported person
//   min_keypoints       1      of a reported person
//   reverse_check       true   the way back along a limb must lead where the way came from
//   max_cells           1024   per field, the highest confidences
//   max_people          256    grown in a frame, from the best seeds
//
// Steps: active cells of every field; per keypoint type the accumulated confidence (intensity.h) at
// its cells, which are the seeds (0.9 accumulated + 0.1 own), and at the ends of the limbs' cells
// (association.h); people grown from the seeds, best first, and suppressed (growth.h).
//
// Worst case, any input, with C = max_cells, P = max_people, and B = C + 8 min(C, buckets), at most
// 64 x 64 buckets: at most C cells a field in B places (composite.h), K C seeds and P people. Time
// O((K + L) H W + (K + L) B² + P L B + K B P), memory O(H W + (K + L) B + P K), all allocated by
// make_scratch() (a copy of the confidences excepted: on the first frame).
#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/association.h"
#include "decode/composite.h"
#include "decode/growth.h"
#include "decode/intensity.h"
#include "decode/outputs.h"
#include "decode/params.h"
#include "decode/rows.h"

namespace posewire {
namespace {

struct Settings {
  float origin_px, cif_threshold, caf_threshold, seed_threshold, person_threshold;
  int min_keypoints, max_cells;
  Growth::Settings growth;
};

class PifPafScratch : public Decoder::Scratch {
 public:
  PifPafScratch(int keypoints, const std::vector<std::pair<int, int>>& limbs, int height, int width,
                const Settings& settings)
      : cif(height, width, settings.max_cells),
        caf(height, width, settings.max_cells),
        room(CompositeCells::room(cif.buckets, settings.max_cells)),
        cells(1, static_cast<std::size_t>(keypoints), room),
        seeds(cells.confidence.size()),
        intensity(room),
        associations(limbs, room),
        growth(keypoints, limbs, settings.growth) {}

  CompositeFields::Scratch cif, caf;
  std::size_t room;  // of one field
  CompositeCells cells;
  std::vector<float> seeds;  // scores of the cells as seeds; 0: it is none, or somebody has it
  Intensity intensity;
  Associations associations;
  Growth growth;
};

class PifPaf : public Decoder {
 public:
  PifPaf(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<PifPafScratch>(keypoints_, limbs_, height_, width_, settings_);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void read_parameters(const Manifest& manifest, int stride);
  void check_frame(const std::vector<MapView>& outputs) const;
  void find_seeds(const CompositeFields& fields, int type, PifPafScratch* s) const;
  void grow_all(PifPafScratch* s) const;
  void report(PifPafScratch* s, Poses* poses) const;

  const Kernels& kernels_;
  Settings settings_{};
  int keypoints_ = 0, height_ = 0, width_ = 0, stride_ = 0;
  std::size_t cif_at_ = 0, caf_at_ = 0;  // indices among the outputs
  CompositeOrder cif_order_, caf_order_;
  std::vector<std::pair<int, int>> limbs_;
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

PifPaf::PifPaf(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.skeleton.count()),
      cif_at_(output_named(manifest, "pifpaf", "cif")),
      caf_at_(output_named(manifest, "pifpaf", "caf")),
      limbs_(manifest.skeleton.limbs) {
  refuse_other_outputs(manifest, "pifpaf", {"cif", "caf"});
  require_limbs(manifest.skeleton, "pifpaf");
  const OutputSpec& cif = manifest.outputs[cif_at_];
  const OutputSpec& caf = manifest.outputs[caf_at_];
  const int limbs = static_cast<int>(limbs_.size());
  const auto per_limb = caf.channels % limbs == 0 ? caf.channels / limbs : 0;
  if (per_limb != 8 && per_limb != 9) {
    refuse("outputs.caf.channels", "is " + std::to_string(caf.channels) + ", but " +
                                       std::to_string(limbs) + " limbs need " +
                                       std::to_string(8 * limbs) + ", or " +
                                       std::to_string(9 * limbs) + " with the confidence first");
  }
  if (cif.channels != 5 * keypoints_) {
    refuse("outputs.cif.channels", "is " + std::to_string(cif.channels) + ", but " +
                                       std::to_string(keypoints_) + " keypoints need " +
                                       std::to_string(5 * keypoints_));
  }
  if (per_limb == 8) {
    cif_order_ = {5, 1, 1, 2, 4, false};
    caf_order_ = {8, 2, 1, 2, 6, false};
  } else {
    cif_order_ = {5, 1, 0, 1, 4, false};
    caf_order_ = {9, 2, 0, 1, 7, false};
  }
  stride_ = cif.stride;
  if (stride_ < 1 || caf.stride != stride_) {
    refuse("outputs.caf.stride", "must be cif's (" + std::to_string(stride_) + "), and a map's");
  }
  // Rounded up: convolutions with "same" padding, and OpenPifPaf's inputs of 8 n + 1 pixels.
  width_ = (manifest.input_width + stride_ - 1) / stride_;
  height_ = (manifest.input_height + stride_ - 1) / stride_;
  if (width_ < 1 || height_ < 1 || width_ > 4096 || height_ > 4096) {
    refuse("input", "gives maps of " + std::to_string(width_) + " x " + std::to_string(height_) +
                        " cells; pifpaf needs 1 … 4096 each way");
  }
  read_parameters(manifest, stride_);
}

void PifPaf::read_parameters(const Manifest& manifest, int stride) {
  Params params(manifest.decode);
  const auto pixels = static_cast<float>(stride);
  cif_order_.relative = caf_order_.relative = params.boolean("relative").value_or(false);
  settings_.origin_px = params.number("origin_px", 0.5F * (pixels - 1.0F), 0.0F, pixels);
  settings_.cif_threshold = params.number("cif_threshold", 0.3F, 0.01F, 1.0F);
  settings_.caf_threshold = params.number("caf_threshold", 0.3F, 0.01F, 1.0F);
  settings_.seed_threshold = params.number("seed_threshold", 0.2F, 0.01F, 1.0F);
  settings_.person_threshold = params.number("person_threshold", 0.15F, 0.0F, 1.0F);
  settings_.min_keypoints = params.integer("min_keypoints", 1, 1, 256);
  settings_.max_cells = params.integer("max_cells", 1024, 16, 4096);
  settings_.growth.keypoint_threshold = params.number("keypoint_threshold", 0.15F, 0.0F, 1.0F);
  settings_.growth.keypoint_ratio = params.number("keypoint_ratio", 0.5F, 0.0F, 1.0F);
  settings_.growth.reverse_check = params.boolean("reverse_check").value_or(true);
  settings_.growth.max_people = params.integer("max_people", 256, 1, 1024);
  params.done();
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void PifPaf::check_frame(const std::vector<MapView>& outputs) const {
  const auto fits = [this, &outputs](std::size_t at, int channels) {
    return at < outputs.size() && outputs[at].data != nullptr && outputs[at].height == height_ &&
           outputs[at].width == width_ && outputs[at].channels == channels;
  };
  if (!fits(cif_at_, cif_order_.channels * keypoints_) ||
      !fits(caf_at_, caf_order_.channels * static_cast<int>(limbs_.size()))) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
}

// The accumulated confidence of one type, at its own cells and at its limbs' ends.
void PifPaf::find_seeds(const CompositeFields& fields, int type, PifPafScratch* s) const {
  CompositeCells& cells = s->cells;
  fields.append(type, &cells);
  const auto field = static_cast<std::size_t>(type), first = cells.first[field];
  s->intensity.set(cells, field, settings_.cif_threshold, kernels_);
  s->associations.weigh(type, s->intensity, kernels_);
  float* seeds = s->seeds.data() + first;
  s->intensity.at(cells.x[0].data() + first, cells.y[0].data() + first,
                  cells.boxes[0].data() + cells.box_of(field), cells.count(field), kernels_, seeds);
  const float* confidence = cells.confidence.data() + first;
  const float threshold = settings_.seed_threshold;
  for (std::size_t i = 0; i < cells.first[field + 1] - first; ++i) {
    const float score = 0.9F * seeds[i] + 0.1F * confidence[i];
    seeds[i] = std::min(score, confidence[i]) > threshold ? score : 0.0F;
  }
}

// People from the seeds, best first (equal ones: the first), but not where one of them has that
// keypoint already. There are few people and many seeds: looking for the best one every time is
// less work than sorting them.
void PifPaf::grow_all(PifPafScratch* s) const {
  const CompositeCells& cells = s->cells;
  const auto count = static_cast<int>(cells.first.back());
  s->growth.clear();
  while (!s->growth.full()) {
    float score = 0.0F;
    const auto best = static_cast<std::size_t>(kernels_.maximum(s->seeds.data(), count, &score));
    if (!(score > 0.0F)) {
      return;
    }
    const auto after = std::upper_bound(cells.first.begin(), cells.first.end(), best);
    const int type = static_cast<int>(after - cells.first.begin()) - 1;
    s->seeds[best] = 0.0F;
    const Joint seed = {score, cells.x[0][best], cells.y[0][best], cells.scale[0][best]};
    const Joint* person = s->growth.grow({seed, type}, s->associations, kernels_);
    for (std::size_t k = 0; k < static_cast<std::size_t>(keypoints_); ++k) {
      if (person[k].score > 0.0F) {
        const std::size_t first = cells.first[k];
        kernels_.clear_square(cells.x[0].data() + first, cells.y[0].data() + first, cells.count(k),
                              person[k].x, person[k].y, Occupancy::reach_of(person[k]),
                              s->seeds.data() + first);
      }
    }
  }
}

// People with enough keypoints and score, best first.
void PifPaf::report(PifPafScratch* s, Poses* poses) const {
  const auto scale = static_cast<float>(stride_);
  for (const int person : s->growth.order()) {
    const Joint* joints = s->growth.joints_of(person);
    const auto there = std::count_if(joints, joints + keypoints_,
                                     [](const Joint& joint) { return joint.score > 0.0F; });
    const float score = s->growth.mean_score(person);
    if (there < settings_.min_keypoints || score < settings_.person_threshold) {
      continue;
    }
    Keypoint* keypoints = poses->add(score);
    for (int k = 0; k < keypoints_; ++k) {
      if (joints[k].score > 0.0F) {
        keypoints[k] = {joints[k].x * scale + settings_.origin_px,
                        joints[k].y * scale + settings_.origin_px, joints[k].score};
      }
    }
  }
}

void PifPaf::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  check_frame(outputs);
  auto* s = static_cast<PifPafScratch*>(scratch);
  s->associations.read(CompositeFields(outputs[caf_at_], caf_order_,
                                       {settings_.caf_threshold, settings_.max_cells}, kernels_,
                                       &s->caf));
  const CompositeFields cif(
      outputs[cif_at_], cif_order_,
      {std::min(settings_.cif_threshold, settings_.seed_threshold), settings_.max_cells}, kernels_,
      &s->cif);
  for (int type = 0; type < keypoints_; ++type) {
    find_seeds(cif, type, s);
  }
  s->associations.score(settings_.caf_threshold);
  grow_all(s);
  s->growth.suppress(kernels_);
  report(s, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_pifpaf(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<PifPaf>(manifest, kernels);
}

}  // namespace posewire
