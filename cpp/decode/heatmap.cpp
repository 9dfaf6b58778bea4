// SPDX-License-Identifier: Apache-2.0
// Top-down heatmaps: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking" (ECCV
// 2018) and Sun et al., "Deep High-Resolution Representation Learning" (CVPR 2019); the sub-cell
// step of Zhang et al., "Distribution-Aware Coordinate Representation" (DARK, CVPR 2020).
//
// Outputs  heatmaps          K channels
//          heatmaps_flipped  optional, K channels: the same network's for the mirrored crop, as
//          they
//                            come out of it. Mirrored back here, keypoints swapped by the
//                            skeleton's flips, and averaged with `heatmaps` before the maximum.
//
// Parameters (manifest "decode"; every one optional):
//   refine           "dark"        "dark", "quarter" (a quarter of a cell towards the higher
//                                  neighbour, the original step), "none"
//   score_threshold  0.05          lowest heatmap value of a keypoint
//   flip_shift       false         flipped maps move one cell right: for networks whose flips are
//                                  not aligned (strided convolutions, "shift heatmap")
//   alignment        "half_pixel"  where cell i of stride s stands, as in ONNX's Resize: half_pixel
//                                  s i + (s - 1) / 2; asymmetric s i (the original targets);
//                                  align_corners i (pixels - 1) / (cells - 1) (UDP)
//
// Per keypoint: the first maximum of the map, its value the score. DARK: the map modulated with an
// 11 x 11 Gaussian (sigma 2), and one Newton step in its logarithm, from central differences one
// cell apart. Only the 3 x 3 modulated values that the step needs are computed, exactly. At a
// border the paper's zeros outside would draw the maximum inwards by more than a cell: here the
// step starts at the nearest cell with eight neighbours, and the Gaussian has as many cells as fit
// symmetrically. A step ends at most two cells from the maximum.
//
// Worst case, any input: time O(K H W), memory O(H W), and O(K H W) for outputs that are not
// float32 NCHW. Nothing is allocated per frame.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/outputs.h"
#include "decode/params.h"
#include "decode/planes.h"
#include "decode/rows.h"
#include "decode/top_down.h"

namespace posewire {
namespace {

constexpr const char* kRow = "heatmap";
constexpr const char* kMaps = "heatmaps";
constexpr const char* kFlipped = "heatmaps_flipped";

enum class Refine { kDark, kQuarter, kNone };
enum class Alignment { kHalfPixel, kAsymmetric, kAlignCorners };

constexpr int kRadius = kDarkTaps / 2;  // cells
constexpr float kSigma = 2.0F;          // of an 11-cell kernel: 0.3 ((11 - 1) / 2 - 1) + 0.8
constexpr float kLongestStep = 2.0F;    // cells

// Weights of a Gaussian cut off after r cells, for every r.
using Weights = std::array<std::array<float, kDarkTaps>, kRadius + 1>;

Weights gaussian_weights() {
  constexpr std::size_t kMiddle = kRadius;
  Weights weights{};
  for (std::size_t r = 0; r < weights.size(); ++r) {
    for (std::size_t t = 0; t <= r; ++t) {
      const float distance = static_cast<float>(t) / kSigma;
      weights[r][kMiddle - t] = weights[r][kMiddle + t] = std::exp(-0.5F * distance * distance);
    }
  }
  return weights;
}

// One float32 plane with column_stride 1.
struct Plane {
  const float* cells;
  std::ptrdiff_t row_stride;
};

struct Maximum {
  int x, y;
  float value;
};

struct Point {
  float x, y;  // cells
};

class HeatmapScratch : public Decoder::Scratch {
 public:
  HeatmapScratch(int keypoints, std::size_t averaged)
      : mean(averaged), found(static_cast<std::size_t>(keypoints)) {}

  std::vector<float> heatmaps, flipped;  // only for outputs that are not float32 NCHW
  std::vector<float> mean;               // one keypoint's, where there are flipped maps
  std::vector<Keypoint> found;
};

class Heatmap : public Decoder {
 public:
  Heatmap(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override;
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  void align(const Manifest& manifest, Alignment alignment);
  Maximum highest(const Plane& plane) const;
  Point quarter(const Plane& plane, const Maximum& top) const;
  Point dark(const Plane& plane, const Maximum& top) const;
  Keypoint locate(const Plane& plane) const;

  const Kernels& kernels_;
  Weights weights_ = gaussian_weights();
  Refine refine_ = Refine::kDark;
  float score_threshold_ = 0.0F;
  int shift_ = 0;
  int keypoints_ = 0;
  MapView shape_;  // of both outputs, without data
  std::size_t heatmaps_at_ = 0;
  std::optional<std::size_t> flipped_at_;
  std::vector<int> flips_;
  float scale_x_ = 1.0F, scale_y_ = 1.0F, offset_ = 0.0F;  // cells -> network pixels
};

Heatmap::Heatmap(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels), keypoints_(manifest.skeleton.count()) {
  require_top_down(manifest, kRow);
  refuse_other_outputs(manifest, kRow, {kMaps, kFlipped});
  heatmaps_at_ = output_named(manifest, kRow, kMaps);
  flipped_at_ = find_output(manifest, kFlipped);
  const OutputSpec& heatmaps = manifest.outputs[heatmaps_at_];
  require_channels(heatmaps, keypoints_);
  if (heatmaps.stride < 1) {
    throw Error(Code::kBundle, "outputs.heatmaps", "must be a map with a stride");
  }
  if (flipped_at_) {
    const OutputSpec& flipped = manifest.outputs[*flipped_at_];
    require_channels(flipped, keypoints_);
    if (flipped.stride != heatmaps.stride) {
      throw Error(Code::kBundle, "outputs.heatmaps_flipped.stride",
                  "must be the heatmaps' (" + std::to_string(heatmaps.stride) + ")");
    }
    flips_ = manifest.skeleton.flips;
    const auto outside = [this](int k) { return k < 0 || k >= keypoints_; };
    if (static_cast<int>(flips_.size()) != keypoints_ ||
        std::any_of(flips_.begin(), flips_.end(), outside)) {
      throw Error(Code::kBundle, "skeleton.flips",
                  "must give every keypoint's mirrored one for heatmaps_flipped");
    }
  }
  shape_ = frame_shape(manifest, heatmaps, DType::kFloat32, Layout::kNCHW);
  if (shape_.width < 3 || shape_.height < 3 || shape_.width > 4096 || shape_.height > 4096) {
    throw Error(Code::kBundle, "input",
                "gives maps of " + std::to_string(shape_.width) + " x " +
                    std::to_string(shape_.height) + " cells; heatmap needs 3 … 4096 each way");
  }
  Params params(manifest.decode);
  constexpr std::array<Refine, 3> kRefines{Refine::kDark, Refine::kQuarter, Refine::kNone};
  refine_ = kRefines[params.choice("refine", 0, {"dark", "quarter", "none"})];
  score_threshold_ = params.number("score_threshold", 0.05F, 1e-6F, 1.0F);
  shift_ = params.boolean("flip_shift").value_or(false) ? 1 : 0;
  constexpr std::array<Alignment, 3> kAlignments{Alignment::kHalfPixel, Alignment::kAsymmetric,
                                                 Alignment::kAlignCorners};
  align(manifest,
        kAlignments[params.choice("alignment", 0, {"half_pixel", "asymmetric", "align_corners"})]);
  params.done();
}

void Heatmap::align(const Manifest& manifest, Alignment alignment) {
  const auto stride = static_cast<float>(manifest.outputs[heatmaps_at_].stride);
  scale_x_ = scale_y_ = stride;
  if (alignment == Alignment::kHalfPixel) {
    offset_ = 0.5F * (stride - 1.0F);
  } else if (alignment == Alignment::kAlignCorners) {
    scale_x_ = static_cast<float>(manifest.input_width - 1) / static_cast<float>(shape_.width - 1);
    scale_y_ =
        static_cast<float>(manifest.input_height - 1) / static_cast<float>(shape_.height - 1);
  }
}

std::unique_ptr<Decoder::Scratch> Heatmap::make_scratch() const {
  const auto cells =
      static_cast<std::size_t>(shape_.width) * static_cast<std::size_t>(shape_.height);
  return std::make_unique<HeatmapScratch>(keypoints_, flipped_at_ ? cells : 0);
}

// Of equal ones the first in reading order; NaN is none.
Maximum Heatmap::highest(const Plane& plane) const {
  if (plane.row_stride == shape_.width) {
    float value = 0.0F;
    const int at = kernels_.maximum(plane.cells, shape_.width * shape_.height, &value);
    return {at % shape_.width, at / shape_.width, value};
  }
  Maximum best{0, 0, -HUGE_VALF};
  for (int y = 0; y < shape_.height; ++y) {
    float value = 0.0F;
    const int x = kernels_.maximum(plane.cells + y * plane.row_stride, shape_.width, &value);
    if (value > best.value) {
      best = {x, y, value};
    }
  }
  return best;
}

float quarter_towards(float before, float after) {
  return after > before ? 0.25F : after < before ? -0.25F : 0.0F;  // NaN: nowhere
}

Point Heatmap::quarter(const Plane& plane, const Maximum& top) const {
  const float* at = plane.cells + top.y * plane.row_stride + top.x;
  Point point{static_cast<float>(top.x), static_cast<float>(top.y)};
  if (top.x > 0 && top.x < shape_.width - 1) {
    point.x += quarter_towards(at[-1], at[1]);
  }
  if (top.y > 0 && top.y < shape_.height - 1) {
    point.y += quarter_towards(at[-plane.row_stride], at[plane.row_stride]);
  }
  return point;
}

// The cells within kDarkCells / 2 of (x, y); 0 outside the map.
void copy_window(const Plane& plane, const MapView& shape, int x, int y, float* window) {
  constexpr int kReach = kDarkCells / 2;
  const int left = x - kReach, top = y - kReach;
  if (left >= 0 && top >= 0 && x + kReach < shape.width && y + kReach < shape.height) {
    const float* from = plane.cells + top * plane.row_stride + left;
    for (int row = 0; row < kDarkCells; ++row) {
      std::memcpy(window + row * kDarkRow, from + row * plane.row_stride,
                  kDarkCells * sizeof(float));
    }
    return;
  }
  const int first = std::max(left, 0), last = std::min(x + kReach, shape.width - 1);
  for (int row = 0; row < kDarkCells; ++row) {
    float* to = window + row * kDarkRow;
    std::fill_n(to, kDarkCells, 0.0F);
    if (top + row >= 0 && top + row < shape.height) {
      const float* from = plane.cells + (top + row) * plane.row_stride;
      std::copy(from + first, from + last + 1, to + (first - left));
    }
  }
}

// `start` and a step from it, not far from the maximum at `top`; NaN: the maximum.
float stepped(int start, float step, int top) {
  const auto middle = static_cast<float>(top);
  const float to = static_cast<float>(start) + step;
  return to >= middle - kLongestStep ? std::min(to, middle + kLongestStep)
         : to < middle               ? middle - kLongestStep
                                     : middle;
}

Point Heatmap::dark(const Plane& plane, const Maximum& top) const {
  const int x = std::clamp(top.x, 1, shape_.width - 2);
  const int y = std::clamp(top.y, 1, shape_.height - 2);
  const auto radius = [](int at, int cells) {
    return static_cast<std::size_t>(std::min({kRadius, at - 1, cells - 2 - at}));
  };
  alignas(64) float window[kDarkCells * kDarkRow] = {};
  alignas(64) float logs[kDarkRow];
  copy_window(plane, shape_, x, y, window);
  kernels_.blur_log(window, weights_[radius(y, shape_.height)].data(),
                    weights_[radius(x, shape_.width)].data(), logs);
  const float gx = 0.5F * (logs[5] - logs[3]), gy = 0.5F * (logs[7] - logs[1]);
  const float xx = logs[5] - 2.0F * logs[4] + logs[3];
  const float yy = logs[7] - 2.0F * logs[4] + logs[1];
  const float xy = 0.25F * (logs[8] - logs[6] - logs[2] + logs[0]);
  const float determinant = xx * yy - xy * xy;
  // A maximum bends down in every direction; anything else has no vertex to step to.
  if (!(xx < 0.0F && determinant > 1e-6F)) {
    return {static_cast<float>(top.x), static_cast<float>(top.y)};
  }
  return {stepped(x, (xy * gy - yy * gx) / determinant, top.x),
          stepped(y, (xy * gx - xx * gy) / determinant, top.y)};
}

Keypoint Heatmap::locate(const Plane& plane) const {
  const Maximum top = highest(plane);
  if (!(top.value >= score_threshold_)) {
    return {};
  }
  const Point point = refine_ == Refine::kDark ? dark(plane, top)
                      : refine_ == Refine::kQuarter
                          ? quarter(plane, top)
                          : Point{static_cast<float>(top.x), static_cast<float>(top.y)};
  return {point.x * scale_x_ + offset_, point.y * scale_y_ + offset_, std::min(top.value, 1.0F)};
}

void Heatmap::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  // The caller promised shapes as they were opened; a wrong one would read foreign memory.
  const auto given = [this, &outputs](std::size_t at) {
    return at < outputs.size() && fits(outputs[at], shape_);
  };
  if (!given(heatmaps_at_) || (flipped_at_ && !given(*flipped_at_))) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
  auto* s = static_cast<HeatmapScratch*>(scratch);
  const MapView maps = float_planes(outputs[heatmaps_at_], keypoints_, kernels_, &s->heatmaps);
  const MapView flipped =
      flipped_at_ ? float_planes(outputs[*flipped_at_], keypoints_, kernels_, &s->flipped)
                  : MapView{};
  const auto plane_of = [](const MapView& view, int channel) {
    return Plane{static_cast<const float*>(view.data) + channel * view.channel_stride,
                 view.row_stride};
  };
  for (int k = 0; k < keypoints_; ++k) {
    const auto n = static_cast<std::size_t>(k);
    Plane plane = plane_of(maps, k);
    if (flipped_at_) {
      const Plane mirrored = plane_of(flipped, flips_[n]);
      kernels_.mean_mirrored(plane.cells, plane.row_stride, mirrored.cells, mirrored.row_stride,
                             shape_.height, shape_.width, shift_, s->mean.data());
      plane = {s->mean.data(), shape_.width};
    }
    s->found[n] = locate(plane);
  }
  add_one_person(s->found, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_heatmap(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<Heatmap>(manifest, kernels);
}

}  // namespace posewire
