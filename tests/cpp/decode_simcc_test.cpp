// SPDX-License-Identifier: Apache-2.0
// What is particular to SimCC: places, scores of two axes, softmax, split ratios, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "bundle/manifest.h"
#include "core/error.h"
#include "decode/rows.h"
#include "decode_checks.h"

namespace posewire::test {
namespace {

Manifest manifest_of(int width, int height, int across, int down, const std::string& decode) {
  Manifest manifest;
  manifest.mode = Mode::kTopDown;
  manifest.algorithm = "simcc";
  manifest.decode = nlohmann::json::parse(decode);
  manifest.input_width = width;
  manifest.input_height = height;
  manifest.skeleton.keypoints = {"only"};
  OutputSpec output;
  output.channels = 1;
  output.name = "simcc_x";
  output.length = across;
  manifest.outputs.push_back(output);
  output.name = "simcc_y";
  output.length = down;
  manifest.outputs.push_back(output);
  return manifest;
}

MapView view_of(const std::vector<float>& row) {
  return dense_map(row.data(), DType::kFloat32, Layout::kNCHW, 1, 1, static_cast<int>(row.size()));
}

std::vector<float> gaussian(int count, float centre, float sigma, float height = 1.0F) {
  std::vector<float> row;
  for (int i = 0; i < count; ++i) {
    const float d = (static_cast<float>(i) - centre) / sigma;
    row.push_back(height * std::exp(-0.5F * d * d));
  }
  return row;
}

Keypoint found(const std::vector<float>& x, const std::vector<float>& y,
               const std::string& decode) {
  const auto across = static_cast<int>(x.size()), down = static_cast<int>(y.size());
  const Poses poses =
      decoded(manifest_of(across / 2, down / 2, across, down, decode), {view_of(x), view_of(y)});
  return poses.size() == 1 ? *poses.keypoints_of(0) : Keypoint{};
}

TEST(Simcc, PlacesWithinAHundredthOfABin) {
  for (float centre = 3.0F; centre < 120.0F; centre += 0.217F) {
    const Keypoint point = found(gaussian(128, centre, 4.9F), gaussian(160, centre, 5.66F), "{}");
    ASSERT_NEAR(2.0F * point.x, centre, 0.01F);
    ASSERT_NEAR(2.0F * point.y, centre, 0.01F);
    const Keypoint bin =
        found(gaussian(128, centre, 4.9F), gaussian(160, centre, 5.66F), R"({"refine": "none"})");
    ASSERT_NEAR(2.0F * bin.x, centre, 0.501F);
    ASSERT_EQ(2.0F * bin.x, std::floor(2.0F * bin.x));
  }
}

// A softmax loss does not see a constant, so the place must not either.
TEST(Simcc, AConstantMovesNothing) {
  std::vector<float> x = gaussian(128, 40.3F, 4.9F), y = gaussian(128, 71.8F, 4.9F);
  const Keypoint before = found(x, y, "{}");
  for (std::vector<float>* row : {&x, &y}) {
    for (float& value : *row) {
      value -= 0.5F;
    }
  }
  const Keypoint after = found(x, y, "{}");
  EXPECT_NEAR(after.x, before.x, 1e-3F);
  EXPECT_NEAR(after.y, before.y, 1e-3F);
  EXPECT_NEAR(after.score, before.score - 0.5F, 1e-6F);
}

TEST(Simcc, TheScoreIsTheSmallerOneOrTheMean) {
  const std::vector<float> x = gaussian(128, 40.0F, 5.0F, 0.9F);
  const std::vector<float> y = gaussian(128, 50.0F, 5.0F, 0.3F);
  EXPECT_FLOAT_EQ(found(x, y, "{}").score, 0.3F);
  EXPECT_FLOAT_EQ(found(x, y, R"({"score": "mean"})").score, 0.6F);
  EXPECT_EQ(found(x, y, R"({"score_threshold": 0.31})").score, 0.0F);
  EXPECT_EQ(found(gaussian(128, 40.0F, 5.0F, 7.0F), gaussian(128, 40.0F, 5.0F, 3.0F), "{}").score,
            1.0F);
}

TEST(Simcc, ARowWithoutANumberIsNoKeypoint) {
  const std::vector<float> good = gaussian(128, 40.0F, 5.0F);
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -HUGE_VALF}) {
    const std::vector<float> none(good.size(), value);
    for (const std::string decode : {R"({"softmax_beta": 10})", R"({})", R"({"score": "mean"})",
                                     R"({"softmax_beta": 1, "score": "mean"})"}) {
      EXPECT_EQ(found(none, none, decode).score, 0.0F) << decode;
      EXPECT_EQ(found(good, none, decode).score, 0.0F) << decode;
      EXPECT_EQ(found(none, good, decode).score, 0.0F) << decode;
    }
  }
}

TEST(Simcc, FirstOfEqualBinsAndNaN) {
  std::vector<float> x(128, 0.0F), y(128, 0.0F);
  x[30] = x[90] = 0.8F;
  y[10] = std::numeric_limits<float>::quiet_NaN();
  y[70] = 0.7F;
  const Keypoint point = found(x, y, "{}");
  EXPECT_EQ(point.x, 15.0F);
  EXPECT_EQ(point.y, 35.0F);
}

TEST(Simcc, SoftmaxIsTheChanceOfTheLargest) {
  std::mt19937 random(4);
  std::normal_distribution<float> logits(0.0F, 3.0F);
  for (const Kernels* kernels : available_kernels()) {
    for (const int count : {3, 16, 100, 385}) {
      std::vector<float> row(static_cast<std::size_t>(count));
      std::generate(row.begin(), row.end(), [&] { return logits(random); });
      const float top = *std::max_element(row.begin(), row.end());
      double sum = 0.0;
      for (const float value : row) {
        sum += std::exp(0.7 * static_cast<double>(value - top));
      }
      EXPECT_NEAR(kernels->sum_exp(row.data(), count, top, 0.7F) / sum, 1.0, 1e-5)
          << kernels->name << count;
    }
  }
  std::vector<float> x(128, 0.0F), y(128, 0.0F);
  x[20] = y[20] = 10.0F;  // e^10 against 127
  const double chance = std::exp(10.0) / (std::exp(10.0) + 127.0);
  EXPECT_NEAR(found(x, y, R"({"softmax_beta": 1})").score, chance, 1e-5);
}

// ---- split ratios

Keypoint at_bins(int width, int height, int across, int down, const std::string& decode) {
  std::vector<float> x(static_cast<std::size_t>(across), 0.0F);
  std::vector<float> y(static_cast<std::size_t>(down), 0.0F);
  x[30] = y[60] = 1.0F;
  const Poses poses =
      decoded(manifest_of(width, height, across, down, decode), {view_of(x), view_of(y)});
  return *poses.keypoints_of(0);
}

TEST(Simcc, TheSplitRatioFollowsFromTheLengths) {
  EXPECT_FLOAT_EQ(at_bins(64, 96, 128, 192, "{}").x, 15.0F);
  EXPECT_FLOAT_EQ(at_bins(64, 96, 192, 288, "{}").y, 20.0F);
  // 97.5 and 136.5 bins, rounded: the ratio is known to a third of a percent, or given.
  EXPECT_NEAR(at_bins(65, 91, 98, 136, "{}").y, 40.0F, 0.15F);
  EXPECT_FLOAT_EQ(at_bins(65, 91, 98, 136, R"({"split_ratio": 1.5})").y, 40.0F);
}

std::string refusal(const Manifest& manifest) {
  try {
    open_decoder(manifest);
  } catch (const Error& error) {
    return error.code() == Code::kBundle ? error.what() : "another code";
  }
  return "";
}

TEST(Simcc, RefusesByName) {
  using ::testing::HasSubstr;
  EXPECT_EQ(refusal(manifest_of(64, 96, 128, 192, "{}")), "");
  EXPECT_THAT(refusal(manifest_of(64, 96, 128, 96, "{}")), HasSubstr("outputs.simcc_y.length"));
  EXPECT_THAT(refusal(manifest_of(64, 96, 128, 195, "{}")), HasSubstr("outputs.simcc_y.length"));
  EXPECT_THAT(refusal(manifest_of(64, 96, 128, 192, R"({"split_ratio": 3})")),
              HasSubstr("decode.split_ratio: disagrees"));
  EXPECT_THAT(refusal(manifest_of(64, 96, 128, 192, R"({"score": "max"})")),
              HasSubstr("decode.score: must be one of min, mean"));
  EXPECT_THAT(refusal(manifest_of(64, 96, 128, 192, R"({"softmax_beta": -1})")),
              HasSubstr("decode.softmax_beta"));
  Manifest bad = manifest_of(64, 96, 128, 192, "{}");
  bad.mode = Mode::kBottomUp;
  EXPECT_THAT(refusal(bad), HasSubstr("mode"));
  bad = manifest_of(64, 96, 128, 192, "{}");
  bad.outputs[1].length = 0;
  bad.outputs[1].stride = 4;
  EXPECT_THAT(refusal(bad), HasSubstr("outputs.simcc_y.length"));
  bad = manifest_of(64, 96, 128, 192, "{}");
  bad.outputs[1].name = "simcc_z";
  EXPECT_THAT(refusal(bad), HasSubstr("known: simcc_x, simcc_y"));
}

}  // namespace
}  // namespace posewire::test
