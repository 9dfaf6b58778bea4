// SPDX-License-Identifier: Apache-2.0
// What is particular to one-stage networks: which of many proposals are one person, which maximum a
// regressed keypoint moves to, whose score is reported. The contract is decode_rows_test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "bundle/manifest.h"
#include "core/error.h"
#include "decode/box.h"
#include "decode/oks_nms.h"
#include "decode_checks.h"

namespace posewire::test {
namespace {

constexpr int kKeypoints = 3;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Manifest manifest_of(int width, int height, std::vector<OutputSpec> outputs,
                     nlohmann::json decode = nlohmann::json::object()) {
  Manifest manifest;
  manifest.skeleton.keypoints = {"a", "b", "c"};
  manifest.skeleton.limbs = {{0, 1}, {1, 2}};
  manifest.skeleton.flips = {0, 1, 2};
  manifest.skeleton.sigmas = {0.05F, 0.05F, 0.1F};
  manifest.input_width = width;
  manifest.input_height = height;
  manifest.outputs = std::move(outputs);
  manifest.algorithm = "center";
  manifest.decode = std::move(decode);
  return manifest;
}

OutputSpec map_of(const std::string& name, int channels, int stride) {
  OutputSpec spec;
  spec.name = name;
  spec.channels = channels;
  spec.stride = stride;
  return spec;
}

OutputSpec sequence_of(const std::string& name, int channels, int length) {
  OutputSpec spec;
  spec.name = name;
  spec.channels = channels;
  spec.length = length;
  return spec;
}

std::string refusal(const Manifest& manifest) {
  try {
    open_decoder(manifest);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBundle);
    return error.what();
  }
  return "";
}

// ---- OKS

std::vector<Keypoint> pose_at(float x, float y, float size) {
  return {{x, y, 1.0F}, {x + size, y, 1.0F}, {x, y + size, 0.5F}};
}

TEST(OksNms, IsOneForThePoseItselfAndFallsWithTheSkeletonsSigmas) {
  const OksNms nms({0.05F, 0.05F, 0.1F}, 0.5F);
  const std::vector<Keypoint> pose = pose_at(10, 20, 40);
  const float area = nms.area(pose.data());
  EXPECT_FLOAT_EQ(area, 1600.0F);
  EXPECT_FLOAT_EQ(nms.similarity(pose.data(), area, pose.data()), 1.0F);
  std::vector<Keypoint> moved = pose;
  moved[0].x += 4.0F;  // exp(-16 / (2 * 0.1² * 1600)) = exp(-0.5)
  EXPECT_NEAR(nms.similarity(pose.data(), area, moved.data()), (2.0 + std::exp(-0.5)) / 3, 1e-6);
  moved = pose;
  moved[2].y -= 4.0F;  // twice the sigma: a quarter of the exponent
  EXPECT_NEAR(nms.similarity(pose.data(), area, moved.data()), (2.0 + std::exp(-0.125)) / 3, 1e-6);
}

TEST(OksNms, CountsTheWeakerPosesKeypoints) {
  const OksNms nms({0.05F, 0.05F, 0.1F}, 0.5F);
  const std::vector<Keypoint> whole = pose_at(10, 20, 40);
  std::vector<Keypoint> one = whole;
  one[0] = one[1] = Keypoint{};
  const float area = nms.area(whole.data());
  EXPECT_FLOAT_EQ(nms.similarity(whole.data(), area, one.data()), 1.0F);  // a fragment of it
  EXPECT_FLOAT_EQ(nms.similarity(one.data(), nms.area(one.data()), whole.data()), 1.0F / 3.0F);
  const std::vector<Keypoint> nobody(3);
  EXPECT_FALSE(nms.duplicate(whole.data(), area, nobody.data()));
  EXPECT_FLOAT_EQ(nms.area(nobody.data()), 1.0F);
}

TEST(OksNms, DecidesEarlyAsTheWholeSumWould) {
  std::mt19937 engine(5);
  std::uniform_real_distribution<float> spread(-9.0F, 9.0F);
  for (const float threshold : {0.0F, 0.3F, 0.7F, 0.85F}) {
    const OksNms nms({0.05F, 0.05F, 0.1F}, threshold);
    int duplicates = 0;
    for (int i = 0; i < 500; ++i) {
      const std::vector<Keypoint> better = pose_at(50, 50, 60);
      std::vector<Keypoint> weaker = better;
      for (Keypoint& point : weaker) {
        point.x += spread(engine);
        point.y += spread(engine);
        point.score = spread(engine) > 4.0F ? 0.0F : 0.8F;
      }
      weaker[0].score = 0.8F;
      const float area = nms.area(better.data());
      const float similarity = nms.similarity(better.data(), area, weaker.data());
      if (std::abs(similarity - threshold) > 1e-5F) {
        EXPECT_EQ(nms.duplicate(better.data(), area, weaker.data()), similarity >= threshold);
      }
      duplicates += nms.duplicate(better.data(), area, weaker.data()) ? 1 : 0;
    }
    EXPECT_GT(duplicates, 10) << threshold;
    EXPECT_TRUE(threshold < 0.5F || duplicates < 490) << threshold;
  }
}

TEST(Box, OverlapIsZeroWithoutAnAreaAndHalfForHalf) {
  EXPECT_FLOAT_EQ(iou({0, 0, 10, 10}, {0, 0, 10, 5}), 0.5F);
  EXPECT_FLOAT_EQ(iou({0, 0, 10, 10}, {5, 5, 15, 15}), 25.0F / 175.0F);
  EXPECT_FLOAT_EQ(iou({0, 0, 10, 10}, {10, 0, 20, 10}), 0.0F);
  EXPECT_FLOAT_EQ(iou({0, 0, 0, 0}, {0, 0, 0, 0}), 0.0F);
  EXPECT_FALSE(iou({0, 0, 3e38F, 3e38F}, {0, 0, 3e38F, 3e38F}) > 0.5F);
}

// ---- rows

constexpr int kRowChannels = 5 + 3 * kKeypoints;

// Rows as [channels, length], like YOLO-pose.
struct Rows {
  explicit Rows(int count)
      : length(count), values(static_cast<std::size_t>(kRowChannels * count)) {}

  float& at(int channel, int row) {
    return values[static_cast<std::size_t>(channel * length + row)];
  }
  // A box around x, y and keypoints at its middle and two corners.
  void put(int row, float x, float y, float width, float height, float score, float seen = 0.9F) {
    const float box[] = {x, y, width, height, score};
    for (int c = 0; c < 5; ++c) {
      at(c, row) = box[c];
    }
    const float points[] = {x, y, x - width / 2, y - height / 2, x + width / 2, y + height / 2};
    for (int k = 0; k < kKeypoints; ++k) {
      at(5 + 3 * k, row) = points[2 * k];
      at(6 + 3 * k, row) = points[2 * k + 1];
      at(7 + 3 * k, row) = seen;
    }
  }
  Poses decode(const nlohmann::json& parameters = nlohmann::json::object()) const {
    const Manifest manifest =
        manifest_of(640, 640, {sequence_of("rows", kRowChannels, length)}, parameters);
    return decoded(manifest, {dense_map(values.data(), DType::kFloat32, Layout::kNCHW, kRowChannels,
                                        1, length)});
  }

  int length;
  std::vector<float> values;
};

TEST(CenterRows, ADroppedBoxDropsNoOther) {
  Rows rows(9);
  rows.put(7, 100, 100, 100, 100, 0.9F);
  rows.put(2, 112, 100, 100, 100, 0.8F);  // IoU 0.79 with the first
  rows.put(4, 124, 100, 100, 100, 0.7F);  // 0.79 with the second, 0.61 with the first
  const Poses poses = rows.decode({{"nms_oks", 1.0}});
  ASSERT_EQ(poses.size(), 2);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 100.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(1)[0].x, 124.0F);
  EXPECT_EQ(rows.decode({{"nms_oks", 1.0}, {"nms_iou", 1.0}}).size(), 3);
  EXPECT_EQ(rows.decode({{"nms_oks", 1.0}, {"nms_iou", 0.5}}).size(), 1);
}

TEST(CenterRows, TwoInOneBoxAreTwoUnlessTheirPosesAgree) {
  Rows rows(2);
  rows.put(0, 100, 100, 100, 100, 0.9F);
  rows.put(1, 100, 100, 100, 40, 0.8F);  // half its box, other keypoints
  EXPECT_EQ(rows.decode().size(), 2);
  rows.put(1, 102, 101, 100, 69, 0.8F);
  for (int c = 5; c < kRowChannels; ++c) {
    rows.at(c, 1) = rows.at(c, 0);
  }
  EXPECT_EQ(rows.decode({{"nms_iou", 1.0}}).size(), 1);
  EXPECT_EQ(rows.decode({{"nms_iou", 1.0}, {"nms_oks", 1.0}}).size(), 2);
}

TEST(CenterRows, TheDetectionRanksButKeypointsAreTheScore) {
  Rows rows(3);
  rows.put(0, 100, 100, 80, 80, 0.95F, 0.3F);
  rows.put(1, 300, 300, 80, 80, 0.5F, 0.8F);
  rows.put(2, 500, 300, 80, 80, 0.09F, 0.9F);  // under score_threshold
  rows.at(7, 1) = 0.01F;                       // one keypoint not seen
  const Poses poses = rows.decode();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(poses.score(0), 1.6F / 3.0F, 1e-6F);
  EXPECT_EQ(poses.keypoints_of(0)[0].score, 0.0F);
  EXPECT_EQ(poses.keypoints_of(0)[0].x, 0.0F);
  EXPECT_NEAR(poses.score(1), 0.3F, 1e-6F);
  const Poses best = rows.decode({{"max_people", 1}});  // by detection
  ASSERT_EQ(best.size(), 1);
  EXPECT_NEAR(best.score(0), 0.3F, 1e-6F);
}

TEST(CenterRows, OnlyTheHighestRowsEnterAndOfEqualOnesTheFirst) {
  Rows rows(500);
  for (int i = 0; i < 500; ++i) {
    rows.put(i, static_cast<float>(20 + 30 * (i % 20)), static_cast<float>(10 + 24 * (i / 20)), 20,
             20, i >= 250 ? 0.6F : 0.3F);
  }
  rows.at(4, 100) = 0.7F;
  const Poses poses = rows.decode({{"max_candidates", 4}});
  ASSERT_EQ(poses.size(), 4);
  std::vector<float> x;
  for (int p = 0; p < 4; ++p) {
    x.push_back(poses.keypoints_of(p)[0].x);
  }
  EXPECT_THAT(x, testing::ElementsAre(20.0F, 320.0F, 350.0F, 380.0F));  // rows 100, 250, 251, 252
  EXPECT_EQ(rows.decode({{"max_people", 7}}).size(), 7);
  EXPECT_EQ(rows.decode().size(), 100);
}

TEST(CenterRows, ARowWithoutABoxIsNobody) {
  for (const float bad : {kNaN, std::numeric_limits<float>::infinity(), -5.0F, 0.0F}) {
    Rows rows(2);
    rows.put(0, 100, 100, 80, 80, 0.9F);
    rows.put(1, 300, 300, 80, 80, 0.8F);
    rows.at(2, 0) = bad;
    const Poses poses = rows.decode();
    ASSERT_EQ(poses.size(), 1) << bad;
    EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 300.0F);
  }
}

TEST(CenterRows, RefusedWithWhatIsWrong) {
  const auto with = [](std::vector<OutputSpec> outputs, nlohmann::json decode = {}) {
    return refusal(manifest_of(640, 640, std::move(outputs), std::move(decode)));
  };
  EXPECT_EQ(with({sequence_of("rows", 14, 10)}), "");
  EXPECT_EQ(with({sequence_of("rows", 15, 10)}), "");
  EXPECT_EQ(with({sequence_of("rows", 11, 10)}), "");
  EXPECT_EQ(with({sequence_of("keypoints", 9, 10), sequence_of("boxes", 5, 10)}), "");
  EXPECT_THAT(with({sequence_of("rows", 56, 10)}), testing::HasSubstr("14, 11 or 15"));
  EXPECT_THAT(with({map_of("rows", 14, 8)}), testing::HasSubstr("outputs.rows.length"));
  EXPECT_THAT(with({sequence_of("boxes", 5, 10)}), testing::HasSubstr("boxes and keypoints"));
  EXPECT_THAT(with({sequence_of("boxes", 4, 10), sequence_of("keypoints", 9, 10)}),
              testing::HasSubstr("must be 5"));
  EXPECT_THAT(with({sequence_of("boxes", 5, 10), sequence_of("keypoints", 9, 11)}),
              testing::HasSubstr("must be that of boxes (10)"));
  EXPECT_THAT(with({sequence_of("rows", 14, 10), sequence_of("masks", 32, 10)}),
              testing::HasSubstr("outputs.masks"));
  EXPECT_THAT(with({sequence_of("rows", 14, 10)}, {{"snap", 0.3}}),
              testing::HasSubstr("decode.snap"));
}

TEST(CenterRows, ADetectorsPosesAreBoxes) {
  Manifest manifest = manifest_of(96, 64, {sequence_of("boxes", 5, 3)}, {{"nms_iou", 0.5}});
  manifest.mode = Mode::kDetector;
  manifest.skeleton = {};
  // NCW: a plane for each of left, top, right, bottom, score; the second repeats the first.
  const std::vector<float> values = {10, 11, 50, 20, 20,   5,    30,  30,
                                     90, 60, 60, 60, 0.5F, 0.9F, 0.7F};
  MapView boxes{values.data(), DType::kFloat32, 5, 1, 3, 3, 3, 1};
  const std::unique_ptr<Decoder> decoder = open_decoder(manifest);
  const std::unique_ptr<Decoder::Scratch> scratch = decoder->make_scratch();
  Poses poses;
  decoder->decode({boxes}, scratch.get(), &poses);
  ASSERT_EQ(poses.size(), 2);
  ASSERT_EQ(poses.keypoints_per_person(), 2);
  EXPECT_FLOAT_EQ(poses.score(0), 0.9F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 11.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].y, 60.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(1)[1].x, 90.0F);
  manifest.outputs.push_back(sequence_of("keypoints", 9, 3));
  EXPECT_THAT(refusal(manifest), testing::HasSubstr("boxes alone"));
}

// ---- grids

constexpr int kWidth = 40, kHeight = 30, kStride = 4;

// One person's centre at column 20, row 15, keypoints right on it until they are moved.
struct Grid {
  Grid() : centers(cells()), offsets(2 * kKeypoints * cells()), heatmaps(kKeypoints * cells()) {
    centers[index(20, 15)] = 0.9F;
  }
  static std::size_t cells() { return static_cast<std::size_t>(kWidth * kHeight); }
  static std::size_t index(int x, int y) { return static_cast<std::size_t>(y * kWidth + x); }
  void regress(int k, float dx, float dy) {
    offsets[static_cast<std::size_t>(2 * k) * cells() + index(20, 15)] = dx;
    offsets[static_cast<std::size_t>(2 * k + 1) * cells() + index(20, 15)] = dy;
  }
  float& heat(int k, int x, int y) {
    return heatmaps[static_cast<std::size_t>(k) * cells() + index(x, y)];
  }
  Poses decode(nlohmann::json parameters = nlohmann::json::object()) const {
    const auto view = [](const std::vector<float>& values, int channels) {
      return dense_map(values.data(), DType::kFloat32, Layout::kNCHW, channels, kHeight, kWidth);
    };
    return decoded(manifest_of(kStride * kWidth, kStride * kHeight,
                               {map_of("centers", 1, kStride), map_of("offsets", 6, kStride),
                                map_of("heatmaps", 3, kStride)},
                               std::move(parameters)),
                   {view(centers, 1), view(offsets, 6), view(heatmaps, 3)});
  }

  std::vector<float> centers, offsets, heatmaps;
};

float cell_of(float pixel) { return (pixel - 1.5F) / 4.0F; }

TEST(CenterGrid, AKeypointMovesToTheNearestMaximumWithinItsReach) {
  Grid grid;
  grid.regress(0, -10.0F, 0.3F);  // the person is 20 cells wide: a reach of 6 of 0.3
  grid.regress(1, 10.0F, 0.0F);
  grid.regress(2, 0.0F, 5.0F);
  grid.heat(0, 11, 15) = 0.5F;   // one cell away
  grid.heat(0, 9, 16) = 0.9F;    // higher, but farther
  grid.heat(1, 35, 15) = 0.8F;   // five away: out of the window that is looked at first
  grid.heat(1, 30, 15) = 0.04F;  // nearer, but no keypoint
  grid.heat(2, 20, 27) = 0.8F;   // seven away: out of reach
  grid.heat(2, 20, 20) = 0.2F;   // on the spot, but the flank of the next
  grid.heat(2, 20, 21) = 0.3F;
  const Poses poses = grid.decode({{"snap", 0.3}});
  ASSERT_EQ(poses.size(), 1);
  const Keypoint* point = poses.keypoints_of(0);
  EXPECT_NEAR(cell_of(point[0].x), 11.0F, 1e-4F);
  EXPECT_FLOAT_EQ(point[0].score, 0.5F);
  EXPECT_NEAR(cell_of(point[1].x), 35.0F, 1e-4F);
  EXPECT_FLOAT_EQ(point[1].score, 0.8F);
  EXPECT_NEAR(cell_of(point[2].y), 20.75F, 0.3F);  // between 20 and 21 by the parabola
  EXPECT_FLOAT_EQ(point[2].score, 0.3F);
  EXPECT_NEAR(poses.score(0), 1.6F / 3.0F, 1e-6F);
}

TEST(CenterGrid, WithoutSnappingTheHeatmapScoresTheRegressedPlace) {
  Grid grid;
  grid.regress(0, -10.0F, 0.0F);
  grid.regress(1, 10.5F, 0.0F);
  grid.regress(2, 0.0F, 40.0F);  // below the map: nothing vouches for it
  grid.heat(0, 10, 15) = 0.6F;
  grid.heat(1, 30, 15) = 0.8F;
  grid.heat(1, 31, 15) = 0.4F;
  grid.heat(1, 32, 15) = 0.9F;
  const Poses poses = grid.decode();
  ASSERT_EQ(poses.size(), 1);
  const Keypoint* point = poses.keypoints_of(0);
  EXPECT_NEAR(cell_of(point[0].x), 10.0F, 1e-4F);
  EXPECT_NEAR(point[0].score, 0.6F, 1e-6F);
  EXPECT_NEAR(cell_of(point[1].x), 30.5F, 1e-4F);
  EXPECT_NEAR(point[1].score, 0.6F, 1e-6F);
  EXPECT_EQ(point[2].score, 0.0F);
}

TEST(CenterGrid, OriginAndDirectionOfTheOriginalProjects) {
  Grid grid;
  grid.regress(0, -10.0F, 2.0F);
  std::fill(grid.heatmaps.begin(), grid.heatmaps.end(), 0.5F);
  const auto first = [&grid](const nlohmann::json& parameters) {
    const Poses poses = grid.decode(parameters);
    EXPECT_EQ(poses.size(), 1);
    return poses.keypoints_of(0)[0];
  };
  EXPECT_FLOAT_EQ(first({}).x, 41.5F);
  EXPECT_FLOAT_EQ(first({}).y, 69.5F);
  EXPECT_FLOAT_EQ(first({{"origin_px", 0}}).x, 40.0F);
  EXPECT_FLOAT_EQ(first({{"toward_center", true}}).x, 121.5F);
  EXPECT_FLOAT_EQ(first({{"toward_center", true}}).y, 53.5F);
}

TEST(CenterGrid, ACentresPlateauIsOnePersonAndARepeatedPoseIsDropped) {
  Grid grid;
  for (int k = 0; k < kKeypoints; ++k) {
    grid.regress(k, static_cast<float>(6 * k - 6), static_cast<float>(3 * k));
  }
  std::fill(grid.heatmaps.begin(), grid.heatmaps.end(), 0.5F);
  grid.centers[Grid::index(21, 15)] = 0.9F;
  EXPECT_EQ(grid.decode().size(), 1);
  // A second, lower maximum whose offsets lead to the same keypoints.
  grid.centers[Grid::index(23, 15)] = 0.8F;
  for (int k = 0; k < kKeypoints; ++k) {
    const std::size_t x = static_cast<std::size_t>(2 * k) * Grid::cells();
    grid.offsets[x + Grid::index(23, 15)] = static_cast<float>(6 * k - 9) + 0.1F;
    grid.offsets[x + Grid::cells() + Grid::index(23, 15)] = static_cast<float>(3 * k);
  }
  EXPECT_EQ(grid.decode().size(), 1);
  EXPECT_EQ(grid.decode({{"nms_oks", 1.0}}).size(), 2);
}

TEST(CenterGrid, RefusedWithWhatIsWrong) {
  const auto with = [](std::vector<OutputSpec> outputs, nlohmann::json decode = {}) {
    return refusal(manifest_of(160, 120, std::move(outputs), std::move(decode)));
  };
  const OutputSpec centers = map_of("centers", 1, 4), offsets = map_of("offsets", 6, 4);
  EXPECT_EQ(with({centers, offsets}), "");
  EXPECT_EQ(with({offsets, map_of("heatmaps", 4, 4)}), "");
  EXPECT_THAT(with({offsets, map_of("heatmaps", 3, 4)}), testing::HasSubstr("must be 4"));
  EXPECT_THAT(with({offsets}), testing::HasSubstr("centers or heatmaps"));
  EXPECT_THAT(with({centers, offsets, map_of("heatmap_offset", 2, 4)}),
              testing::HasSubstr("outputs.heatmap_offset: needs heatmaps"));
  EXPECT_THAT(with({centers, offsets, map_of("center_offset", 2, 4)}),
              testing::HasSubstr("needs sizes"));
  EXPECT_THAT(with({centers, map_of("offsets", 6, 8)}), testing::HasSubstr("stride"));
  EXPECT_THAT(with({centers, sequence_of("offsets", 6, 8)}), testing::HasSubstr("stride"));
  EXPECT_THAT(with({centers, offsets, map_of("depth", 1, 4)}),
              testing::HasSubstr("heatmap_offset, sizes"));
  EXPECT_THAT(with({map_of("centers", 1, 120), map_of("offsets", 6, 120)}),
              testing::HasSubstr("2 … 4096"));
  EXPECT_THAT(with({centers, offsets}, {{"snap", 2}}), testing::HasSubstr("decode.snap"));
  EXPECT_THAT(with({centers, offsets}, {{"nms_iou", 0.5}}), testing::HasSubstr("decode.nms_iou"));
}

}  // namespace
}  // namespace posewire::test
