// SPDX-License-Identifier: Apache-2.0
// What is particular to top-down heatmaps: the vector kernels against plain loops, DARK's step up
// to the border, flips, ties, alignments, refusals.
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

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int kStride = 4;

// ---- kernels

int plain_maximum(const std::vector<float>& row, float* value) {
  int at = 0;
  *value = -kInf;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i] > *value) {
      *value = row[i];
      at = static_cast<int>(i);
    }
  }
  return at;
}

TEST(Maximum, FirstOfEqualOnesAndNeverNaN) {
  std::mt19937 random(3);
  std::vector<int> counts;
  for (int count = 1; count < 300; ++count) {
    counts.push_back(count);
  }
  counts.insert(counts.end(), {384, 512, 1000, 3072, 6912});
  for (const Kernels* kernels : available_kernels()) {
    for (const int count : counts) {
      for (const int levels : {1, 3, 200}) {  // few levels: many ties
        for (const int spoiled : {0, 3}) {
          std::vector<float> row;
          for (int i = 0; i < count; ++i) {
            const float value =
                0.01F *
                static_cast<float>(static_cast<int>(random() % 401) % (2 * levels) - levels);
            row.push_back(spoiled != 0 && random() % 3 == 0 ? (random() % 2 == 0 ? kNaN : -kInf)
                                                            : value);
          }
          float expected = 0.0F, value = 0.0F;
          const int at = plain_maximum(row, &expected);
          ASSERT_EQ(kernels->maximum(row.data(), count, &value), at) << kernels->name << count;
          ASSERT_EQ(value, expected) << kernels->name << count;
        }
      }
    }
    float value = 0.0F;
    for (const float same : {kNaN, -kInf}) {
      const std::vector<float> row(200, same);
      EXPECT_EQ(kernels->maximum(row.data(), 200, &value), 0);
      EXPECT_EQ(value, -kInf);
    }
    std::vector<float> row(200, 1.0F);
    row[150] = kInf;
    EXPECT_EQ(kernels->maximum(row.data(), 200, &value), 150);
  }
}

TEST(BlurLog, IsTheLogarithmOfTheConvolution) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> values(0.0F, 1.0F);
  for (const Kernels* kernels : available_kernels()) {
    std::vector<float> window(static_cast<std::size_t>(kDarkCells * kDarkRow), 0.0F);
    float down[kDarkTaps], across[kDarkTaps], logs[kDarkRow];
    for (int t = 0; t < kDarkTaps; ++t) {
      down[t] = values(random);
      across[t] = values(random);
    }
    for (int i = 0; i < kDarkCells * kDarkRow; ++i) {
      window[static_cast<std::size_t>(i)] = i % kDarkRow < kDarkCells ? values(random) : 0.0F;
    }
    kernels->blur_log(window.data(), down, across, logs);
    for (int n = 0; n < 9; ++n) {
      double sum = 0.0;
      for (int y = 0; y < kDarkTaps; ++y) {
        for (int x = 0; x < kDarkTaps; ++x) {
          const int at = (n / 3 + y) * kDarkRow + n % 3 + x;
          sum += static_cast<double>(down[y]) * static_cast<double>(across[x]) *
                 static_cast<double>(window[static_cast<std::size_t>(at)]);
        }
      }
      EXPECT_NEAR(logs[n], std::log2(sum), 3e-5) << kernels->name << n;
    }
  }
}

// ---- one keypoint's map

Manifest manifest_of(int height, int width, int keypoints, const std::string& decode,
                     bool flipped = false) {
  Manifest manifest;
  manifest.mode = Mode::kTopDown;
  manifest.algorithm = "heatmap";
  manifest.decode = nlohmann::json::parse(decode);
  manifest.input_width = width * kStride;
  manifest.input_height = height * kStride;
  for (int k = 0; k < keypoints; ++k) {
    manifest.skeleton.keypoints.push_back("k" + std::to_string(k));
    manifest.skeleton.flips.push_back(keypoints - 1 - k);
  }
  OutputSpec output;
  output.name = "heatmaps";
  output.channels = keypoints;
  output.stride = kStride;
  manifest.outputs.push_back(output);
  if (flipped) {
    output.name = "heatmaps_flipped";
    manifest.outputs.push_back(output);
  }
  return manifest;
}

MapView view_of(const std::vector<float>& maps, int keypoints, int height, int width) {
  return dense_map(maps.data(), DType::kFloat32, Layout::kNCHW, keypoints, height, width);
}

std::vector<float> gaussian(int height, int width, float cx, float cy, float sigma) {
  std::vector<float> map;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const float dx = static_cast<float>(x) - cx, dy = static_cast<float>(y) - cy;
      map.push_back(0.8F * std::exp(-(dx * dx + dy * dy) / (2.0F * sigma * sigma)));
    }
  }
  return map;
}

// In cells of the half-pixel alignment.
float cell(float pixel) { return (pixel - 1.5F) / 4.0F; }

TEST(Heatmap, DarkFindsAGaussianAnywhereUpToTheBorder) {
  const int height = 24, width = 18;
  for (const float sigma : {1.5F, 2.0F, 3.0F}) {
    for (float cy = -0.4F; cy < static_cast<float>(height) - 0.6F; cy += 0.37F) {
      for (float cx = -0.4F; cx < static_cast<float>(width) - 0.6F; cx += 0.43F) {
        const std::vector<float> map = gaussian(height, width, cx, cy, sigma);
        const Poses poses =
            decoded(manifest_of(height, width, 1, "{}"), {view_of(map, 1, height, width)});
        ASSERT_EQ(poses.size(), 1);
        ASSERT_NEAR(cell(poses.keypoints_of(0)->x), cx, 0.02F) << cx << " " << cy << " " << sigma;
        ASSERT_NEAR(cell(poses.keypoints_of(0)->y), cy, 0.02F) << cx << " " << cy << " " << sigma;
      }
    }
  }
}

TEST(Heatmap, TheSmallestMap) {
  for (const char* refine : {"dark", "quarter", "none"}) {
    const std::vector<float> map = gaussian(3, 3, 0.0F, 2.0F, 1.0F);
    const Poses poses =
        decoded(manifest_of(3, 3, 1, R"({"refine": ")" + std::string(refine) + "\"}"),
                {view_of(map, 1, 3, 3)});
    ASSERT_EQ(poses.size(), 1);
    EXPECT_NEAR(cell(poses.keypoints_of(0)->x), 0.0F, 1e-3F) << refine;
    EXPECT_NEAR(cell(poses.keypoints_of(0)->y), 2.0F, 1e-3F) << refine;
  }
}

TEST(Heatmap, QuarterStepsAndTies) {
  const int height = 5, width = 6;
  std::vector<float> map(30, 0.1F);
  const auto at = [&](const char* refine) {
    const Poses poses =
        decoded(manifest_of(height, width, 1, R"({"refine": ")" + std::string(refine) + "\"}"),
                {view_of(map, 1, height, width)});
    return std::pair<float, float>(cell(poses.keypoints_of(0)->x), cell(poses.keypoints_of(0)->y));
  };
  map[2 * 6 + 3] = 0.9F;
  EXPECT_EQ(at("quarter"), std::make_pair(3.0F, 2.0F));  // equal neighbours: no step
  map[2 * 6 + 2] = 0.2F;
  map[3 * 6 + 3] = 0.3F;
  EXPECT_EQ(at("quarter"), std::make_pair(2.75F, 2.25F));
  EXPECT_EQ(at("none"), std::make_pair(3.0F, 2.0F));
  map[4 * 6 + 5] = 0.9F;  // later in reading order: the first one stays
  EXPECT_EQ(at("none"), std::make_pair(3.0F, 2.0F));
  map[1 * 6] = 0.9F;  // earlier: wins; on the border only the free axis steps
  EXPECT_EQ(at("quarter"), std::make_pair(0.0F, 1.0F));
  map[2 * 6] = 0.5F;
  EXPECT_EQ(at("quarter"), std::make_pair(0.0F, 1.25F));
}

TEST(Heatmap, Alignments) {
  const int height = 9, width = 7;
  std::vector<float> map(63, 0.0F);
  map[5 * 7 + 6] = 1.0F;
  const auto at = [&](const std::string& alignment) {
    const Poses poses = decoded(
        manifest_of(height, width, 1, R"({"refine": "none", "alignment": ")" + alignment + "\"}"),
        {view_of(map, 1, height, width)});
    return std::pair<float, float>(poses.keypoints_of(0)->x, poses.keypoints_of(0)->y);
  };
  EXPECT_EQ(at("half_pixel"), std::make_pair(25.5F, 21.5F));
  EXPECT_EQ(at("asymmetric"), std::make_pair(24.0F, 20.0F));
  EXPECT_FLOAT_EQ(at("align_corners").first, 27.0F);
  EXPECT_FLOAT_EQ(at("align_corners").second, 5.0F * 35.0F / 8.0F);
}

TEST(Heatmap, ThresholdScoresAndNobody) {
  const int height = 8, width = 8;
  std::vector<float> maps(3 * 64, 0.0F);
  maps[9] = 1.7F;  // more than 1 counts as 1
  maps[64 + 20] = 0.29F;
  maps[128 + 30] = 0.31F;
  const std::string decode = R"({"score_threshold": 0.3, "refine": "none"})";
  Poses poses = decoded(manifest_of(height, width, 3, decode), {view_of(maps, 3, height, width)});
  ASSERT_EQ(poses.size(), 1);
  EXPECT_FLOAT_EQ(poses.score(0), (1.0F + 0.31F) / 3.0F);
  EXPECT_EQ(poses.keypoints_of(0)[0].score, 1.0F);
  EXPECT_EQ(poses.keypoints_of(0)[1].score, 0.0F);
  EXPECT_EQ(poses.keypoints_of(0)[1].x, 0.0F);
  maps[9] = maps[128 + 30] = kNaN;
  poses = decoded(manifest_of(height, width, 3, decode), {view_of(maps, 3, height, width)});
  EXPECT_EQ(poses.size(), 0);
}

// ---- the mirrored crop

std::vector<float> noisy(int keypoints, int height, int width, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> noise(0.0F, 0.2F);
  std::vector<float> maps;
  for (int k = 0; k < keypoints; ++k) {
    const float cx = static_cast<float>(random() % 1000) * 0.001F * static_cast<float>(width);
    const float cy = static_cast<float>(random() % 1000) * 0.001F * static_cast<float>(height);
    for (const float value : gaussian(height, width, cx, cy, 2.0F)) {
      maps.push_back(value + noise(random));
    }
  }
  return maps;
}

TEST(Heatmap, FlippedMapsAreAveraged) {
  const int keypoints = 5, height = 13, width = 19;
  const std::vector<float> maps = noisy(keypoints, height, width, 1);
  const std::vector<float> flipped = noisy(keypoints, height, width, 2);
  for (const int shift : {0, 1}) {
    std::vector<float> mean;
    for (int k = 0; k < keypoints; ++k) {
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          const int from = width - 1 - (shift == 1 && x > 0 ? x - 1 : x);
          const float* own = maps.data() + (k * height + y) * width;
          const float* other = flipped.data() + ((keypoints - 1 - k) * height + y) * width;
          mean.push_back(0.5F * own[x] + 0.5F * other[from]);
        }
      }
    }
    for (const Kernels* kernels : available_kernels()) {
      const auto decode_with = [&](const Manifest& manifest, const std::vector<MapView>& views) {
        const auto decoder = open_decoder(manifest, *kernels);
        Poses poses;
        decoder->decode(views, decoder->make_scratch().get(), &poses);
        return poses;
      };
      const Poses plain = decode_with(manifest_of(height, width, keypoints, "{}"),
                                      {view_of(mean, keypoints, height, width)});
      const Poses both = decode_with(
          manifest_of(height, width, keypoints, shift == 1 ? R"({"flip_shift": true})" : "{}",
                      true),
          {view_of(maps, keypoints, height, width), view_of(flipped, keypoints, height, width)});
      ASSERT_EQ(plain.size(), 1);
      EXPECT_TRUE(same(plain, both)) << kernels->name << shift;
    }
  }
}

// Rows apart from one another: a part of a wider map.
TEST(Heatmap, RowsWithGaps) {
  const int keypoints = 4, height = 21, width = 17, wide = 23;
  const std::vector<float> maps = noisy(keypoints, height, width, 3);
  std::vector<float> apart(static_cast<std::size_t>(keypoints * height * wide), 9.0F);
  for (int row = 0; row < keypoints * height; ++row) {
    std::copy_n(maps.begin() + row * width, width, apart.begin() + row * wide);
  }
  MapView view = view_of(apart, keypoints, height, wide);
  view.width = width;
  const Manifest manifest = manifest_of(height, width, keypoints, "{}");
  EXPECT_TRUE(same(decoded(manifest, {view}),
                   decoded(manifest, {view_of(maps, keypoints, height, width)})));
}

// ---- refusals

std::string refusal(const Manifest& manifest) {
  try {
    open_decoder(manifest);
  } catch (const Error& error) {
    return error.code() == Code::kBundle ? error.what() : "another code";
  }
  return "";
}

TEST(Heatmap, RefusesByName) {
  EXPECT_EQ(refusal(manifest_of(16, 12, 3, "{}", true)), "");
  EXPECT_THAT(refusal(manifest_of(16, 12, 3, R"({"refine": "best"})")),
              ::testing::HasSubstr("decode.refine: must be one of dark, quarter, none"));
  EXPECT_THAT(refusal(manifest_of(16, 12, 3, R"({"refine": 1})")),
              ::testing::HasSubstr("decode.refine"));
  EXPECT_THAT(refusal(manifest_of(16, 12, 3, R"({"alignment": "left"})")),
              ::testing::HasSubstr("decode.alignment"));
  EXPECT_THAT(refusal(manifest_of(16, 12, 3, R"({"score_threshold": 0})")),
              ::testing::HasSubstr("decode.score_threshold"));
  EXPECT_THAT(refusal(manifest_of(2, 12, 3, "{}")), ::testing::HasSubstr("input"));
  Manifest bad = manifest_of(16, 12, 3, "{}");
  bad.mode = Mode::kBottomUp;
  EXPECT_THAT(refusal(bad), ::testing::HasSubstr("mode"));
  bad = manifest_of(16, 12, 3, "{}", true);
  bad.outputs[1].stride = 8;
  EXPECT_THAT(refusal(bad), ::testing::HasSubstr("outputs.heatmaps_flipped.stride"));
  bad = manifest_of(16, 12, 3, "{}", true);
  bad.skeleton.flips = {0, 1, 3};
  EXPECT_THAT(refusal(bad), ::testing::HasSubstr("skeleton.flips"));
  bad = manifest_of(16, 12, 3, "{}", true);
  bad.outputs[1].name = "pafs";
  EXPECT_THAT(refusal(bad), ::testing::HasSubstr("known: heatmaps, heatmaps_flipped"));
  bad = manifest_of(16, 12, 3, "{}");
  bad.outputs[0].stride = 0;
  bad.outputs[0].length = 12;
  EXPECT_THAT(refusal(bad), ::testing::HasSubstr("must be a map"));
}

}  // namespace
}  // namespace posewire::test
