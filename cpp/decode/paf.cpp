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
//   limb_threshold    0.03   lowest field component along the limb that counts as a hit
//   limb_ratio        0.7    share of samples that must be hits
//   samples           10     along a limb, both ends included
//   length_prior      0.5    limbs longer than this share of the map's height lose score
//   max_peaks         96     per keypoint type, the highest
//   min_keypoints     3      of a reported person
//   person_threshold  0.05   lowest mean score over all K keypoints of a reported person
//
// Per limb: every pair of candidates is probed, first at both ends (all b of one a in vectors),
// then at the cells nearest to three points between them; what is left is integrated until too many
// samples have missed. The best pairs are taken greedily, one to one; assembly.h joins them.
//
// Worst case, any input: P = max_peaks per type. Time O(K H W + L P² samples + L P² log P), memory
// O(K H W + L H W + P² + (K² / 64 + L) P), all allocated by make_scratch(): at most P² = 9,216
// pairs a limb by default. A frame allocates nothing once `poses` has grown.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/assembly.h"
#include "decode/field.h"
#include "decode/params.h"
#include "decode/peaks.h"
#include "decode/planes.h"
#include "decode/rows.h"

namespace posewire {
namespace {

struct Settings {
  float score_threshold, limb_threshold, limb_ratio, length_prior, person_threshold;
  int samples, max_peaks, min_keypoints;
};

// A pair of candidates of one limb, by their indices among the peaks of their types.
struct Candidate {
  float score;
  std::int16_t a, b;
};

struct Ranked {
  float score;
  int group;
};

class PafScratch : public Decoder::Scratch {
 public:
  PafScratch(int keypoints, int limbs, int height, int width, int max_peaks)
      : search(height, width, max_peaks),
        peaks(static_cast<std::size_t>(keypoints), Peaks(max_peaks)),
        assembly(keypoints, max_peaks) {
    const std::size_t row = peaks[0].x.size();
    for (std::vector<float>* ends : {&afx, &afy, &bfx, &bfy}) {
      ends->resize(row);
    }
    keep.resize(row);
    candidates.reserve(static_cast<std::size_t>(max_peaks) * static_cast<std::size_t>(max_peaks));
    used_a.resize(row);
    used_b.resize(row);
    connections.reserve(static_cast<std::size_t>(limbs) * static_cast<std::size_t>(max_peaks));
    ranking.reserve(static_cast<std::size_t>(keypoints) * static_cast<std::size_t>(max_peaks));
  }

  std::vector<float> heatmaps, fields;  // only for outputs that are not float32 NCHW
  PeakScratch search;
  std::vector<Peaks> peaks;               // per keypoint type
  std::vector<float> afx, afy, bfx, bfy;  // the limb's field at its candidates
  std::vector<std::uint8_t> keep;         // one a, all b: worth integrating
  std::vector<Candidate> candidates;
  std::vector<std::uint8_t> used_a, used_b;
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
  void check_frame(const std::vector<MapView>& outputs) const;
  float limb_score(const Field& field, const PafScratch& s, const Peaks& a, std::size_t i,
                   const Peaks& b, std::size_t j) const;
  void find_candidates(const Field& field, const Peaks& a, const Peaks& b, PafScratch* s) const;
  void connect(std::size_t limb, const MapView& pafs, PafScratch* s) const;
  void report(PafScratch* s, Poses* poses) const;

  const Kernels& kernels_;
  Settings settings_{};
  int keypoints_ = 0, height_ = 0, width_ = 0, stride_ = 0;
  int heatmap_channels_ = 0;
  int allowed_misses_ = 0;
  float sample_step_ = 0.0F;                   // along a limb, as a share of it
  std::size_t heatmaps_at_ = 0, pafs_at_ = 0;  // indices among the outputs
  std::vector<std::pair<int, int>> limbs_;
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

std::size_t output_named(const Manifest& manifest, const std::string& name) {
  std::string known;
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    if (manifest.outputs[i].name == name) {
      return i;
    }
    known += (known.empty() ? "" : ", ") + manifest.outputs[i].name;
  }
  refuse("outputs", "paf needs an output \"" + name + "\" (there are: " + known + ")");
}

Paf::Paf(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.skeleton.count()),
      heatmaps_at_(output_named(manifest, "heatmaps")),
      pafs_at_(output_named(manifest, "pafs")),
      limbs_(manifest.skeleton.limbs) {
  if (keypoints_ < 1 || keypoints_ > 256 || limbs_.empty() || limbs_.size() > 512) {
    refuse("skeleton", "paf needs 1 … 256 keypoints and 1 … 512 limbs");
  }
  for (std::size_t i = 0; i < limbs_.size(); ++i) {
    const auto [a, b] = limbs_[i];
    if (a < 0 || b < 0 || a >= keypoints_ || b >= keypoints_ || a == b) {
      refuse("skeleton.limbs[" + std::to_string(i) + "]",
             "must join two different keypoints in 0 … " + std::to_string(keypoints_ - 1));
    }
  }
  const OutputSpec& heatmaps = manifest.outputs[heatmaps_at_];
  const OutputSpec& pafs = manifest.outputs[pafs_at_];
  Params params(manifest.decode);
  const bool background = params.boolean("background").value_or(heatmaps.channels > keypoints_);
  settings_.score_threshold = params.number("score_threshold", 0.05F, 1e-6F, 1.0F);
  settings_.limb_threshold = params.number("limb_threshold", 0.03F, 0.0F, 1.0F);
  settings_.limb_ratio = params.number("limb_ratio", 0.7F, 0.0F, 1.0F);
  settings_.length_prior = params.number("length_prior", 0.5F, 0.01F, 100.0F);
  settings_.person_threshold = params.number("person_threshold", 0.05F, 0.0F, 1.0F);
  settings_.samples = params.integer("samples", 10, 2, 64);
  settings_.max_peaks = params.integer("max_peaks", 96, 1, 256);
  settings_.min_keypoints = params.integer("min_keypoints", 3, 1, 256);
  params.done();
  allowed_misses_ =
      settings_.samples -
      static_cast<int>(std::ceil(settings_.limb_ratio * static_cast<float>(settings_.samples)));
  sample_step_ = 1.0F / static_cast<float>(settings_.samples - 1);
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
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void Paf::check_frame(const std::vector<MapView>& outputs) const {
  const auto fits = [this, &outputs](std::size_t at, int channels) {
    return at < outputs.size() && outputs[at].data != nullptr && outputs[at].height == height_ &&
           outputs[at].width == width_ && outputs[at].channels == channels;
  };
  if (!fits(heatmaps_at_, heatmap_channels_) ||
      !fits(pafs_at_, 2 * static_cast<int>(limbs_.size()))) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
}

// A field is made of unit vectors: what a network puts beyond, and NaN, must not outvote the rest.
float bounded(float dot) {
  return dot > -1.0F ? std::min(dot, 1.0F) : -1.0F;  // NaN: -1
}

constexpr int kNearHits = 2;

// Mean of the field's component along a -> b plus the length prior; not over 0: no limb.
float Paf::limb_score(const Field& field, const PafScratch& s, const Peaks& a, std::size_t i,
                      const Peaks& b, std::size_t j) const {
  const float dx = b.x[j] - a.x[i], dy = b.y[j] - a.y[i];
  const float squared = dx * dx + dy * dy;
  const float length = std::sqrt(squared);
  // Three cells between the ends, cheaply and without a branch between them: most pairs end here.
  int near_hits = 0;
  for (const float t : {0.25F, 0.5F, 0.75F}) {
    const Vector here = field.near(a.x[i] + t * dx, a.y[i] + t * dy);
    near_hits += dx * here.x + dy * here.y > settings_.limb_threshold * length ? 1 : 0;
  }
  if (near_hits < kNearHits) {
    return 0.0F;
  }
  const float ux = dx / length, uy = dy / length;
  const float at_a = bounded(ux * s.afx[i] + uy * s.afy[i]);
  const float at_b = bounded(ux * s.bfx[j] + uy * s.bfy[j]);
  float sum = at_a + at_b;
  int misses =
      (at_a > settings_.limb_threshold ? 0 : 1) + (at_b > settings_.limb_threshold ? 0 : 1);
  for (int k = 1; k < settings_.samples - 1; ++k) {
    const float t = static_cast<float>(k) * sample_step_;
    const Vector here = field.at(a.x[i] + t * dx, a.y[i] + t * dy);
    const float dot = bounded(ux * here.x + uy * here.y);
    sum += dot;
    misses += dot > settings_.limb_threshold ? 0 : 1;
    if (misses > allowed_misses_) {
      return 0.0F;
    }
  }
  if (misses > allowed_misses_) {
    return 0.0F;
  }
  const float free_length = settings_.length_prior * static_cast<float>(height_);
  const float prior = length > free_length ? free_length / length - 1.0F : 0.0F;
  return sum / static_cast<float>(settings_.samples) + prior;
}

// Fills `candidates` with the pairs that may be limbs, best first.
void Paf::find_candidates(const Field& field, const Peaks& a, const Peaks& b, PafScratch* s) const {
  s->candidates.clear();
  for (int i = 0; i < a.count; ++i) {
    const auto from = static_cast<std::size_t>(i);
    kernels_.probe(a.x[from], a.y[from], s->afx[from], s->afy[from], b.x.data(), b.y.data(),
                   s->bfx.data(), s->bfy.data(), b.count, s->keep.data());
    for (int j = 0; j < b.count; ++j) {
      const auto to = static_cast<std::size_t>(j);
      if (s->keep[to] == 0) {
        continue;
      }
      const float score = limb_score(field, *s, a, from, b, to);
      if (score > 0.0F) {
        s->candidates.push_back(
            {score, static_cast<std::int16_t>(i), static_cast<std::int16_t>(j)});
      }
    }
  }
  std::sort(s->candidates.begin(), s->candidates.end(),
            [](const Candidate& left, const Candidate& right) {
              return left.score != right.score ? left.score > right.score
                     : left.a != right.a       ? left.a < right.a
                                               : left.b < right.b;
            });
}

void sample_at(const Field& field, const Peaks& peaks, std::vector<float>* x,
               std::vector<float>* y) {
  for (int i = 0; i < peaks.count; ++i) {
    const auto n = static_cast<std::size_t>(i);
    const Vector here = field.at(peaks.x[n], peaks.y[n]);
    (*x)[n] = here.x;
    (*y)[n] = here.y;
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
  const Field field(pafs, static_cast<int>(2 * limb));
  sample_at(field, a, &s->afx, &s->afy);
  sample_at(field, b, &s->bfx, &s->bfy);
  find_candidates(field, a, b, s);
  std::fill(s->used_a.begin(), s->used_a.end(), std::uint8_t{0});
  std::fill(s->used_b.begin(), s->used_b.end(), std::uint8_t{0});
  for (const Candidate& candidate : s->candidates) {
    std::uint8_t& used_a = s->used_a[static_cast<std::size_t>(candidate.a)];
    std::uint8_t& used_b = s->used_b[static_cast<std::size_t>(candidate.b)];
    if (used_a == 0 && used_b == 0) {
      used_a = used_b = 1;
      s->connections.push_back({candidate.score, type_a * settings_.max_peaks + candidate.a,
                                type_b * settings_.max_peaks + candidate.b});
    }
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
    find_peaks(heatmaps, k, settings_.score_threshold, settings_.max_peaks, kernels_, &s->search,
               &s->peaks[static_cast<std::size_t>(k)]);
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
