// SPDX-License-Identifier: Apache-2.0
// SimCC: Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose
// Estimation" (ECCV 2022), as RTMPose (Jiang et al., arXiv 2303.07399) exports it.
//
// Outputs  simcc_x  K channels of W * split bins
//          simcc_y  K channels of H * split bins, for a network input of W x H pixels
// Bin i stands for network pixel i / split (index coordinates), as the paper's equation 1 labels
// it. The values are the network's own; they need not be probabilities.
//
// Parameters (manifest "decode"; every one optional):
//   split_ratio      from the lengths  bins per network pixel, 0.25 … 16
//   refine           "parabola"        through the largest value and its two neighbours; "none"
//   score            "min"             of the two axes' largest values (RTMPose, MMPose); "mean"
//   softmax_beta     0                 over 0: a row's values v become softmax(beta v) first; 1 for
//                                      SimCC's own classifiers, 10 undoes RTMPose's loss
//   score_threshold  0.05              lowest score of a keypoint
//
// Per keypoint: the first largest value of either row. The parabola goes through the values, not
// their logarithms: what a softmax loss trains is known up to a constant, which the parabola's
// vertex does not see, and for probabilities softmax(beta v) it is the one through the logarithms.
// For RTMPose's Gaussians (about five bins) it errs by less than 0.01 bin.
//
// Worst case, any input: time O(K (W + H) split), memory O(K), and O(K (W + H) split) for outputs
// that are not float32 with dense rows. Nothing is allocated per frame.
#include <algorithm>
#include <cmath>
#include <cstddef>
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

constexpr const char* kRow = "simcc";
constexpr const char* kAcross = "simcc_x";
constexpr const char* kDown = "simcc_y";

class SimccScratch : public Decoder::Scratch {
 public:
  explicit SimccScratch(int keypoints) : found(static_cast<std::size_t>(keypoints)) {}

  std::vector<float> across, down;  // only for outputs that are not float32 with dense rows
  std::vector<Keypoint> found;
};

// The largest value of one row.
struct Bin {
  float place;  // bins
  float score;
};

class Simcc : public Decoder {
 public:
  Simcc(const Manifest& manifest, const Kernels& kernels);

  std::unique_ptr<Scratch> make_scratch() const override {
    return std::make_unique<SimccScratch>(keypoints_);
  }
  void decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const override;

 private:
  Bin largest(const float* row, int count) const;

  const Kernels& kernels_;
  bool refine_ = true, mean_ = false;
  float softmax_beta_ = 0.0F, score_threshold_ = 0.0F;
  float pixels_per_bin_ = 0.5F;
  int keypoints_ = 0;
  std::size_t across_at_ = 0, down_at_ = 0;  // indices among the outputs
  MapView across_shape_, down_shape_;        // without data
};

std::string text_of(int length, int pixels) {
  return std::to_string(length) + " bins for " + std::to_string(pixels) + " pixels";
}

// Bins per pixel: what rounds to both lengths, `given` (0: not given) if it does. Throws
// Error(kBundle).
double split_ratio(const Manifest& manifest, const OutputSpec& across, const OutputSpec& down,
                   double given) {
  const double width = manifest.input_width, height = manifest.input_height;
  // A length is rounded by less than one bin, either way.
  const double low = std::max((across.length - 0.5) / width, (down.length - 0.5) / height);
  const double high = std::min((across.length + 0.5) / width, (down.length + 0.5) / height);
  const std::string lengths = text_of(across.length, manifest.input_width) + " and " +
                              text_of(down.length, manifest.input_height);
  if (given > 0.0) {
    if (given < low - 1e-6 || given > high + 1e-6) {
      throw Error(Code::kBundle, "decode.split_ratio", "disagrees with " + lengths);
    }
    return given;
  }
  if (low > high) {
    throw Error(Code::kBundle, "outputs.simcc_y.length",
                "must have as many bins per pixel as simcc_x (there are " + lengths + ")");
  }
  const double exact = across.length / width;
  return exact >= low && exact <= high && exact == down.length / height ? exact
                                                                        : 0.5 * (low + high);
}

Simcc::Simcc(const Manifest& manifest, const Kernels& kernels)
    : kernels_(kernels), keypoints_(manifest.skeleton.count()) {
  require_top_down(manifest, kRow);
  refuse_other_outputs(manifest, kRow, {kAcross, kDown});
  across_at_ = output_named(manifest, kRow, kAcross);
  down_at_ = output_named(manifest, kRow, kDown);
  for (const std::size_t at : {across_at_, down_at_}) {
    const OutputSpec& output = manifest.outputs[at];
    require_channels(output, keypoints_);
    if (output.length < 3 || output.length > 65536) {
      throw Error(Code::kBundle, "outputs." + output.name + ".length",
                  "must be a sequence of 3 … 65536 bins");
    }
  }
  const OutputSpec& across = manifest.outputs[across_at_];
  const OutputSpec& down = manifest.outputs[down_at_];
  across_shape_ = frame_shape(manifest, across, DType::kFloat32, Layout::kNCHW);
  down_shape_ = frame_shape(manifest, down, DType::kFloat32, Layout::kNCHW);
  Params params(manifest.decode);
  const double given = static_cast<double>(params.number("split_ratio", 0.0F, 0.25F, 16.0F));
  pixels_per_bin_ = static_cast<float>(1.0 / split_ratio(manifest, across, down, given));
  refine_ = params.choice("refine", 0, {"parabola", "none"}) == 0;
  mean_ = params.choice("score", 0, {"min", "mean"}) == 1;
  softmax_beta_ = params.number("softmax_beta", 0.0F, 0.0F, 100.0F);
  score_threshold_ = params.number("score_threshold", 0.05F, 1e-6F, 1.0F);
  params.done();
}

// Vertex of the parabola through three values, in bins from the middle one, which is the largest.
float vertex(float before, float middle, float after) {
  const float bend = 2.0F * middle - before - after;
  const float shift = 0.5F * (after - before) / bend;
  return shift >= -0.5F && shift <= 0.5F ? shift : 0.0F;  // NaN and a flat top: nowhere
}

Bin Simcc::largest(const float* row, int count) const {
  float value = 0.0F;
  const int at = kernels_.maximum(row, count, &value);
  Bin bin{static_cast<float>(at), value};
  if (softmax_beta_ > 0.0F && value > -HUGE_VALF) {  // else no number stands in the row
    // The largest itself contributes 1 to the sum.
    bin.score = 1.0F / std::max(kernels_.sum_exp(row, count, value, softmax_beta_), 1.0F);
  }
  if (refine_ && at > 0 && at < count - 1) {
    bin.place += vertex(row[at - 1], value, row[at + 1]);
  }
  return bin;
}

void Simcc::decode(const std::vector<MapView>& outputs, Scratch* scratch, Poses* poses) const {
  poses->clear(keypoints_);
  // The caller promised shapes as they were opened; a wrong one would read foreign memory.
  if (across_at_ >= outputs.size() || !fits(outputs[across_at_], across_shape_) ||
      down_at_ >= outputs.size() || !fits(outputs[down_at_], down_shape_)) {
    throw Error(Code::kBug, "decode", "a frame's maps differ in shape from the manifest's");
  }
  auto* s = static_cast<SimccScratch*>(scratch);
  const MapView across = float_planes(outputs[across_at_], keypoints_, kernels_, &s->across);
  const MapView down = float_planes(outputs[down_at_], keypoints_, kernels_, &s->down);
  const auto row_of = [](const MapView& view, int channel) {
    return static_cast<const float*>(view.data) + channel * view.channel_stride;
  };
  for (int k = 0; k < keypoints_; ++k) {
    const Bin x = largest(row_of(across, k), across.width);
    const Bin y = largest(row_of(down, k), down.width);
    const float score = mean_ ? 0.5F * x.score + 0.5F * y.score : std::min(x.score, y.score);
    s->found[static_cast<std::size_t>(k)] =
        score >= score_threshold_
            ? Keypoint{x.place * pixels_per_bin_, y.place * pixels_per_bin_, std::min(score, 1.0F)}
            : Keypoint{};
  }
  add_one_person(s->found, poses);
}

}  // namespace

std::unique_ptr<Decoder> open_simcc(const Manifest& manifest, const Kernels& kernels) {
  return std::make_unique<Simcc>(manifest, kernels);
}

}  // namespace posewire
