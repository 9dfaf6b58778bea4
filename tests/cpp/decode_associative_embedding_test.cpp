// SPDX-License-Identifier: Apache-2.0
// What is particular to associative embedding: grouping by tags, the exact assignment under it,
// candidates in noise, positions at borders, two resolutions, what `refine` finds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "decode/assignment.h"
#include "decode/blobs.h"
#include "decode/rows.h"
#include "decode_checks.h"

namespace posewire::test {
namespace {

constexpr int kWidth = 48, kHeight = 40;  // cells

std::size_t at(int index) { return static_cast<std::size_t>(index); }

Skeleton skeleton_of(int keypoints) {
  Skeleton skeleton;
  skeleton.name = "own";
  for (int k = 0; k < keypoints; ++k) {
    skeleton.keypoints.push_back("k" + std::to_string(k));
    skeleton.flips.push_back(k);
    skeleton.sigmas.push_back(0.05F);
  }
  for (int k = 1; k < keypoints; ++k) {
    skeleton.limbs.emplace_back(k - 1, k);
  }
  return skeleton;
}

// K planes of stride 4, and of stride 2 if `fine`.
struct Picture {
  explicit Picture(int keypoints, bool fine = false)
      : count(keypoints),
        heatmaps(cells() * at(keypoints)),
        tags(heatmaps.size()),
        finer(fine ? 4 * heatmaps.size() : 0) {}

  static std::size_t cells() { return at(kWidth * kHeight); }

  // A Gaussian of two cells with its tag around it, maximum with what is there.
  void draw(int keypoint, float x, float y, float height, float tag) {
    for (int v = 0; v < kHeight; ++v) {
      for (int u = 0; u < kWidth; ++u) {
        const float dx = static_cast<float>(u) - x, dy = static_cast<float>(v) - y;
        const float value = height * std::exp(-(dx * dx + dy * dy) / 8.0F);
        const std::size_t i = at(keypoint) * cells() + at(v * kWidth + u);
        tags[i] = value > heatmaps[i] && value > 0.05F * height ? tag : tags[i];
        heatmaps[i] = std::max(heatmaps[i], value);
      }
    }
  }
  void draw_fine(int keypoint, float x, float y, float height) {  // in fine cells
    for (int v = 0; v < 2 * kHeight; ++v) {
      for (int u = 0; u < 2 * kWidth; ++u) {
        const float dx = static_cast<float>(u) - x, dy = static_cast<float>(v) - y;
        float& cell = finer[4 * at(keypoint) * cells() + at(v * 2 * kWidth + u)];
        cell = std::max(cell, height * std::exp(-(dx * dx + dy * dy) / 8.0F));
      }
    }
  }
  void add_noise(float sigma, std::uint32_t seed) {
    Random random(seed);
    for (std::vector<float>* values : {&heatmaps, &tags, &finer}) {
      for (float& value : *values) {
        value += sigma * random.normal();
      }
    }
  }

  Manifest manifest(nlohmann::json decode = nlohmann::json::object()) const {
    Manifest m;
    m.skeleton = skeleton_of(count);
    m.input_width = 4 * kWidth;
    m.input_height = 4 * kHeight;
    m.algorithm = "associative_embedding";
    m.decode = std::move(decode);
    m.decode["algorithm"] = m.algorithm;
    for (const auto& [name, stride] : {std::pair{"heatmaps", 4}, {"tags", 4}, {"heatmaps_2", 2}}) {
      if (stride == 4 || !finer.empty()) {
        OutputSpec& output = m.outputs.emplace_back();
        output.name = name;
        output.channels = count;
        output.stride = stride;
      }
    }
    return m;
  }
  Poses poses(nlohmann::json decode = nlohmann::json::object()) const {
    const auto view = [this](const std::vector<float>& values, int scale) {
      return dense_map(values.data(), DType::kFloat32, Layout::kNCHW, count, scale * kHeight,
                       scale * kWidth);
    };
    std::vector<MapView> views = {view(heatmaps, 1), view(tags, 1)};
    if (!finer.empty()) {
      views.push_back(view(finer, 2));
    }
    return decoded(manifest(std::move(decode)), views);
  }

  int count;
  std::vector<float> heatmaps, tags, finer;
};

std::string refusal(const Manifest& manifest) {
  try {
    open_decoder(manifest);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBundle);
    return error.what();
  }
  return "";
}

// ---- assignment

// The least total by trying everything: rows one after the other, each with any free column or
// none.
float least(const std::vector<float>& costs, int rows, int columns, float none, int row,
            unsigned taken) {
  if (row == rows) {
    return 0.0F;
  }
  float best = none + least(costs, rows, columns, none, row + 1, taken);
  for (int c = 0; c < columns; ++c) {
    if ((taken >> c & 1U) == 0) {
      best = std::min(best, costs[at(row * columns + c)] +
                                least(costs, rows, columns, none, row + 1, taken | 1U << c));
    }
  }
  return best;
}

TEST(Assignment, IsTheCheapestOfAll) {
  Random random(5);
  Assignment assignment(6, 6);
  for (int trial = 0; trial < 600; ++trial) {
    const int rows = random.below(7), columns = random.below(7);
    const float none = random.uniform(-0.2F, 1.2F);
    std::vector<float> costs(at(rows * columns));
    for (float& cost : costs) {  // ties are frequent in every third trial
      cost = trial % 3 == 0 ? static_cast<float>(random.below(3)) : random.uniform(-1.0F, 1.5F);
    }
    assignment.solve(costs.data(), rows, columns, none);
    float total = 0.0F;
    std::vector<int> owner(6, -1);
    for (int r = 0; r < rows; ++r) {
      const int c = assignment.column_of()[at(r)];
      if (c == Assignment::kUnassigned) {
        total += none;
        continue;
      }
      ASSERT_TRUE(c >= 0 && c < columns);
      ASSERT_EQ(owner[at(c)], -1) << "a column for two rows";
      owner[at(c)] = r;
      ASSERT_LT(costs[at(r * columns + c)], none);
      total += costs[at(r * columns + c)];
    }
    ASSERT_NEAR(total, least(costs, rows, columns, none, 0, 0), 1e-4F) << trial;
  }
}

TEST(Assignment, AChainOfTheLargestSizeIsUntangled) {
  // Row r may take columns r and r + 1, and prefers r + 1; only the last column is one too many.
  const int n = 128;
  Assignment assignment(n, n);
  std::vector<float> costs(at(n * n), 10.0F);
  for (int r = 0; r < n; ++r) {
    costs[at(r * n + r)] = 1.0F;
    if (r + 1 < n) {
      costs[at(r * n + r + 1)] = 0.99F;
    }
  }
  assignment.solve(costs.data(), n, n, 10.0F);
  for (int r = 0; r < n; ++r) {
    EXPECT_EQ(assignment.column_of()[at(r)], r);
  }
}

// ---- candidates and positions

TEST(Blobs, WhiteNoiseHasNoCandidatesAndAGaussianInItHasOne) {
  Picture picture(1);
  picture.add_noise(0.05F, 3);
  const auto found = [&picture](float support) {
    const MapView map =
        dense_map(picture.heatmaps.data(), DType::kFloat32, Layout::kNCHW, 1, kHeight, kWidth);
    BlobScratch scratch(kHeight, kWidth, 100);
    std::vector<Blob> blobs(100);
    return find_blobs(map, 0, {0.1F, support, 100}, best_kernels(), &scratch, blobs.data());
  };
  EXPECT_GT(found(0.0F), 15) << "maxima over the threshold";
  EXPECT_EQ(found(0.6F), 0);
  picture.draw(0, 20.3F, 11.6F, 0.9F, 0.0F);
  EXPECT_EQ(found(0.6F), 1);
}

TEST(Blobs, CentresAreExactEverywhereAlsoAtBorders) {
  for (const Kernels* kernels : available_kernels()) {
    for (const float x : {-0.4F, 0.3F, 1.2F, 23.37F, 45.8F, 47.4F}) {
      for (const float y : {-0.3F, 0.49F, 20.5F, 38.1F, 39.2F}) {
        Picture picture(1);
        picture.draw(0, x, y, 0.8F, 0.0F);
        const MapView map =
            dense_map(picture.heatmaps.data(), DType::kFloat32, Layout::kNCHW, 1, kHeight, kWidth);
        BlobScratch scratch(kHeight, kWidth, 4);
        Blob blobs[4];
        ASSERT_EQ(find_blobs(map, 0, {0.1F, 0.6F, 4}, *kernels, &scratch, blobs), 1);
        centre_blobs(map, 0, true, *kernels, &scratch, blobs, 1);
        EXPECT_NEAR(blobs[0].x, x, 0.002F) << kernels->name << " " << x << " " << y;
        EXPECT_NEAR(blobs[0].y, y, 0.002F) << kernels->name << " " << x << " " << y;
        const Blob fast = blobs[0];
        centre_blobs(map, 0, false, *kernels, &scratch, blobs, 1);  // cell by cell
        EXPECT_NEAR(blobs[0].x, fast.x, 1e-4F);
        EXPECT_NEAR(blobs[0].y, fast.y, 1e-4F);
      }
    }
  }
}

TEST(Blobs, OfEqualCellsTheFirstAndOfManyTheHighest) {
  Picture picture(1);
  std::fill(picture.heatmaps.begin(), picture.heatmaps.end(), 0.5F);
  const MapView map =
      dense_map(picture.heatmaps.data(), DType::kFloat32, Layout::kNCHW, 1, kHeight, kWidth);
  BlobScratch scratch(kHeight, kWidth, 4);
  Blob blobs[4];
  ASSERT_EQ(find_blobs(map, 0, {0.1F, 0.6F, 4}, best_kernels(), &scratch, blobs), 1);
  EXPECT_EQ(blobs[0].column + blobs[0].row, 0);
  std::fill(picture.heatmaps.begin(), picture.heatmaps.end(), 0.0F);
  for (int i = 0; i < 6; ++i) {
    const auto place = static_cast<float>(6 + 7 * i);
    picture.draw(0, place, 20.0F, 0.4F + 0.1F * static_cast<float>(i % 4), 0.0F);
  }
  ASSERT_EQ(find_blobs(map, 0, {0.1F, 0.6F, 4}, best_kernels(), &scratch, blobs), 4);
  const int expected[] = {27, 20, 13, 41};  // 0.7, 0.6, then both of 0.5
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(blobs[i].column, expected[i]) << i;
  }
}

// ---- grouping

TEST(AssociativeEmbedding, TagsDecideNotPlaces) {
  Picture picture(4);
  for (int k = 0; k < 4; ++k) {  // two people change sides with every keypoint
    const auto y = static_cast<float>(5 + 9 * k);
    picture.draw(k, k % 2 == 0 ? 10.0F : 30.0F, y, 0.9F, 2.0F);
    picture.draw(k, k % 2 == 0 ? 30.0F : 10.0F, y, 0.7F, 3.2F);
  }
  const Poses poses = picture.poses();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(poses.score(0), 0.9F, 1e-4F);
  EXPECT_NEAR(poses.score(1), 0.7F, 1e-4F);
  for (int k = 0; k < 4; ++k) {
    const float left = 4.0F * 10.0F + 1.5F, right = 4.0F * 30.0F + 1.5F;
    EXPECT_NEAR(poses.keypoints_of(0)[k].x, k % 2 == 0 ? left : right, 0.01F);
    EXPECT_NEAR(poses.keypoints_of(1)[k].x, k % 2 == 0 ? right : left, 0.01F);
  }
}

TEST(AssociativeEmbedding, APairOverTheThresholdDoesNotCostAGoodOne) {
  // Keypoint 3: one candidate fits person A (distance 0.45, to B 5.45), the other nobody (2.4 and
  // 8.3). Rounded, 2 + 5 is less than 8 + 0: assigned first and broken then, A would lose its own.
  Picture picture(4);
  for (int k = 0; k < 3; ++k) {
    picture.draw(k, 10.0F, static_cast<float>(5 + 9 * k), 0.9F, 0.0F);
    picture.draw(k, 30.0F, static_cast<float>(5 + 9 * k), 0.8F, 5.9F);
  }
  picture.draw(3, 10.0F, 33.0F, 0.6F, 0.45F);
  picture.draw(3, 40.0F, 33.0F, 0.9F, -2.4F);
  const Poses poses = picture.poses({{"min_keypoints", 1}});
  ASSERT_EQ(poses.size(), 3);
  EXPECT_NEAR(poses.keypoints_of(0)[3].x, 41.5F, 0.01F);
  EXPECT_EQ(poses.keypoints_of(1)[3].score, 0.0F);
  EXPECT_NEAR(poses.keypoints_of(2)[3].x, 161.5F, 0.01F);
}

TEST(AssociativeEmbedding, OfTwoCandidatesWithNearTagsTheHigherIsTheOne) {
  Picture picture(3);
  for (int k = 0; k < 3; ++k) {
    picture.draw(k, 10.0F, static_cast<float>(5 + 9 * k), 0.9F, 1.0F);
  }
  picture.draw(2, 30.0F, 23.0F, 0.95F, 1.3F);  // 0.3 rounds to 0, as nothing does
  Poses poses = picture.poses();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[2].x, 121.5F, 0.01F);
  poses = picture.poses({{"tag_threshold", 0.2}});
  ASSERT_EQ(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[2].x, 41.5F, 0.01F);
}

TEST(AssociativeEmbedding, MaxPeopleBoundsWhatIsReported) {
  Picture picture(3);
  for (int p = 0; p < 6; ++p) {
    for (int k = 0; k < 3; ++k) {
      picture.draw(k, static_cast<float>(4 + 8 * p), static_cast<float>(6 + 9 * k),
                   0.5F + 0.05F * static_cast<float>(p), 2.0F * static_cast<float>(p));
    }
  }
  EXPECT_EQ(picture.poses().size(), 6);
  const Poses two = picture.poses({{"max_people", 2}});
  ASSERT_EQ(two.size(), 2);
  EXPECT_NEAR(two.score(0), 0.75F, 0.001F);
  EXPECT_NEAR(two.score(1), 0.7F, 0.001F);
}

TEST(AssociativeEmbedding, ATagThatIsNoNumberIsNoCandidate) {
  Picture picture(3);
  for (int k = 0; k < 3; ++k) {
    picture.draw(k, 10.0F, static_cast<float>(5 + 9 * k), 0.9F, 1.0F);
  }
  std::fill(picture.tags.begin(), picture.tags.begin() + static_cast<int>(Picture::cells()),
            std::numeric_limits<float>::quiet_NaN());
  const Poses poses = picture.poses({{"min_keypoints", 1}});
  ASSERT_EQ(poses.size(), 1);
  EXPECT_EQ(poses.keypoints_of(0)[0].score, 0.0F);
  EXPECT_GT(poses.keypoints_of(0)[1].score, 0.8F);
}

// ---- two resolutions

TEST(AssociativeEmbedding, TwoResolutionsAreAveraged) {
  Picture picture(3, true);
  for (int k = 0; k < 3; ++k) {
    // Stride 4's cell 10.25 is stride 2's 21: both say pixel 42.5.
    picture.draw(k, 10.25F, static_cast<float>(6 + 9 * k) + 0.25F, 0.6F, 1.0F);
    picture.draw_fine(k, 21.0F, static_cast<float>(13 + 18 * k), 1.0F);
  }
  const Poses poses = picture.poses();
  ASSERT_EQ(poses.size(), 1);
  for (int k = 0; k < 3; ++k) {
    const Keypoint& point = poses.keypoints_of(0)[k];
    EXPECT_NEAR(point.x, 42.5F, 0.01F);
    EXPECT_NEAR(point.y, 26.5F + 36.0F * static_cast<float>(k), 0.01F);
    EXPECT_NEAR(point.score, 0.79F, 0.02F);  // bilinear: a little under 0.8
  }
  // Only one of the two sees it, over and under the threshold.
  std::fill(picture.heatmaps.begin(), picture.heatmaps.end(), 0.0F);
  ASSERT_EQ(picture.poses().size(), 1);
  EXPECT_NEAR(picture.poses().score(0), 0.5F, 0.001F);
  EXPECT_EQ(picture.poses({{"score_threshold", 0.51}}).size(), 0);
}

// ---- refine

TEST(AssociativeEmbedding, RefineFindsAWeakKeypointByItsTag) {
  for (const bool fine : {false, true}) {
    Picture picture(4, fine);
    for (int k = 0; k < 3; ++k) {
      picture.draw(k, 10.25F, static_cast<float>(4 + 9 * k) + 0.25F, 0.9F, 1.0F);
      if (fine) {
        picture.draw_fine(k, 21.0F, static_cast<float>(9 + 18 * k), 0.9F);
      }
    }
    picture.draw(3, 12.4F, 33.0F, 0.06F, 1.2F);  // weak, its tag
    picture.draw(3, 30.0F, 10.0F, 0.09F, 3.0F);  // higher, another's
    const Keypoint without = picture.poses().keypoints_of(0)[3];
    EXPECT_EQ(without.score, 0.0F);
    const Poses poses = picture.poses({{"refine", true}});
    ASSERT_EQ(poses.size(), 1);
    const Keypoint& found = poses.keypoints_of(0)[3];
    EXPECT_NEAR(found.x, 4.0F * 12.4F + 1.5F, 0.02F);
    EXPECT_NEAR(found.y, 4.0F * 33.0F + 1.5F, 0.02F);
    EXPECT_NEAR(found.score, 0.06F, 0.002F);
    EXPECT_NEAR(poses.score(0),
                (poses.keypoints_of(0)[0].score + poses.keypoints_of(0)[1].score +
                 poses.keypoints_of(0)[2].score + found.score) /
                    4.0F,
                1e-5F);
  }
}

// ---- refusals

TEST(AssociativeEmbedding, RefusalsNameTheKey) {
  const Picture picture(3, true);
  EXPECT_EQ(refusal(picture.manifest()), "");
  const auto with = [&picture](const char* key, const nlohmann::json& value) {
    return refusal(picture.manifest({{key, value}}));
  };
  EXPECT_NE(with("max_people", 0).find("decode.max_people"), std::string::npos);
  EXPECT_NE(with("support", 1.5).find("decode.support"), std::string::npos);
  EXPECT_NE(with("tag_threshold", "near").find("decode.tag_threshold"), std::string::npos);
  EXPECT_NE(with("refine", 1).find("decode.refine"), std::string::npos);
  for (const nlohmann::json& order :
       {nlohmann::json{0, 1}, nlohmann::json{0, 1, 1}, nlohmann::json{0, 1, 3},
        nlohmann::json{0, 1, 2.5}, nlohmann::json("torso"), nlohmann::json{0, 1, "2"}}) {
    EXPECT_NE(with("order", order).find("decode.order"), std::string::npos) << order;
  }
  EXPECT_EQ(with("order", {2, 0, 1}), "");
  Manifest manifest = picture.manifest();
  manifest.outputs[1].stride = 8;
  EXPECT_NE(refusal(manifest).find("outputs.tags.stride"), std::string::npos);
  manifest = picture.manifest();
  manifest.outputs[2].stride = 4;
  EXPECT_NE(refusal(manifest).find("outputs.heatmaps_2.stride"), std::string::npos);
  manifest = picture.manifest();
  manifest.outputs[1].channels = 1;
  EXPECT_EQ(refusal(manifest), "") << "one tag map for all keypoints";
  manifest.outputs[1].channels = 6;
  EXPECT_NE(refusal(manifest).find("outputs.tags.channels"), std::string::npos);
}

}  // namespace
}  // namespace posewire::test
