// SPDX-License-Identifier: Apache-2.0
// Associative embedding: Newell, Huang and Deng, "Associative Embedding: End-to-End Learning for
// Joint Detection and Grouping" (NeurIPS 2017, arXiv 1611.05424), section 3.2; with a second, finer
// heatmap as in Cheng et al., "HigherHRNet" (CVPR 2020, arXiv 1908.10357), section 3.4. Also what
// EfficientHRNet and LitePose give.
//
// Outputs  heatmaps    K channels
//          tags        K channels of the heatmaps' stride, or one that all keypoints share: people
//                      are told apart by it. Read at candidates only, unless `refine`.
//          heatmaps_2  optional: K channels at half the stride
//          Networks of this family that give heatmaps and tags as one array of 2 K channels are
//          exported with the two as outputs of their own.
//
// Parameters (manifest "decode"; every one optional):
//   score_threshold   0.1    a keypoint's heatmap value is over this
//   support           0.6    least mean of a maximum's eight neighbours, as a share of it
//   tag_threshold     1.0    a keypoint's tag is nearer than this to its person's mean
//   max_people        30     also the candidates per keypoint, the highest
//   min_keypoints     3      of a reported person, before `refine`
//   person_threshold  0.05   lowest mean score over all K keypoints of a reported person
//   order             0 … K - 1   in which keypoints are grouped
//   refine            false  look for a person's missing keypoints by its tag
//
// 1. Candidates (blobs.h): maxima of 5 x 5 cells. `support` is ours: white noise of half the
//    threshold has hundreds of maxima over it in a map, but no wide ones.
// 2. With heatmaps_2, maxima of it over half the threshold; a candidate's value is the mean of
//    its own and of the coarse map's there (bilinear), instead of a mean of whole maps.
// 3. Grouping, keypoint by keypoint: each candidate costs 100 round(|tag - person's mean|) - value
//    with each person; the cheapest assignment, exactly (assignment.h). Pairs over tag_threshold
//    are no pairs already there (the original assigns first and then breaks them, which can cost a
//    good pair). Candidates without a person are new people.
// 4. Positions: from 25 cells (blobs.h) instead of a quarter of a cell towards the higher side.
// 5. `refine`: a missing keypoint is the highest value of heatmap - round(|tag - person's mean|),
//    if over 0. On the coarse maps.
//
// Worst case, any input, N = max_people: time O(K (H W + N³)), with `refine` O(K N H W) more;
// memory O(H W + K N + N²) and K planes for every output that is not float32 NCHW. A frame
// allocates nothing once `poses` and those planes have grown.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/assignment.h"
#include "decode/blobs.h"
#include "decode/outputs.h"
#include "decode/params.h"
#include "decode/planes.h"
#include "decode/rows.h"

namespace posewire {
namespace {

constexpr const char* kName = "associative_embedding";
constexpr float kLargestTag = 1e4F;
constexpr std::int16_t kAbsent = -1;

std::size_t at(int index) { return static_cast<std::size_t>(index); }

struct Settings {
  BlobRules rules;  // of the map that candidates are looked for in
  float score_threshold, tag_threshold, person_threshold;
  int max_people, max_groups, min_keypoints;
  bool refine;
};

struct Candidate {
  float score, tag;
  float x, y;  // network pixels
};

struct Ranked {
  float score;
  int group;
};

class EmbeddingScratch : public Decoder::Scratch {
 public:
  EmbeddingScratch(int keypoints, int height, int width, const Settings& settings)
      : search(height, width, settings.max_people),
        blobs(at(settings.max_people)),
        candidates(at(keypoints * (settings.max_people + settings.max_groups))),
        counts(at(keypoints)),
        members(at(keypoints * settings.max_groups)),
        tag_sums(at(settings.max_groups)),
        tags(at(settings.max_groups)),
        sizes(at(settings.max_groups)),
        costs(at(settings.max_people * settings.max_groups)),
        assignment(settings.max_people, settings.max_groups) {
    ranking.reserve(at(settings.max_groups));
  }

  std::vector<float> heatmap_planes, fine_planes, tag_planes;  // not for float32 NCHW
  BlobScratch search;
  std::vector<Blob> blobs;
  // Per keypoint: max_people places for candidates, then one per group for what `refine` finds.
  std::vector<Candidate> candidates;
  std::vector<int> counts;  // candidates per keypoint
  int groups = 0;
  std::vector<std::int16_t> members;  // groups x K: index among the keypoint's candidates
  std::vector<float> tag_sums, tags;  // per group: of its members, and their mean
  std::vector<int> sizes;             // members per group
  std::vector<float> costs;           // candidates x groups
  Assignment assignment;
  std::vector<Ranked> ranking;
};

// A frame's outputs; planes are float32.
struct Frame {
  MapView heatmaps, fine;  // fine: without data if there is no heatmaps_2
  MapView tags;            // as they came; planes with `refine`
};

class AssociativeEmbedding : public Decoder {
 public:
  AssociativeEmbedding(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    const MapView& searched = fine_at_ ? fine_shape_ : shape_;
    return std::make_unique<EmbeddingScratch>(keypoints_, searched.height, searched.width,
                                              settings_);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void read_settings(const Manifest& manifest);
  Frame frame_of(const std::vector<MapView>& outputs, EmbeddingScratch* s) const;
  Candidate* candidates_of(int keypoint, EmbeddingScratch* s) const {
    return s->candidates.data() + keypoint * (settings_.max_people + settings_.max_groups);
  }
  float tag_at(const MapView& tags, int keypoint, int x, int y) const;
  void find_candidates(const Frame& frame, int keypoint, EmbeddingScratch* s) const;
  void group_candidates(int keypoint, EmbeddingScratch* s) const;
  void join(int group, int keypoint, int index, EmbeddingScratch* s) const;
  void refine(const Frame& frame, int group, EmbeddingScratch* s) const;
  void report(const Frame& frame, EmbeddingScratch* s, Poses* poses) const;

  const Kernels& kernels_;
  Settings settings_{};
  int keypoints_ = 0, stride_ = 0;
  std::vector<int> order_;
  std::size_t heatmaps_at_ = 0, tags_at_ = 0;
  std::optional<std::size_t> fine_at_;
  MapView shape_, tags_shape_, fine_shape_;  // without data
};

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kBundle, where, what);
}

AssociativeEmbedding::AssociativeEmbedding(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels), keypoints_(manifest.skeleton.count()) {
  if (keypoints_ < 1 || keypoints_ > 256) {
    refuse("skeleton", std::string(kName) + " needs 1 … 256 keypoints");
  }
  refuse_other_outputs(manifest, kName, {"heatmaps", "tags", "heatmaps_2"});
  heatmaps_at_ = output_named(manifest, kName, "heatmaps");
  tags_at_ = output_named(manifest, kName, "tags");
  fine_at_ = find_output(manifest, "heatmaps_2");
  const auto shape_of = [&manifest](const OutputSpec& output) {
    const MapView shape = frame_shape(manifest, output, DType::kFloat32, Layout::kNCHW);
    if (output.stride < 1 || shape.width < 2 || shape.height < 2 || shape.width > 4096 ||
        shape.height > 4096) {
      refuse("outputs." + output.name, "must be a map of 2 … 4096 cells each way");
    }
    return shape;
  };
  const OutputSpec& heatmaps = manifest.outputs[heatmaps_at_];
  const OutputSpec& tags = manifest.outputs[tags_at_];
  require_channels(heatmaps, keypoints_);
  if (tags.channels != 1) {
    require_channels(tags, keypoints_);
  }
  shape_ = shape_of(heatmaps);
  tags_shape_ = shape_of(tags);
  stride_ = heatmaps.stride;
  if (tags.stride != stride_) {
    refuse("outputs.tags.stride", "must be the heatmaps' (" + std::to_string(stride_) + ")");
  }
  if (fine_at_) {
    const OutputSpec& fine = manifest.outputs[*fine_at_];
    require_channels(fine, keypoints_);
    fine_shape_ = shape_of(fine);
    if (2 * fine.stride != stride_) {
      refuse("outputs.heatmaps_2.stride",
             "must be half the heatmaps' (" + std::to_string(stride_) + ")");
    }
  }
  read_settings(manifest);
}

void AssociativeEmbedding::read_settings(const Manifest& manifest) {
  Params params(manifest.decode);
  settings_.score_threshold = params.number("score_threshold", 0.1F, 1e-6F, 1.0F);
  settings_.rules.support = params.number("support", 0.6F, 0.0F, 1.0F);
  settings_.tag_threshold = params.number("tag_threshold", 1.0F, 1e-3F, 100.0F);
  settings_.max_people = params.integer("max_people", 30, 1, 128);
  settings_.min_keypoints = params.integer("min_keypoints", 3, 1, 256);
  settings_.person_threshold = params.number("person_threshold", 0.05F, 0.0F, 1.0F);
  settings_.refine = params.boolean("refine").value_or(false);
  order_ = params.permutation("order", keypoints_);
  params.done();
  settings_.rules.threshold = (fine_at_ ? 0.5F : 1.0F) * settings_.score_threshold;
  settings_.rules.most = settings_.max_people;
  // Room for as many fragments as people, so that a few of them do not keep people out.
  settings_.max_groups = 2 * settings_.max_people;
}

Frame AssociativeEmbedding::frame_of(const std::vector<MapView>& outputs,
                                     EmbeddingScratch* s) const {
  // The caller promised shapes as they were opened; a wrong one would read foreign memory.
  const auto right = [&outputs](std::size_t index, const MapView& shape) {
    return index < outputs.size() && fits(outputs[index], shape);
  };
  if (!right(heatmaps_at_, shape_) || !right(tags_at_, tags_shape_) ||
      (fine_at_ && !right(*fine_at_, fine_shape_))) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
  Frame frame;
  frame.heatmaps = float_planes(outputs[heatmaps_at_], keypoints_, kernels_, &s->heatmap_planes);
  frame.tags = outputs[tags_at_];
  if (settings_.refine) {
    frame.tags = float_planes(frame.tags, frame.tags.channels, kernels_, &s->tag_planes);
  }
  if (fine_at_) {
    frame.fine = float_planes(outputs[*fine_at_], keypoints_, kernels_, &s->fine_planes);
  }
  return frame;
}

int tag_channel(const MapView& tags, int keypoint) { return tags.channels == 1 ? 0 : keypoint; }

float AssociativeEmbedding::tag_at(const MapView& tags, int keypoint, int x, int y) const {
  float tag = 0.0F;
  read_values(tags,
              tag_channel(tags, keypoint) * tags.channel_stride + y * tags.row_stride +
                  x * tags.column_stride,
              1, 1, kernels_, &tag);
  return tag;
}

Candidate candidate_of(const Blob& blob, float score, float tag, int stride) {
  const auto scale = static_cast<float>(stride);
  const float shift = 0.5F * (scale - 1.0F);
  return {score, tag, blob.x * scale + shift, blob.y * scale + shift};
}

// The coarse map's value at the centre of cell (x, y) of one with half the stride, bilinearly:
// that is at (x / 2 - 1 / 4, y / 2 - 1 / 4), in cells.
float coarse_value(const MapView& maps, int channel, int x, int y) {
  const auto* plane = static_cast<const float*>(maps.data) + channel * maps.channel_stride;
  const auto cell = [](int fine, int count, int* first, float* share) {
    const float place =
        std::clamp(0.5F * static_cast<float>(fine) - 0.25F, 0.0F, static_cast<float>(count - 1));
    *first = std::min(static_cast<int>(place), count - 2);
    *share = place - static_cast<float>(*first);
  };
  int column = 0, row = 0;
  float right = 0.0F, lower = 0.0F;
  cell(x, maps.width, &column, &right);
  cell(y, maps.height, &row, &lower);
  const float* upper_row = plane + row * maps.row_stride + column;
  const float* lower_row = upper_row + maps.row_stride;
  const float a = upper_row[0] + (upper_row[1] - upper_row[0]) * right;
  const float b = lower_row[0] + (lower_row[1] - lower_row[0]) * right;
  return a + (b - a) * lower;
}

void AssociativeEmbedding::find_candidates(const Frame& frame, int keypoint,
                                           EmbeddingScratch* s) const {
  const bool two = frame.fine.data != nullptr;
  const MapView& maps = two ? frame.fine : frame.heatmaps;
  Blob* blobs = s->blobs.data();
  const int found = find_blobs(maps, keypoint, settings_.rules, kernels_, &s->search, blobs);
  centre_blobs(maps, keypoint, true, kernels_, &s->search, blobs, found);
  Candidate* candidates = candidates_of(keypoint, s);
  int count = 0;
  for (int i = 0; i < found; ++i) {
    const int column = blobs[i].column, row = blobs[i].row;
    float score = std::min(blobs[i].value, 1.0F);
    if (two) {
      const float coarse = coarse_value(frame.heatmaps, keypoint, column, row);
      score = 0.5F * (score + std::min(coarse, 1.0F));
    }
    const float tag = tag_at(frame.tags, keypoint, two ? column / 2 : column, two ? row / 2 : row);
    // NaN is no value and no tag.
    if (score > settings_.score_threshold && std::abs(tag) <= kLargestTag) {
      candidates[count++] = candidate_of(blobs[i], score, tag, two ? stride_ / 2 : stride_);
    }
  }
  if (two) {
    std::sort(candidates, candidates + count, [](const Candidate& a, const Candidate& b) {
      return a.score != b.score ? a.score > b.score : a.y != b.y ? a.y < b.y : a.x < b.x;
    });
  }
  s->counts[at(keypoint)] = count;
}

void AssociativeEmbedding::join(int group, int keypoint, int index, EmbeddingScratch* s) const {
  s->members[at(group * keypoints_ + keypoint)] = static_cast<std::int16_t>(index);
  s->tag_sums[at(group)] += candidates_of(keypoint, s)[index].tag;
  s->sizes[at(group)] += 1;
  s->tags[at(group)] = s->tag_sums[at(group)] / static_cast<float>(s->sizes[at(group)]);
}

// Gives every candidate of the keypoint to a group, or a group of its own.
void AssociativeEmbedding::group_candidates(int keypoint, EmbeddingScratch* s) const {
  const Candidate* candidates = candidates_of(keypoint, s);
  const int count = s->counts[at(keypoint)], groups = s->groups;
  const float none = 100.0F * std::round(settings_.tag_threshold) + 1.0F;
  for (int i = 0; i < count; ++i) {
    float* costs = s->costs.data() + i * groups;
    for (int g = 0; g < groups; ++g) {
      const float distance = std::abs(candidates[i].tag - s->tags[at(g)]);
      const auto rounded = static_cast<float>(static_cast<int>(distance + 0.5F));
      costs[g] = distance < settings_.tag_threshold ? 100.0F * rounded - candidates[i].score : none;
    }
  }
  s->assignment.solve(s->costs.data(), count, groups, none);
  for (int i = 0; i < count; ++i) {
    int group = s->assignment.column_of()[at(i)];
    if (group == Assignment::kUnassigned) {
      if (s->groups == settings_.max_groups) {
        continue;
      }
      group = s->groups++;
      std::fill_n(s->members.begin() + group * keypoints_, keypoints_, kAbsent);
      s->tag_sums[at(group)] = 0.0F;
      s->sizes[at(group)] = 0;
    }
    join(group, keypoint, i, s);
  }
}

// Looks for the group's missing keypoints by its tag.
void AssociativeEmbedding::refine(const Frame& frame, int group, EmbeddingScratch* s) const {
  const float tag = s->tags[at(group)];
  for (int k = 0; k < keypoints_; ++k) {
    std::int16_t& member = s->members[at(group * keypoints_ + k)];
    if (member != kAbsent) {
      continue;
    }
    const float* scores =
        static_cast<const float*>(frame.heatmaps.data) + k * frame.heatmaps.channel_stride;
    const float* tags = static_cast<const float*>(frame.tags.data) +
                        tag_channel(frame.tags, k) * frame.tags.channel_stride;
    float best = 0.0F;
    int best_row = 0;
    for (int y = 0; y < frame.heatmaps.height; ++y) {
      const float value =
          kernels_.best_by_tag(scores + y * frame.heatmaps.row_stride,
                               tags + y * frame.tags.row_stride, frame.heatmaps.width, tag, best);
      best_row = value > best ? y : best_row;
      best = value;
    }
    if (best <= 0.0F) {
      continue;
    }
    const float* row = scores + best_row * frame.heatmaps.row_stride;
    const float* row_tags = tags + best_row * frame.tags.row_stride;
    int x = 0;
    while (kernels_.best_by_tag(row + x, row_tags + x, 1, tag, 0.0F) != best) {
      ++x;
    }
    Blob blob{row[x], x, best_row, 0.0F, 0.0F};
    centre_blobs(frame.heatmaps, k, false, kernels_, &s->search, &blob, 1);
    const int index = settings_.max_people + group;
    candidates_of(k, s)[index] = candidate_of(blob, std::min(blob.value, 1.0F), tag, stride_);
    member = static_cast<std::int16_t>(index);
  }
}

// People with enough keypoints and score, best first.
void AssociativeEmbedding::report(const Frame& frame, EmbeddingScratch* s, Poses* poses) const {
  s->ranking.clear();
  for (int g = 0; g < s->groups; ++g) {
    if (s->sizes[at(g)] < settings_.min_keypoints) {
      continue;
    }
    if (settings_.refine) {
      refine(frame, g, s);
    }
    float total = 0.0F;
    for (int k = 0; k < keypoints_; ++k) {
      const int member = s->members[at(g * keypoints_ + k)];
      total += member == kAbsent ? 0.0F : candidates_of(k, s)[member].score;
    }
    const float score = total / static_cast<float>(keypoints_);
    if (score >= settings_.person_threshold) {
      s->ranking.push_back({score, g});
    }
  }
  std::sort(s->ranking.begin(), s->ranking.end(), [](const Ranked& left, const Ranked& right) {
    return left.score != right.score ? left.score > right.score : left.group < right.group;
  });
  const int people = std::min(static_cast<int>(s->ranking.size()), settings_.max_people);
  for (int p = 0; p < people; ++p) {
    const Ranked& ranked = s->ranking[at(p)];
    Keypoint* person = poses->add(ranked.score);
    for (int k = 0; k < keypoints_; ++k) {
      const int member = s->members[at(ranked.group * keypoints_ + k)];
      if (member == kAbsent) {
        continue;
      }
      const Candidate& candidate = candidates_of(k, s)[member];
      person[k] = {candidate.x, candidate.y, candidate.score};
    }
  }
}

void AssociativeEmbedding::decode(const std::vector<MapView>& outputs, Scratch* scratch,
                                  Poses* poses) const {
  poses->clear(keypoints_);
  auto* s = static_cast<EmbeddingScratch*>(scratch);
  const Frame frame = frame_of(outputs, s);
  s->groups = 0;
  for (const int keypoint : order_) {
    find_candidates(frame, keypoint, s);
    group_candidates(keypoint, s);
  }
  report(frame, s, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_associative_embedding(const Manifest& manifest,
                                                    const Kernels& kernels) {
  return std::make_unique<AssociativeEmbedding>(manifest, kernels);
}

}  // namespace posewire
