// SPDX-License-Identifier: Apache-2.0
// The row `center`, its form with grids: a map of people's centres and, at a centre's cell, where
// the person's keypoints are. CenterNet (Zhou et al., "Objects as Points", arXiv 1904.07850,
// section 4.2), DEKR (Geng et al., CVPR 2021, arXiv 2104.02300).
//
// Outputs, maps of one stride, probabilities (sigmoid applied); "cells" are the maps' own:
//   centers         1       likelihood of a person's centre; may stand as heatmaps' last channel
//   offsets         2 K     x, y of every keypoint from the centre's cell, cells
//   heatmaps        K, or K + 1 with the centres last; optional with `centers`
//   heatmap_offset  2       optional: x, y from a heatmap's maximum to the keypoint, cells
//   sizes           2       optional: width and height of the person's box, cells
//   center_offset   2       optional: x, y from the centre's cell to the box's centre, cells
// CenterNet: hm = centers, hps = offsets, hm_hp = heatmaps, hp_offset = heatmap_offset, wh = sizes,
// reg = center_offset. DEKR: heatmaps with K + 1, offsets.
//
// Parameters (manifest "decode"; every one optional), besides those of center.cpp:
//   snap           0.3    a keypoint moves to its heatmap's nearest maximum within this share of
//                         the person's longer side, at most 16 cells; 0: never (the default
//                         without heatmap_offset: DEKR's keypoints stay where they were
//                         regressed)
//   origin_px      (s - 1) / 2  network pixel of cell 0's centre; 0 in both original projects
//   toward_center  false  offsets point from the keypoint to the cell (DEKR's original code)
//
// A snapped keypoint's score is its maximum's value, any other's the heatmap's value where it is
// (bilinear, 0 outside the map), the centre's without heatmaps. Only cells near people are read.
//
// Worst case, any input: P = max_people, R = 18 cells (nearest_peak.h). Time O(H W + P K R² +
// P² K), memory O(H W + P K), all allocated by make_scratch(): with P = 100 and 17 keypoints 2.3
// million heatmap values may be looked at. A frame allocates nothing once `poses` has grown.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "decode/center.h"
#include "decode/nearest_peak.h"
#include "decode/peaks.h"
#include "decode/planes.h"

namespace posewire {
namespace {

struct GridSettings {
  CenterSettings both;
  float snap;
  bool toward_center;
};

struct Candidate {
  float score;
  int cell;
};

// A person's box in cells; without `sizes` only its longer side is known.
struct Extent {
  bool box;
  float left, top, right, bottom, longer;
};

class GridScratch : public Decoder::Scratch {
 public:
  GridScratch(int keypoints, int height, int width, int max_people)
      : search(height, width, max_people),
        peaks(max_people),
        values(static_cast<std::size_t>(2 * keypoints)),
        people(keypoints, max_people) {
    candidates.reserve(static_cast<std::size_t>(max_people));
  }

  std::vector<float> centers;  // only where they are not float32 NCHW
  PeakScratch search;
  Peaks peaks;
  std::vector<Candidate> candidates;
  std::vector<float> values;  // offsets of one cell
  PeakWindow window{};
  KeptPeople people;
};

class CenterGrid : public Decoder {
 public:
  CenterGrid(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<GridScratch>(keypoints_, height_, width_, settings_.both.max_people);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void find_outputs(const Manifest& manifest);
  void check_frame(const std::vector<MapView>& outputs) const;
  void find_centers(const std::vector<MapView>& outputs, GridScratch* s) const;
  void read_offsets(const MapView& offsets, int cell, GridScratch* s) const;
  Extent extent_of(const std::vector<MapView>& outputs, int cell, const GridScratch& s) const;
  void read_pair(const MapView& view, int row, int column, float* x, float* y) const;
  float value_at(const MapView& heatmaps, int channel, float x, float y) const;
  void regress(const MapView& offsets, const Candidate& candidate, GridScratch* s) const;
  void place_keypoints(const std::vector<MapView>& outputs, const Candidate& candidate,
                       GridScratch* s) const;

  enum Output { kCenters, kOffsets, kHeatmaps, kHeatmapOffset, kSizes, kCenterOffset, kOutputs };
  static constexpr std::array<const char*, kOutputs> kNames = {
      "centers", "offsets", "heatmaps", "heatmap_offset", "sizes", "center_offset"};
  const MapView& view(const std::vector<MapView>& outputs, Output output) const {
    return outputs[static_cast<std::size_t>(at_[output])];
  }
  bool has(Output output) const { return at_[output] >= 0; }

  const Kernels& kernels_;
  GridSettings settings_{};
  int keypoints_ = 0, height_ = 0, width_ = 0, stride_ = 0;
  std::array<int, kOutputs> at_{};        // indices among the outputs; -1: absent
  std::array<int, kOutputs> channels_{};  // as they must be
  float origin_ = 0.0F;                   // pixel of cell 0
  KeypointRules rules_;
  OksNms nms_;
};

CenterGrid::CenterGrid(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels),
      keypoints_(manifest.skeleton.count()),
      rules_(manifest, 0.0F),
      nms_(manifest.skeleton.sigmas, 1.0F) {
  find_outputs(manifest);
  Params params(manifest.decode);
  settings_.both = read_center_settings(&params);
  settings_.snap = params.number("snap", has(kHeatmapOffset) ? 0.3F : 0.0F, 0.0F, 1.0F);
  origin_ = params.number("origin_px", 0.5F * static_cast<float>(stride_ - 1), 0.0F,
                          static_cast<float>(stride_));
  settings_.toward_center = params.boolean("toward_center").value_or(false);
  params.done();
  rules_ = KeypointRules(manifest, settings_.both.keypoint_threshold);
  nms_ = OksNms(manifest.skeleton.sigmas, settings_.both.nms_oks);
  // Rounded up: convolutions with "same" padding.
  width_ = (manifest.input_width + stride_ - 1) / stride_;
  height_ = (manifest.input_height + stride_ - 1) / stride_;
  if (width_ < 2 || height_ < 2 || width_ > 4096 || height_ > 4096) {
    refuse_center("input", "gives maps of " + std::to_string(width_) + " x " +
                               std::to_string(height_) + " cells; center needs 2 … 4096 each way");
  }
}

// The outputs' places; channels and strides as they must be.
void CenterGrid::find_outputs(const Manifest& manifest) {
  at_.fill(-1);
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    const OutputSpec& output = manifest.outputs[i];
    const auto known = std::find(kNames.begin(), kNames.end(), output.name);
    if (known == kNames.end()) {
      std::string names;
      for (const char* name : kNames) {
        names += (names.empty() ? "" : ", ") + std::string(name);
      }
      refuse_center("outputs." + output.name,
                    "is none of center's (" + names + "; or rows; or boxes, keypoints)");
    }
    at_[static_cast<std::size_t>(known - kNames.begin())] = static_cast<int>(i);
  }
  if (!has(kOffsets) || (!has(kCenters) && !has(kHeatmaps))) {
    refuse_center("outputs", "center needs offsets, and centers or heatmaps with the centres last");
  }
  if (has(kHeatmapOffset) && !has(kHeatmaps)) {
    refuse_center("outputs.heatmap_offset", "needs heatmaps");
  }
  if (has(kCenterOffset) && !has(kSizes)) {
    refuse_center("outputs.center_offset", "needs sizes");
  }
  channels_ = {1, 2 * keypoints_, keypoints_ + (has(kCenters) ? 0 : 1), 2, 2, 2};
  const OutputSpec& offsets = manifest.outputs[static_cast<std::size_t>(at_[kOffsets])];
  stride_ = offsets.stride;
  for (std::size_t i = 0; i < kOutputs; ++i) {
    if (at_[i] < 0) {
      continue;
    }
    const OutputSpec& output = manifest.outputs[static_cast<std::size_t>(at_[i])];
    if (output.channels != channels_[i]) {
      refuse_center("outputs." + output.name + ".channels",
                    "is " + std::to_string(output.channels) + ", but must be " +
                        std::to_string(channels_[i]) + " with " + std::to_string(keypoints_) +
                        " keypoints");
    }
    if (output.stride < 1 || output.stride != stride_) {
      refuse_center("outputs." + output.name + ".stride",
                    "must be that of the offsets (" + std::to_string(stride_) + ")");
    }
  }
}

// The caller promised shapes as they were opened; a wrong one would read foreign memory.
void CenterGrid::check_frame(const std::vector<MapView>& outputs) const {
  for (std::size_t i = 0; i < kOutputs; ++i) {
    if (at_[i] < 0) {
      continue;
    }
    const auto at = static_cast<std::size_t>(at_[i]);
    if (at >= outputs.size() || outputs[at].data == nullptr || outputs[at].height != height_ ||
        outputs[at].width != width_ || outputs[at].channels != channels_[i]) {
      throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
    }
  }
}

// Fills `candidates` with the maxima of the centres, best first.
void CenterGrid::find_centers(const std::vector<MapView>& outputs, GridScratch* s) const {
  MapView centers = view(outputs, has(kCenters) ? kCenters : kHeatmaps);
  if (!has(kCenters)) {  // the last channel
    centers.data =
        static_cast<const unsigned char*>(centers.data) +
        keypoints_ * centers.channel_stride * static_cast<std::ptrdiff_t>(bytes_of(centers.dtype));
  }
  find_peaks(float_planes(centers, 1, kernels_, &s->centers), 0, settings_.both.score_threshold,
             0.0F, settings_.both.max_people, kernels_, &s->search, &s->peaks);
  s->candidates.clear();
  for (int i = 0; i < s->peaks.count; ++i) {
    const auto n = static_cast<std::size_t>(i);
    s->candidates.push_back({s->peaks.score[n], s->peaks.cell[n]});
  }
  std::sort(s->candidates.begin(), s->candidates.end(),
            [](const Candidate& left, const Candidate& right) {
              return left.score != right.score ? left.score > right.score : left.cell < right.cell;
            });
}

// Fills `values` with the keypoints' places, cells.
void CenterGrid::read_offsets(const MapView& offsets, int cell, GridScratch* s) const {
  const int row = cell / width_, column = cell % width_;
  read_values(offsets, row * offsets.row_stride + column * offsets.column_stride,
              offsets.channel_stride, 2 * keypoints_, kernels_, s->values.data());
  const float sign = settings_.toward_center ? -1.0F : 1.0F;
  for (std::size_t i = 0; i < s->values.size(); i += 2) {
    s->values[i] = static_cast<float>(column) + sign * s->values[i];
    s->values[i + 1] = static_cast<float>(row) + sign * s->values[i + 1];
  }
}

void CenterGrid::read_pair(const MapView& view, int row, int column, float* x, float* y) const {
  const std::ptrdiff_t index = row * view.row_stride + column * view.column_stride;
  *x = read_value(view, index, kernels_);
  *y = read_value(view, index + view.channel_stride, kernels_);
}

Extent CenterGrid::extent_of(const std::vector<MapView>& outputs, int cell,
                             const GridScratch& s) const {
  const int row = cell / width_, column = cell % width_;
  if (has(kSizes)) {
    float width = 0.0F, height = 0.0F, dx = 0.0F, dy = 0.0F;
    read_pair(view(outputs, kSizes), row, column, &width, &height);
    if (has(kCenterOffset)) {
      read_pair(view(outputs, kCenterOffset), row, column, &dx, &dy);
    }
    const float x = static_cast<float>(column) + dx, y = static_cast<float>(row) + dy;
    return {true,
            x - 0.5F * width,
            y - 0.5F * height,
            x + 0.5F * width,
            y + 0.5F * height,
            std::max(width, height)};
  }
  Extent extent{false, s.values[0], s.values[1], s.values[0], s.values[1], 0.0F};
  for (std::size_t i = 0; i < s.values.size(); i += 2) {
    extent.left = std::min(extent.left, s.values[i]);
    extent.right = std::max(extent.right, s.values[i]);
    extent.top = std::min(extent.top, s.values[i + 1]);
    extent.bottom = std::max(extent.bottom, s.values[i + 1]);
  }
  extent.longer = std::max(extent.right - extent.left, extent.bottom - extent.top);
  return extent;
}

// Bilinear; 0 outside the map's cells.
float CenterGrid::value_at(const MapView& heatmaps, int channel, float x, float y) const {
  const float right = static_cast<float>(width_ - 1), bottom = static_cast<float>(height_ - 1);
  if (!(x >= -0.5F && y >= -0.5F && x <= right + 0.5F && y <= bottom + 0.5F)) {
    return 0.0F;
  }
  const float cx = std::clamp(x, 0.0F, right), cy = std::clamp(y, 0.0F, bottom);
  const int column = std::min(static_cast<int>(cx), width_ - 2);
  const int row = std::min(static_cast<int>(cy), height_ - 2);
  const float fx = cx - static_cast<float>(column), fy = cy - static_cast<float>(row);
  const std::ptrdiff_t first = channel * heatmaps.channel_stride + row * heatmaps.row_stride +
                               column * heatmaps.column_stride;
  const auto at = [this, &heatmaps, first](std::ptrdiff_t step) {
    return read_value(heatmaps, first + step, kernels_);
  };
  const std::ptrdiff_t right_one = heatmaps.column_stride, next_row = heatmaps.row_stride;
  const float upper = at(0) + (at(right_one) - at(0)) * fx;
  const float lower = at(next_row) + (at(next_row + right_one) - at(next_row)) * fx;
  return upper + (lower - upper) * fy;
}

// Fills people.next() with the keypoints where the offsets say, all scored as the centre.
void CenterGrid::regress(const MapView& offsets, const Candidate& candidate, GridScratch* s) const {
  read_offsets(offsets, candidate.cell, s);
  const float scale = static_cast<float>(stride_);
  const float* place = s->values.data();
  Keypoint* person = s->people.next();
  for (int k = 0; k < keypoints_; ++k, place += 2) {
    person[k] = rules_(scale * place[0] + origin_, scale * place[1] + origin_, candidate.score);
  }
}

void CenterGrid::place_keypoints(const std::vector<MapView>& outputs, const Candidate& candidate,
                                 GridScratch* s) const {
  const Extent extent = extent_of(outputs, candidate.cell, *s);
  const float reach = settings_.snap * extent.longer;
  const float limit = reach > 0.0F ? std::min(reach, kFarthestPeak) : 0.0F;  // NaN: 0
  const float scale = static_cast<float>(stride_);
  const MapView* offset = has(kHeatmapOffset) ? &view(outputs, kHeatmapOffset) : nullptr;
  Keypoint* person = s->people.next();
  const float* place = s->values.data();
  for (int k = 0; k < keypoints_; ++k, place += 2) {
    const float x = place[0], y = place[1];
    const bool inside = x >= -1.0F && y >= -1.0F && x <= static_cast<float>(width_) &&
                        y <= static_cast<float>(height_);
    PeakSpot spot{x, y, candidate.score, false};
    if (inside && limit > 0.0F) {
      spot = nearest_peak(view(outputs, kHeatmaps), k, offset, settings_.both.keypoint_threshold, x,
                          y, limit, kernels_, &s->window);
      spot.found = spot.found && (!extent.box || (spot.x >= extent.left && spot.x <= extent.right &&
                                                  spot.y >= extent.top && spot.y <= extent.bottom));
    }
    if (!spot.found) {
      spot = {x, y, value_at(view(outputs, kHeatmaps), k, x, y), false};
    }
    person[k] = rules_(scale * spot.x + origin_, scale * spot.y + origin_, spot.score);
  }
}

void CenterGrid::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  check_frame(outputs);
  auto* s = static_cast<GridScratch*>(scratch);
  s->people.clear();
  find_centers(outputs, s);
  for (const Candidate& candidate : s->candidates) {
    regress(view(outputs, kOffsets), candidate, s);
    if (has(kHeatmaps)) {
      // A noisy centre has maxima beside it that tell of the same person: no need to look closer.
      if (s->people.repeats(nms_)) {
        continue;
      }
      place_keypoints(outputs, candidate, s);
    }
    s->people.keep(nms_);
    if (s->people.full()) {
      break;
    }
  }
  s->people.report(settings_.both.person_threshold, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_center_grid(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<CenterGrid>(manifest, kernels);
}

}  // namespace posewire
