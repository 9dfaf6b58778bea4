// SPDX-License-Identifier: Apache-2.0
// What is particular to pose proposal networks: suppression of boxes, limbs in a window of cells,
// people without their instance. The contract is decode_rows_test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "bundle/manifest.h"
#include "core/error.h"
#include "decode_checks.h"

namespace posewire::test {
namespace {

constexpr int kKeypoints = 3, kKinds = 4, kStride = 32;

// Maps of a network for three keypoints in a row, a - b - c. Each keypoint's box is an eighth of
// the input, so that boxes of neighbouring cells may overlap.
struct Net {
  Net(int columns, int rows, int limb_count = 2) : width(columns), height(rows), limbs(limb_count) {
    for (const char* name : {"conf", "iou", "x", "y", "w", "h"}) {
      maps.push_back({name, std::vector<float>(static_cast<std::size_t>(kKinds) * cells())});
    }
    std::fill(maps[1].values.begin(), maps[1].values.end(), 1.0F);
    maps.push_back({"edges", std::vector<float>(static_cast<std::size_t>(81 * limbs) * cells())});
  }
  std::size_t cells() const { return static_cast<std::size_t>(width * height); }
  float& at(std::size_t map, int channel, int column, int row) {
    return maps[map].values[static_cast<std::size_t>(channel) * cells() +
                            static_cast<std::size_t>(row * width + column)];
  }
  void put(int kind, int column, int row, float score, float x = 0.5F, float y = 0.5F,
           float size = 0.125F) {
    const float values[] = {score, 1.0F, x, y, size, size};
    for (std::size_t i = 0; i < 6; ++i) {
      at(i, kind, column, row) = values[i];
    }
  }
  void link(int limb, int column, int row, int to_column, int to_row, float edge = 0.9F) {
    at(6, 81 * limb + 9 * (to_row - row + 4) + to_column - column + 4, column, row) = edge;
  }
  Manifest manifest(nlohmann::json decode = nlohmann::json::object()) const {
    Manifest manifest;
    manifest.skeleton.keypoints = {"a", "b", "c"};
    manifest.skeleton.limbs = {{0, 1}, {1, 2}};
    manifest.skeleton.flips = {0, 1, 2};
    manifest.skeleton.sigmas = {0.05F, 0.05F, 0.05F};
    manifest.input_width = kStride * width;
    manifest.input_height = kStride * height;
    for (const Map& map : maps) {
      OutputSpec spec;
      spec.name = map.name;
      spec.channels = static_cast<int>(map.values.size() / cells());
      spec.stride = kStride;
      manifest.outputs.push_back(spec);
    }
    manifest.algorithm = "pose_proposal";
    manifest.decode = std::move(decode);
    return manifest;
  }
  Poses decode(nlohmann::json parameters = nlohmann::json::object()) const {
    std::vector<MapView> views;
    for (const Map& map : maps) {
      views.push_back(dense_map(map.values.data(), DType::kFloat32, Layout::kNCHW,
                                static_cast<int>(map.values.size() / cells()), height, width));
    }
    return decoded(manifest(std::move(parameters)), views);
  }

  struct Map {
    std::string name;
    std::vector<float> values;
  };
  int width, height, limbs;
  std::vector<Map> maps;
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

TEST(PoseProposal, AKeypointIsItsBoxsCentreAndScoresBothProbabilities) {
  Net net(12, 12);
  net.put(0, 2, 3, 0.8F, 0.25F, 0.75F);
  net.put(1, 4, 3, 0.9F);
  net.put(2, 4, 5, 1.0F, 0.0F, 1.0F);
  net.at(1, 0, 2, 3) = 0.5F;
  net.link(0, 2, 3, 4, 3);
  net.link(1, 4, 3, 4, 5);
  const Poses poses = net.decode();
  ASSERT_EQ(poses.size(), 1);
  const Keypoint* point = poses.keypoints_of(0);
  EXPECT_FLOAT_EQ(point[0].x, 72.0F);
  EXPECT_FLOAT_EQ(point[0].y, 120.0F);
  EXPECT_FLOAT_EQ(point[0].score, 0.4F);
  EXPECT_FLOAT_EQ(point[2].x, 128.0F);
  EXPECT_FLOAT_EQ(point[2].y, 192.0F);
  EXPECT_FLOAT_EQ(poses.score(0), 2.3F / 3.0F);
}

// HyperPose erased from the list that it walked over: every other overlapping box survived.
TEST(PoseProposal, EveryBoxThatABetterOneOverlapsIsDroppedAndDropsNoOther) {
  Net net(12, 12);
  for (int column = 1; column <= 4; ++column) {  // all around the same place between 1 and 4
    net.put(0, column, 6, 0.5F + 0.1F * static_cast<float>(column), column < 3 ? 1.0F : 0.0F, 0.5F,
            0.5F);
  }
  net.put(1, 3, 8, 0.9F);
  net.put(2, 3, 9, 0.9F);
  net.link(1, 3, 8, 3, 9);
  for (int column = 1; column <= 4; ++column) {
    net.link(0, column, 6, 3, 8);
  }
  const Poses poses = net.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 128.0F);  // column 4's: the best
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].score, 0.9F);
  // Chain: the middle box overlaps both others (0.33), which do not overlap each other.
  Net chain(12, 12);
  for (const auto& [column, score] : {std::pair{2, 0.9F}, {3, 0.8F}, {4, 0.7F}}) {
    chain.put(0, column, 2, score, 0.5F, 0.5F, 64.0F / 384.0F);
    chain.put(1, column, 4, 0.9F, 0.5F, 0.5F, 0.01F);
    chain.put(2, column, 6, 0.9F, 0.5F, 0.5F, 0.01F);
    chain.link(0, column, 2, column, 4);
    chain.link(1, column, 4, column, 6);
  }
  EXPECT_EQ(chain.decode().size(), 2);
  EXPECT_EQ(chain.decode({{"nms_iou", 0.34}}).size(), 3);
}

TEST(PoseProposal, LimbsReachFourCellsAndAcrossEveryBorder) {
  for (const auto& [width, height] : {std::pair{12, 12}, {5, 5}, {3, 9}, {9, 2}}) {
    for (const bool forward : {true, false}) {
      const int last_x = std::min(width, 5) - 1, last_y = std::min(height, 5) - 1;
      Net net(width, height);
      const int ax = forward ? 0 : last_x, ay = forward ? 0 : last_y;
      net.put(0, ax, ay, 0.9F);
      net.put(1, last_x - ax, last_y - ay, 0.9F);
      net.put(2, ax, ay, 0.9F);
      net.link(0, ax, ay, last_x - ax, last_y - ay);
      net.link(1, last_x - ax, last_y - ay, ax, ay);
      EXPECT_EQ(net.decode().size(), 1) << width << " x " << height << " " << forward;
    }
  }
  Net far(12, 12);  // five cells: no channel tells of it, whatever the others hold
  std::fill(far.maps[6].values.begin(), far.maps[6].values.end(), 1.0F);
  far.put(0, 2, 2, 0.9F);
  far.put(1, 7, 2, 0.9F);
  far.put(2, 7, 4, 0.9F);
  EXPECT_EQ(far.decode().size(), 0);
  const Poses pair = far.decode({{"min_keypoints", 2}});
  ASSERT_EQ(pair.size(), 1);
  EXPECT_EQ(pair.keypoints_of(0)[0].score, 0.0F);
}

TEST(PoseProposal, LimbsAreOneToOneBestFirst) {
  Net net(12, 12);
  net.put(0, 2, 2, 0.9F);
  net.put(0, 2, 8, 0.9F);
  net.put(1, 4, 4, 0.9F);
  net.put(1, 4, 6, 0.8F);
  net.link(0, 2, 2, 4, 4, 0.7F);
  net.link(0, 2, 2, 4, 6, 0.6F);
  net.link(0, 2, 8, 4, 4, 0.9F);  // the best: 4, 4 is taken
  net.link(0, 2, 8, 4, 6, 0.5F);
  const Poses poses = net.decode({{"min_keypoints", 2}});
  ASSERT_EQ(poses.size(), 2);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].y, 8.5F * 32.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].y, 4.5F * 32.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(1)[0].y, 2.5F * 32.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(1)[1].y, 6.5F * 32.0F);
}

TEST(PoseProposal, TheInstanceJoinsWhatAMissingKeypointPartsAndIsNoneItself) {
  const nlohmann::json star = {{"instance", 1}, {"limbs", {{1, 0}, {1, 2}, {1, 3}}}};
  for (const bool seen : {true, false}) {
    Net net(12, 12, 3);
    net.put(0, 2, 2, 0.9F);  // kinds: a, the instance, b, c
    if (seen) {
      net.put(1, 4, 4, 0.9F);
    }
    net.put(2, 6, 4, 0.6F);
    net.put(3, 4, 6, 0.6F);
    net.link(0, 4, 4, 2, 2);
    net.link(1, 4, 4, 6, 4);
    net.link(2, 4, 4, 4, 6);
    const Poses poses = net.decode(star);
    ASSERT_EQ(poses.size(), seen ? 1 : 0);
    if (seen) {
      EXPECT_FLOAT_EQ(poses.score(0), 0.7F);
      EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].x, 6.5F * 32.0F);
      EXPECT_FLOAT_EQ(poses.keypoints_of(0)[2].y, 6.5F * 32.0F);
    }
  }
}

TEST(PoseProposal, PlacesStayInTheirCells) {
  Net net(4, 4);
  net.put(0, 1, 1, 0.9F, 7.0F, -3.0F);
  net.put(1, 2, 1, 0.9F, std::numeric_limits<float>::quiet_NaN(), 0.5F);
  net.put(2, 2, 2, 2.0F);
  net.link(0, 1, 1, 2, 1);
  net.link(1, 2, 1, 2, 2);
  const Poses poses = net.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].x, 64.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[0].y, 32.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].x, 64.0F);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[2].score, 1.0F);
}

TEST(PoseProposal, RefusedWithWhatIsWrong) {
  const Net net(6, 6);
  EXPECT_EQ(refusal(net.manifest()), "");
  EXPECT_THAT(refusal(net.manifest({{"limbs", {{0, 1}}}})),
              testing::HasSubstr("outputs.edges.channels: is 162, but must be 81"));
  EXPECT_EQ(refusal(net.manifest({{"limbs", {{3, 1}, {3, 0}}}})), "");
  for (const auto& limbs : std::vector<nlohmann::json>{nlohmann::json::array(),
                                                       3,
                                                       "all",
                                                       {{"a", 1}},
                                                       {{0, 1}, {1, 4}},
                                                       {{0, 1}, {1}},
                                                       {{0, 1}, {2, 2}},
                                                       {{0, 1}, {-1, 2}},
                                                       {{0, 1}, {0.5, 2}}}) {
    EXPECT_THAT(refusal(net.manifest({{"limbs", limbs}})),
                testing::HasSubstr("decode.limbs: must be an array of pairs"))
        << limbs;
  }
  EXPECT_THAT(refusal(net.manifest({{"instance", 4}})), testing::HasSubstr("decode.instance"));
  Manifest manifest = net.manifest();
  manifest.outputs[2].stride = 16;
  EXPECT_THAT(refusal(manifest), testing::HasSubstr("outputs.x.stride: must be that of conf (32)"));
  manifest = net.manifest();
  manifest.outputs.erase(manifest.outputs.begin() + 3);
  EXPECT_THAT(refusal(manifest), testing::HasSubstr("needs an output \"y\""));
  manifest = net.manifest();
  manifest.outputs.erase(manifest.outputs.begin() + 1);  // iou is optional
  EXPECT_EQ(refusal(manifest), "");
  manifest = net.manifest();
  manifest.input_height = 31;
  EXPECT_THAT(refusal(manifest),
              testing::HasSubstr("outputs.conf.stride: is 32, larger than the input (192 x 31"));
  manifest = net.manifest();
  manifest.skeleton.limbs.clear();
  EXPECT_THAT(refusal(manifest), testing::HasSubstr("limbs"));
}

}  // namespace
}  // namespace posewire::test
