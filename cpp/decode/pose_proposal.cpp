// SPDX-License-Identifier: Apache-2.0
// Pose Proposal Networks: Sekii, "Pose Proposal Networks" (ECCV 2018), sections 3.1 to 3.3; the
// grid's targets as in HyperPose's port of it.
//
// Outputs, maps of one stride (32), probabilities (sigmoid applied). A kind is a keypoint or the
// person instance, K + 1 in all, the instance last by default:
//   conf   K + 1   that the kind's box has its centre in the cell
//   iou    K + 1   expected overlap of the box with the true one; optional
//   x, y   K + 1   the box's centre in the cell, 0 … 1: pixel stride (column + x)
//   w, h   K + 1   the box's size as a share of the input's width, height
//   edges  81 L    channel 81 l + 9 (dy + 4) + dx + 4: that limb l from this cell ends in the cell
//                  displaced by (dx, dy), each -4 … 4
//
// Parameters (manifest "decode"; every one optional):
//   instance          K      the instance's place among the kinds
//   limbs             pairs  the kinds that each limb of `edges` joins, from the first to the
//                            second; the skeleton's by default (then none ends at the instance)
//   score_threshold   0.1    lowest score of a box
//   edge_threshold    0.05   lowest edge probability of a limb
//   nms_iou           0.3    of two boxes of one kind that overlap more the lower one is dropped
//   max_boxes         128    per kind, the highest
//   min_keypoints     3      of a reported person
//   person_threshold  0.05   lowest mean score over all K keypoints of a reported person
//
// A box scores conf * iou (equation 1), a limb between two boxes score * edge * score (equation 5),
// limbs are matched one to one, best first, and joined by assembly.h: it needs no instance to begin
// with, and a missing keypoint or instance only removes the limbs that end there. A keypoint is its
// box's centre.
//
// Worst case, any input: P = max_boxes per kind. Time O(K H W + (K + L) P² + L P² log P), memory
// O(K H W + K P + P²), all allocated by make_scratch(). A frame allocates nothing once `poses` has
// grown.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "decode/assembly.h"
#include "decode/box.h"
#include "decode/params.h"
#include "decode/planes.h"
#include "decode/rows.h"

namespace posewire {
namespace {

constexpr int kReach = 4;  // cells from a limb's first to its second end, each way
constexpr int kWindow = (2 * kReach + 1) * (2 * kReach + 1);

struct Settings {
  float score_threshold, edge_threshold, nms_iou, person_threshold;
  int max_boxes, min_keypoints;
};

// A cell that may hold a kind's box.
struct Candidate {
  float score;
  int cell;
};

struct Proposal {
  float score, x, y;  // network pixels
  int row, column;
  Box box;
};

// A limb between the proposals a and b of its two kinds.
struct LimbMatch {
  float score;
  std::int16_t a, b;
};

struct Ranked {
  float score;
  int group;
};

bool higher(const Candidate& left, const Candidate& right) {
  return left.score != right.score ? left.score > right.score : left.cell < right.cell;
}

class ProposalScratch : public Decoder::Scratch {
 public:
  ProposalScratch(int kinds, std::size_t limbs, int cells, int max_boxes)
      : candidates(static_cast<std::size_t>(cells)),
        proposals(static_cast<std::size_t>(kinds)),
        assembly(kinds, max_boxes, static_cast<int>(limbs) * max_boxes) {
    const auto most = static_cast<std::size_t>(max_boxes);
    for (std::vector<Proposal>& of_kind : proposals) {
      of_kind.reserve(most);
    }
    matches.reserve(most * most);
    used_a.resize(most);
    used_b.resize(most);
    connections.reserve(limbs * most);
    ranking.reserve(static_cast<std::size_t>(kinds) * most);
  }

  std::vector<float> conf, iou;  // only for outputs that are not float32 NCHW
  std::vector<Candidate> candidates;
  std::vector<std::vector<Proposal>> proposals;  // per kind, best first
  std::vector<LimbMatch> matches;
  std::vector<std::uint8_t> used_a, used_b;
  std::vector<Connection> connections;
  Assembly assembly;
  std::vector<Ranked> ranking;
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

class PoseProposal : public Decoder {
 public:
  PoseProposal(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<ProposalScratch>(kinds_, limbs_.size(), height_ * width_,
                                             settings_.max_boxes);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  enum Output { kConf, kX, kY, kW, kH, kEdges, kIou, kOutputs };
  static constexpr std::array<const char*, kOutputs> kNames = {"conf", "x",     "y",  "w",
                                                               "h",    "edges", "iou"};

  void find_outputs(const Manifest& manifest);
  void read_parameters(const Manifest& manifest);
  void check_outputs(const Manifest& manifest) const;
  void check_frame(const std::vector<MapView>& outputs) const;
  float value(const std::vector<MapView>& outputs, Output output, int channel, int row,
              int column) const;
  int find_candidates(const MapView& conf, const MapView& iou, int kind, ProposalScratch* s) const;
  void propose(const std::vector<MapView>& outputs, int kind, int found, ProposalScratch* s) const;
  void connect(const std::vector<MapView>& outputs, std::size_t limb, ProposalScratch* s) const;
  void report(ProposalScratch* s, Poses* poses) const;
  int channels_of(std::size_t output) const {
    return output == kEdges ? kWindow * static_cast<int>(limbs_.size()) : kinds_;
  }

  const Kernels& kernels_;
  Settings settings_{};
  int keypoints_ = 0, kinds_ = 0, instance_ = 0;
  int height_ = 0, width_ = 0, stride_ = 0;
  float input_width_ = 0.0F, input_height_ = 0.0F;
  std::array<int, kOutputs> at_{};          // indices among the outputs; -1: absent (iou only)
  std::vector<std::pair<int, int>> limbs_;  // of kinds
};

PoseProposal::PoseProposal(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.skeleton.count()),
      kinds_(keypoints_ + 1),
      input_width_(static_cast<float>(manifest.input_width)),
      input_height_(static_cast<float>(manifest.input_height)) {
  if (keypoints_ < 1 || keypoints_ > 256) {
    refuse("skeleton", "pose_proposal needs 1 … 256 keypoints");
  }
  find_outputs(manifest);
  read_parameters(manifest);
  check_outputs(manifest);
  stride_ = manifest.outputs[0].stride;
  // A cell's keypoint may lie anywhere in it: of a larger cell that is outside of every picture.
  if (stride_ > manifest.input_width || stride_ > manifest.input_height) {
    refuse("outputs." + manifest.outputs[0].name + ".stride",
           "is " + std::to_string(stride_) + ", larger than the input (" +
               std::to_string(manifest.input_width) + " x " +
               std::to_string(manifest.input_height) + " pixels)");
  }
  // Rounded up: convolutions with "same" padding.
  width_ = (manifest.input_width + stride_ - 1) / stride_;
  height_ = (manifest.input_height + stride_ - 1) / stride_;
  if (width_ > 1024 || height_ > 1024) {
    refuse("input", "gives maps of " + std::to_string(width_) + " x " + std::to_string(height_) +
                        " cells; pose_proposal takes 1 … 1024 each way");
  }
}

void PoseProposal::find_outputs(const Manifest& manifest) {
  at_.fill(-1);
  std::string known;
  for (const char* name : kNames) {
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    const std::string& name = manifest.outputs[i].name;
    const auto* const found = std::find(kNames.begin(), kNames.end(), name);
    if (found == kNames.end()) {
      refuse("outputs." + name, "is none of pose_proposal's (" + known + ")");
    }
    at_[static_cast<std::size_t>(found - kNames.begin())] = static_cast<int>(i);
  }
  for (std::size_t i = 0; i < kOutputs; ++i) {
    if (at_[i] < 0 && i != kIou) {
      refuse("outputs", "pose_proposal needs an output \"" + std::string(kNames[i]) + "\"");
    }
  }
}

void PoseProposal::read_parameters(const Manifest& manifest) {
  Params params(manifest.decode);
  instance_ = params.integer("instance", keypoints_, 0, keypoints_);
  const auto limbs = params.pairs("limbs", keypoints_);
  settings_.score_threshold = params.number("score_threshold", 0.1F, 1e-6F, 1.0F);
  settings_.edge_threshold = params.number("edge_threshold", 0.05F, 0.0F, 1.0F);
  settings_.nms_iou = params.number("nms_iou", 0.3F, 0.0F, 1.0F);
  settings_.max_boxes = params.integer("max_boxes", 128, 1, 512);
  settings_.min_keypoints = params.integer("min_keypoints", 3, 1, 256);
  settings_.person_threshold = params.number("person_threshold", 0.05F, 0.0F, 1.0F);
  params.done();
  if (limbs) {
    limbs_ = *limbs;
  } else {
    for (const auto& [a, b] : manifest.skeleton.limbs) {
      limbs_.emplace_back(a < instance_ ? a : a + 1, b < instance_ ? b : b + 1);
    }
  }
  if (limbs_.empty() || limbs_.size() > 512) {
    refuse("skeleton.limbs", "pose_proposal needs 1 … 512 limbs");
  }
}

void PoseProposal::check_outputs(const Manifest& manifest) const {
  for (std::size_t i = 0; i < kOutputs; ++i) {
    if (at_[i] < 0) {
      continue;
    }
    const OutputSpec& output = manifest.outputs[static_cast<std::size_t>(at_[i])];
    if (output.channels != channels_of(i)) {
      refuse("outputs." + output.name + ".channels",
             "is " + std::to_string(output.channels) + ", but must be " +
                 std::to_string(channels_of(i)) + " with " + std::to_string(keypoints_) +
                 " keypoints and " + std::to_string(limbs_.size()) + " limbs");
    }
    if (output.stride < 1 || output.stride != manifest.outputs[0].stride) {
      refuse("outputs." + output.name + ".stride",
             "must be that of " + manifest.outputs[0].name + " (" +
                 std::to_string(manifest.outputs[0].stride) + ")");
    }
  }
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void PoseProposal::check_frame(const std::vector<MapView>& outputs) const {
  for (std::size_t i = 0; i < kOutputs; ++i) {
    if (at_[i] < 0) {
      continue;
    }
    const auto at = static_cast<std::size_t>(at_[i]);
    if (at >= outputs.size() || outputs[at].data == nullptr || outputs[at].height != height_ ||
        outputs[at].width != width_ || outputs[at].channels != channels_of(i)) {
      throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
    }
  }
}

float PoseProposal::value(const std::vector<MapView>& outputs, Output output, int channel, int row,
                          int column) const {
  const MapView& view = outputs[static_cast<std::size_t>(at_[output])];
  const std::ptrdiff_t index =
      channel * view.channel_stride + row * view.row_stride + column * view.column_stride;
  return read_value(view, index, kernels_);
}

// Cells of one kind over the threshold, the highest, best first; returns how many. Float32 planes;
// `iou` may have no data.
int PoseProposal::find_candidates(const MapView& conf, const MapView& iou, int kind,
                                  ProposalScratch* s) const {
  Candidate* candidates = s->candidates.data();
  int found = 0;
  for (int y = 0; y < height_; ++y) {
    const float* responsible =
        static_cast<const float*>(conf.data) + kind * conf.channel_stride + y * conf.row_stride;
    const float* overlap = iou.data == nullptr ? nullptr
                                               : static_cast<const float*>(iou.data) +
                                                     kind * iou.channel_stride + y * iou.row_stride;
    for (int x = 0; x < width_; ++x) {
      if (responsible[x] > settings_.score_threshold) {
        const float score = std::min(responsible[x], 1.0F) *
                            (overlap == nullptr ? 1.0F : std::min(overlap[x], 1.0F));
        candidates[found] = {score, y * width_ + x};
        found += score > settings_.score_threshold ? 1 : 0;
      }
    }
  }
  if (found > settings_.max_boxes) {
    std::nth_element(candidates, candidates + settings_.max_boxes, candidates + found, higher);
    found = settings_.max_boxes;
  }
  std::sort(candidates, candidates + found, higher);
  return found;
}

// A share of a cell: 0 … 1; NaN: 0.
float share(float value) { return value > 0.0F ? std::min(value, 1.0F) : 0.0F; }

// Fills the kind's proposals with the candidates' boxes that no better one overlaps.
void PoseProposal::propose(const std::vector<MapView>& outputs, int kind, int found,
                           ProposalScratch* s) const {
  std::vector<Proposal>& kept = s->proposals[static_cast<std::size_t>(kind)];
  kept.clear();
  const float scale = static_cast<float>(stride_);
  for (int i = 0; i < found; ++i) {
    const Candidate& candidate = s->candidates[static_cast<std::size_t>(i)];
    const int row = candidate.cell / width_, column = candidate.cell % width_;
    const float dx = share(value(outputs, kX, kind, row, column));
    const float dy = share(value(outputs, kY, kind, row, column));
    const float x = scale * (static_cast<float>(column) + dx);
    const float y = scale * (static_cast<float>(row) + dy);
    const float half_w = 0.5F * input_width_ * share(value(outputs, kW, kind, row, column));
    const float half_h = 0.5F * input_height_ * share(value(outputs, kH, kind, row, column));
    const Box box{x - half_w, y - half_h, x + half_w, y + half_h};
    if (std::none_of(kept.begin(), kept.end(), [this, &box](const Proposal& better) {
          return iou(better.box, box) > settings_.nms_iou;
        })) {
      kept.push_back({candidate.score, x, y, row, column, box});
    }
  }
}

// Appends the connections of one limb.
void PoseProposal::connect(const std::vector<MapView>& outputs, std::size_t limb,
                           ProposalScratch* s) const {
  const auto [kind_a, kind_b] = limbs_[limb];
  const std::vector<Proposal>& from = s->proposals[static_cast<std::size_t>(kind_a)];
  const std::vector<Proposal>& to = s->proposals[static_cast<std::size_t>(kind_b)];
  s->matches.clear();
  for (std::size_t i = 0; i < from.size(); ++i) {
    for (std::size_t j = 0; j < to.size(); ++j) {
      const int dx = to[j].column - from[i].column, dy = to[j].row - from[i].row;
      if (std::abs(dx) <= kReach && std::abs(dy) <= kReach) {
        s->matches.push_back({0.0F, static_cast<std::int16_t>(i), static_cast<std::int16_t>(j)});
      }
    }
  }
  // Each edge is in a cache line of its own: read without a branch between them, so that the
  // processor waits for many at once.
  for (LimbMatch& match : s->matches) {
    const Proposal& a = from[static_cast<std::size_t>(match.a)];
    const Proposal& b = to[static_cast<std::size_t>(match.b)];
    const int window = (2 * kReach + 1) * (b.row - a.row + kReach) + b.column - a.column + kReach;
    match.score =
        value(outputs, kEdges, kWindow * static_cast<int>(limb) + window, a.row, a.column);
  }
  std::size_t kept = 0;
  for (LimbMatch match : s->matches) {
    if (match.score > settings_.edge_threshold) {
      match.score = from[static_cast<std::size_t>(match.a)].score * std::min(match.score, 1.0F) *
                    to[static_cast<std::size_t>(match.b)].score;
      s->matches[kept] = match;
      kept += match.score > 0.0F ? 1 : 0;  // the product of small ones may be none
    }
  }
  s->matches.resize(kept);
  std::sort(s->matches.begin(), s->matches.end(),
            [](const LimbMatch& left, const LimbMatch& right) {
              return left.score != right.score ? left.score > right.score
                     : left.a != right.a       ? left.a < right.a
                                               : left.b < right.b;
            });
  std::fill(s->used_a.begin(), s->used_a.end(), std::uint8_t{0});
  std::fill(s->used_b.begin(), s->used_b.end(), std::uint8_t{0});
  for (const LimbMatch& match : s->matches) {
    std::uint8_t& used_a = s->used_a[static_cast<std::size_t>(match.a)];
    std::uint8_t& used_b = s->used_b[static_cast<std::size_t>(match.b)];
    if (used_a == 0 && used_b == 0) {
      used_a = used_b = 1;
      s->connections.push_back({match.score, kind_a * settings_.max_boxes + match.a,
                                kind_b * settings_.max_boxes + match.b});
    }
  }
}

// People with enough keypoints and score, best first. The instance is no keypoint.
void PoseProposal::report(ProposalScratch* s, Poses* poses) const {
  const int* nodes = s->assembly.nodes().data();
  const int* starts = s->assembly.starts().data();
  const auto kind_of = [this](int node) { return node / settings_.max_boxes; };
  const auto proposal_of = [this, s, kind_of](int node) -> const Proposal& {
    return s->proposals[static_cast<std::size_t>(kind_of(node))]
                       [static_cast<std::size_t>(node % settings_.max_boxes)];
  };
  s->ranking.clear();
  for (int g = 0; g < s->assembly.groups(); ++g) {
    float total = 0.0F;
    int count = 0;
    for (int n = starts[g]; n < starts[g + 1]; ++n) {
      if (kind_of(nodes[n]) != instance_) {
        total += proposal_of(nodes[n]).score;
        ++count;
      }
    }
    const float score = total / static_cast<float>(keypoints_);
    if (count >= settings_.min_keypoints && score >= settings_.person_threshold) {
      s->ranking.push_back({score, g});
    }
  }
  std::sort(s->ranking.begin(), s->ranking.end(), [](const Ranked& left, const Ranked& right) {
    return left.score != right.score ? left.score > right.score : left.group < right.group;
  });
  for (const Ranked& ranked : s->ranking) {
    Keypoint* person = poses->add(ranked.score);
    for (int n = starts[ranked.group]; n < starts[ranked.group + 1]; ++n) {
      const int kind = kind_of(nodes[n]);
      if (kind != instance_) {
        const Proposal& proposal = proposal_of(nodes[n]);
        person[kind < instance_ ? kind : kind - 1] = {proposal.x, proposal.y, proposal.score};
      }
    }
  }
}

void PoseProposal::decode(const std::vector<MapView>& outputs, Scratch* scratch,
                          Poses* poses) const {
  poses->clear(keypoints_);
  check_frame(outputs);
  auto* s = static_cast<ProposalScratch*>(scratch);
  const auto planes = [this, &outputs](Output output, std::vector<float>* buffer) {
    return float_planes(outputs[static_cast<std::size_t>(at_[output])], kinds_, kernels_, buffer);
  };
  const MapView conf = planes(kConf, &s->conf);
  const MapView overlap = at_[kIou] < 0 ? MapView{} : planes(kIou, &s->iou);
  for (int kind = 0; kind < kinds_; ++kind) {
    propose(outputs, kind, find_candidates(conf, overlap, kind, s), s);
  }
  s->connections.clear();
  for (std::size_t limb = 0; limb < limbs_.size(); ++limb) {
    connect(outputs, limb, s);
  }
  s->assembly.run(&s->connections);
  report(s, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_pose_proposal(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<PoseProposal>(manifest, kernels);
}

}  // namespace posewire
