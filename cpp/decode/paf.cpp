// SPDX-License-Identifier: Apache-2.0
// Part affinity fields: Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity
// Fields" (CVPR 2017), sections 2.2 to 2.4; sub-cell peaks at native stride instead of upsampling.
//
// Outputs  heatmaps  K channels, or K + 1 with the background last (not read)
//          pafs      2 L channels: 2i, 2i + 1 are x, y of limb i, from its first keypoint to its
//                    second; unit vectors on the limb, 0 elsewhere
// Both have one stride; cell i's centre is network pixel s * i + (s - 1) / 2.
//
// Parameters (manifest "decode"; every one optional):
//   background        bool   whether heatmaps' last channel is the background; from its count
//   score_threshold   0.05   lowest heatmap value of a keypoint
//   noise_margin      4      it is also over so many standard deviations of the map's white noise
//   limb_threshold    0.03   lowest field component along the limb that counts as a hit
//   limb_ratio        0.7    share of samples that must be hits
//   samples           10     along a limb, both ends included
//   length_prior      0.5    limbs longer than this share of the map's height lose score
//   max_peaks         96     per keypoint type, the highest
//   min_keypoints     3      of a reported person
//   person_threshold  0.05   lowest mean score over all K keypoints of a reported person
//
// Per limb: every pair of candidates is probed, first at both ends, then at the cells nearest to
// three points between them; what is left is integrated (limbs.inc, eight at a time). The best
// pairs are taken greedily, one to one (matching.h); assembly.h joins them.
//
// Worst case, any input: P = max_peaks per type. Time O(K H W + L P² samples + L P² log P), memory
// O(K H W + L H W + P² + (K² / 64 + L) P), all allocated by make_scratch(): at most P² = 9,216
// pairs a limb by default. A frame allocates nothing once `poses` has grown.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "decode/assembly.h"
#include "decode/matching.h"
#include "decode/outputs.h"
#include "decode/params.h"
#include "decode/peaks.h"
#include "decode/planes.h"
#include "decode/rows.h"

namespace posewire {
namespace {

struct Settings {
  float score_threshold, noise_margin, limb_threshold, limb_ratio, length_prior, person_threshold;
  int samples, max_peaks, min_keypoints;
};

struct Ranked {
  float score;
  int group;
};

// Memory of LimbEnds.
struct Ends {
  explicit Ends(int max_peaks) : values(4 * padded(max_peaks)) {}
  LimbEnds view() {
    const std::size_t row = values.size() / 4;
    float* x = values.data();
    return {x, x + row, x + 2 * row, x + 3 * row};
  }
  std::vector<float> values;
};

class PafScratch : public Decoder::Scratch {
 public:
  PafScratch(int keypoints, int limbs, int height, int width, int max_peaks)
      : search(height, width, max_peaks),
        peaks(static_cast<std::size_t>(keypoints), Peaks(max_peaks)),
        a(max_peaks),
        b(max_peaks),
        matching(max_peaks),
        assembly(keypoints, max_peaks, limbs * max_peaks) {
    const std::size_t square =
        static_cast<std::size_t>(max_peaks) * static_cast<std::size_t>(max_peaks);
    candidates.resize(square + 1);
    connections.reserve(static_cast<std::size_t>(limbs) * static_cast<std::size_t>(max_peaks));
    ranking.reserve(static_cast<std::size_t>(keypoints) * static_cast<std::size_t>(max_peaks));
  }

  std::vector<float> heatmaps, fields;  // only for outputs that are not float32 NCHW
  PeakScratch search;
  std::vector<Peaks> peaks;  // per keypoint type
  Ends a, b;                 // of the limb at hand
  std::vector<LimbPair> candidates;
  Matching matching;
  std::vector<Connection> connections;
  Assembly assembly;
  std::vector<Ranked> ranking;
};

class Paf : public Decoder {
 public:
  Paf(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<PafScratch>(keypoints_, static_cast<int>(limbs_.size()), height_,
                                        width_, settings_.max_peaks);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void set_rules();
  void check_frame(const std::vector<MapView>& outputs) const;
  void connect(std::size_t limb, const MapView& pafs, PafScratch* s) const;
  void report(PafScratch* s, Poses* poses) const;

  const Kernels& kernels_;
  Settings settings_{};
  int keypoints_ = 0, height_ = 0, width_ = 0, stride_ = 0;
  int heatmap_channels_ = 0;
  LimbRules rules_{};
  std::vector<float> shares_;                  // rules_'
  std::size_t heatmaps_at_ = 0, pafs_at_ = 0;  // indices among the outputs
  std::vector<std::pair<int, int>> limbs_;
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

Paf::Paf(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.skeleton.count()),
      heatmaps_at_(output_named(manifest, "paf", "heatmaps")),
      pafs_at_(output_named(manifest, "paf", "pafs")),
      limbs_(manifest.skeleton.limbs) {
  refuse_other_outputs(manifest, "paf", {"heatmaps", "pafs"});
  require_limbs(manifest.skeleton, "paf");
  const OutputSpec& heatmaps = manifest.outputs[heatmaps_at_];
  const OutputSpec& pafs = manifest.outputs[pafs_at_];
  Params params(manifest.decode);
  const bool background = params.boolean("background").value_or(heatmaps.channels > keypoints_);
  settings_.score_threshold = params.number("score_threshold", 0.05F, 1e-6F, 1.0F);
  settings_.noise_margin = params.number("noise_margin", 4.0F, 0.0F, 100.0F);
  settings_.limb_threshold = params.number("limb_threshold", 0.03F, 0.0F, 1.0F);
  settings_.limb_ratio = params.number("limb_ratio", 0.7F, 0.0F, 1.0F);
  settings_.length_prior = params.number("length_prior", 0.5F, 0.01F, 100.0F);
  settings_.person_threshold = params.number("person_threshold", 0.05F, 0.0F, 1.0F);
  settings_.samples = params.integer("samples", 10, 2, 64);
  settings_.max_peaks = params.integer("max_peaks", 96, 1, 256);
  settings_.min_keypoints = params.integer("min_keypoints", 3, 1, 256);
  params.done();
  heatmap_channels_ = keypoints_ + (background ? 1 : 0);
  if (heatmaps.channels != heatmap_channels_) {
    refuse("outputs.heatmaps.channels", "is " + std::to_string(heatmaps.channels) +
                                            ", but the skeleton has " + std::to_string(keypoints_) +
                                            " keypoints" + (background ? " and a background" : ""));
  }
  if (pafs.channels != 2 * static_cast<int>(limbs_.size())) {
    refuse("outputs.pafs.channels", "is " + std::to_string(pafs.channels) + ", but " +
                                        std::to_string(limbs_.size()) + " limbs need " +
                                        std::to_string(2 * limbs_.size()));
  }
  stride_ = heatmaps.stride;
  if (stride_ < 1 || pafs.stride != stride_) {
    refuse("outputs.pafs.stride", "must be the heatmaps' (" + std::to_string(stride_) + ")");
  }
  // Rounded up: convolutions with "same" padding.
  width_ = (manifest.input_width + stride_ - 1) / stride_;
  height_ = (manifest.input_height + stride_ - 1) / stride_;
  if (width_ < 2 || height_ < 2 || width_ > 4096 || height_ > 4096) {
    refuse("input", "gives maps of " + std::to_string(width_) + " x " + std::to_string(height_) +
                        " cells; paf needs 2 … 4096 each way");
  }
  set_rules();
}

void Paf::set_rules() {
  const auto samples = static_cast<float>(settings_.samples);
  rules_.threshold = settings_.limb_threshold;
  rules_.least_hits = static_cast<int>(std::ceil(settings_.limb_ratio * samples));
  rules_.samples = samples;
  rules_.inner = settings_.samples - 2;
  rules_.free_length = settings_.length_prior * static_cast<float>(height_);
  shares_.assign(padded(rules_.inner) + kLanes, 1.0F);
  for (int k = 0; k < rules_.inner; ++k) {
    shares_[static_cast<std::size_t>(k)] = static_cast<float>(k + 1) / (samples - 1.0F);
  }
  rules_.shares = shares_.data();
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void Paf::check_frame(const std::vector<MapView>& outputs) const {
  const auto right = [this, &outputs](std::size_t at, int channels) {
    const MapView shape =
        dense_map(nullptr, DType::kFloat32, Layout::kNCHW, channels, height_, width_);
    return at < outputs.size() && fits(outputs[at], shape);
  };
  if (!right(heatmaps_at_, heatmap_channels_) ||
      !right(pafs_at_, 2 * static_cast<int>(limbs_.size()))) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
}

// Appends the connections of one limb.
void Paf::connect(std::size_t limb, const MapView& pafs, PafScratch* s) const {
  const auto [type_a, type_b] = limbs_[limb];
  const Peaks& a = s->peaks[static_cast<std::size_t>(type_a)];
  const Peaks& b = s->peaks[static_cast<std::size_t>(type_b)];
  if (a.count == 0 || b.count == 0) {
    return;
  }
  const float* plane = static_cast<const float*>(pafs.data) +
                       2 * static_cast<std::ptrdiff_t>(limb) * pafs.channel_stride;
  const FieldView field = {plane, plane + pafs.channel_stride, height_, width_};
  kernels_.limb_ends(field, a.x.data(), a.y.data(), a.count, s->a.view());
  kernels_.limb_ends(field, b.x.data(), b.y.data(), b.count, s->b.view());
  int count = kernels_.limb_pairs(field, rules_, s->a.view(), a.count, s->b.view(), b.count,
                                  s->candidates.data());
  count = s->matching.run(s->candidates.data(), count);
  for (int i = 0; i < count; ++i) {
    const LimbPair& pair = s->candidates[static_cast<std::size_t>(i)];
    s->connections.push_back(
        {pair.score, type_a * settings_.max_peaks + pair.a, type_b * settings_.max_peaks + pair.b});
  }
}

// People with enough keypoints and score, best first.
void Paf::report(PafScratch* s, Poses* poses) const {
  const float scale = static_cast<float>(stride_);
  const float shift = 0.5F * (scale - 1.0F);
  const auto peaks_of = [this, s](int node) -> const Peaks& {
    return s->peaks[static_cast<std::size_t>(node / settings_.max_peaks)];
  };
  const auto index_of = [this](int node) {
    return static_cast<std::size_t>(node % settings_.max_peaks);
  };
  const int* nodes = s->assembly.nodes().data();
  const int* starts = s->assembly.starts().data();
  s->ranking.clear();
  for (int g = 0; g < s->assembly.groups(); ++g) {
    float total = 0.0F;
    for (int n = starts[g]; n < starts[g + 1]; ++n) {
      total += peaks_of(nodes[n]).score[index_of(nodes[n])];
    }
    const float score = total / static_cast<float>(keypoints_);
    if (starts[g + 1] - starts[g] >= settings_.min_keypoints &&
        score >= settings_.person_threshold) {
      s->ranking.push_back({score, g});
    }
  }
  std::sort(s->ranking.begin(), s->ranking.end(), [](const Ranked& left, const Ranked& right) {
    return left.score != right.score ? left.score > right.score : left.group < right.group;
  });
  for (const Ranked& ranked : s->ranking) {
    Keypoint* person = poses->add(ranked.score);
    for (int n = starts[ranked.group]; n < starts[ranked.group + 1]; ++n) {
      const Peaks& peaks = peaks_of(nodes[n]);
      const std::size_t index = index_of(nodes[n]);
      person[nodes[n] / settings_.max_peaks] = {peaks.x[index] * scale + shift,
                                                peaks.y[index] * scale + shift, peaks.score[index]};
    }
  }
}

void Paf::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  check_frame(outputs);
  auto* s = static_cast<PafScratch*>(scratch);
  const MapView heatmaps = float_planes(outputs[heatmaps_at_], keypoints_, kernels_, &s->heatmaps);
  const MapView pafs =
      float_planes(outputs[pafs_at_], outputs[pafs_at_].channels, kernels_, &s->fields);
  for (int k = 0; k < keypoints_; ++k) {
    find_peaks(heatmaps, k, settings_.score_threshold, settings_.noise_margin, settings_.max_peaks,
               kernels_, &s->search, &s->peaks[static_cast<std::size_t>(k)]);
  }
  s->connections.clear();
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    connect(limb, pafs, s);
  }
  s->assembly.run(&s->connections);
  report(s, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_paf(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<Paf>(manifest, kernels);
}

}  // namespace posewire
