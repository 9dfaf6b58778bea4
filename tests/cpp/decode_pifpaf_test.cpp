// SPDX-License-Identifier: Apache-2.0
// What is particular to pifpaf: the accumulated confidence, the blend of two associations, the way
// back, occupancy, the caps, skeletons without connections. Fields are written cell by cell.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "core/error.h"
#include "decode/composite.h"
#include "decode/intensity.h"
#include "decode/rows.h"
#include "decode_checks.h"

namespace posewire::test {
namespace {

constexpr int kSize = 24, kStride = 8;  // cells each way

struct Fields {
  Fields(int keypoints, std::vector<std::pair<int, int>> limbs) {
    manifest.algorithm = "pifpaf";
    manifest.decode = nlohmann::json::object();
    manifest.input_width = manifest.input_height = kSize * kStride;
    for (int k = 0; k < keypoints; ++k) {
      manifest.skeleton.keypoints.push_back("k" + std::to_string(k));
    }
    manifest.skeleton.limbs = std::move(limbs);
    const int count = static_cast<int>(manifest.skeleton.limbs.size());
    manifest.outputs = {{"cif", 5 * keypoints, kStride, Layout::kNCHW, 0},
                        {"caf", 8 * count, kStride, Layout::kNCHW, 0}};
    cif.resize(static_cast<std::size_t>(5 * keypoints * kSize * kSize));
    caf.resize(static_cast<std::size_t>(8 * count * kSize * kSize));
  }

  static void put(std::vector<float>* maps, int channel, int x, int y, float value) {
    (*maps)[static_cast<std::size_t>((channel * kSize + y) * kSize + x)] = value;
  }
  // 4 x 4 cells that point at x, y.
  void keypoint(int k, float x, float y, float confidence = 1.0F, float scale = 1.0F) {
    const int left = static_cast<int>(std::floor(x)) - 1, top = static_cast<int>(std::floor(y)) - 1;
    for (int row = std::max(top, 0); row < std::min(top + 4, kSize); ++row) {
      for (int column = std::max(left, 0); column < std::min(left + 4, kSize); ++column) {
        put(&cif, 5 * k + 1, column, row, confidence);
        put(&cif, 5 * k + 2, column, row, x);
        put(&cif, 5 * k + 3, column, row, y);
        put(&cif, 5 * k + 4, column, row, scale);
      }
    }
  }
  // One cell that joins two points.
  void association(int limb, int column, int row, float ax, float ay, float bx, float by,
                   float confidence = 1.0F, float scale = 1.0F) {
    const float values[] = {confidence, ax, ay, bx, by, scale, scale};
    for (int c = 0; c < 7; ++c) {
      put(&caf, 8 * limb + 1 + c, column, row, values[c]);
    }
  }
  Poses decode() const {
    const int keypoints = manifest.skeleton.count();
    const int limbs = static_cast<int>(manifest.skeleton.limbs.size());
    return decoded(
        manifest,
        {dense_map(cif.data(), DType::kFloat32, Layout::kNCHW, 5 * keypoints, kSize, kSize),
         dense_map(caf.data(), DType::kFloat32, Layout::kNCHW, 8 * limbs, kSize, kSize)});
  }

  Manifest manifest;
  std::vector<float> cif, caf;
};

float pixel(float cell) { return cell * kStride + 3.5F; }

// The cells of one keypoint type, a block each: the position of one and seven copies.
struct Discs {
  Discs() : cells(1, 1, 512) {}

  void add(float x, float y, float sigma, float weight) {
    const std::size_t at = cells.first[1];
    for (std::size_t i = at; i < at + kLanes; ++i) {
      cells.x[0][i] = x;
      cells.y[0][i] = y;
      cells.scale[0][i] = 2.0F * sigma;
      cells.confidence[i] = i == at ? 16.0F * weight : 0.0F;
    }
    cells.first[1] = at + kLanes;
  }
  float sum(float x, float y, const Kernels& kernels) const {
    Intensity intensity(512);
    intensity.set(cells, 0, 0.0F, kernels);
    const std::vector<float> xs(kLanes, x), ys(kLanes, y), zeros(kLanes);
    std::vector<float> boxes(CompositeCells::kBoxes), sums(kLanes);
    kernels.bound_blocks(xs.data(), ys.data(), zeros.data(), kLanes, boxes.data());
    intensity.at(xs.data(), ys.data(), boxes.data(), kLanes, kernels, sums.data());
    return sums[0];
  }

  CompositeCells cells;
};

TEST(Intensity, SumsDiscsWithinOneSigmaAndStopsAtOne) {
  for (const Kernels* kernels : available_kernels()) {
    Discs discs;
    const auto at = [&](float x, float y) { return discs.sum(x, y, *kernels); };
    EXPECT_EQ(at(3.0F, 3.0F), 0.0F);
    discs.add(11.9F, 12.1F, 2.0F, 0.25F);
    discs.add(12.2F, 11.8F, 0.5F, 0.5F);
    const auto disc = [](float d2, float sigma, float weight) {
      return weight * std::pow(1.0F - d2 / (16.0F * sigma * sigma), 8.0F);
    };
    EXPECT_NEAR(at(12.2F, 11.8F), disc(0.18F, 2.0F, 0.25F) + 0.5F, 1e-5F);
    EXPECT_NEAR(at(11.9F, 12.1F), 0.25F + disc(0.18F, 0.5F, 0.5F), 1e-5F);
    EXPECT_NEAR(at(13.5F, 12.1F), disc(2.56F, 2.0F, 0.25F), 1e-5F);  // beyond the narrow one
    EXPECT_EQ(at(13.95F, 12.1F), 0.0F);                              // beyond both
    EXPECT_NEAR(disc(1.0F, 1.0F, 1.0F), std::exp(-0.5F), 0.011F);    // it stands for a Gaussian
    for (int i = 0; i < 20; ++i) {
      discs.add(12.0F, 12.0F, 1.0F, 0.1F);
    }
    EXPECT_EQ(at(12.0F, 12.0F), 1.0F);
  }
}

TEST(Intensity, TheWidestDiscReachesItsWholeSquare) {
  Discs discs;
  discs.add(1001.0F, 999.0F, 1e9F, 0.5F);  // kept to kMaxSigma
  EXPECT_GT(discs.sum(993.5F, 999.0F, best_kernels()), 0.25F);
  EXPECT_GT(discs.sum(1008.5F, 999.0F, best_kernels()), 0.25F);
  EXPECT_GT(discs.sum(1001.0F, 991.5F, best_kernels()), 0.25F);
  EXPECT_EQ(discs.sum(1010.0F, 999.0F, best_kernels()), 0.0F);
}

TEST(PifPaf, TwoAssociationsAreBlendedAndOneAloneCountsHalf) {
  Fields fields(2, {{0, 1}});
  fields.keypoint(0, 5.0F, 6.0F);
  fields.keypoint(1, 12.0F, 6.0F);
  fields.association(0, 8, 6, 5.0F, 6.0F, 11.8F, 6.0F);
  Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_FLOAT_EQ(poses.keypoints_of(0)[1].x, pixel(11.8F));
  const float alone = poses.keypoints_of(0)[1].score;
  EXPECT_GT(alone, 0.6F);
  EXPECT_LT(alone, 0.72F);  // sqrt(1 / 2), less for the accumulated confidence at 11.8
  fields.association(0, 9, 6, 5.0F, 6.0F, 12.2F, 6.0F);
  poses = fields.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[1].x, pixel(12.0F), 1e-3F);
  EXPECT_NEAR(poses.keypoints_of(0)[1].score, alone * std::sqrt(2.0F), 1e-4F);
  EXPECT_FLOAT_EQ(poses.score(0), 0.5F * (1.0F + poses.keypoints_of(0)[1].score));
}

TEST(PifPaf, AConnectionThatDoesNotLeadBackIsNone) {
  // The better person's limb is unsure: keypoint 1 leads back to the weaker one.
  Fields fields(2, {{0, 1}});
  fields.keypoint(0, 5.0F, 14.0F, 1.0F);
  fields.keypoint(0, 5.0F, 6.0F, 0.6F);
  fields.keypoint(1, 12.0F, 10.0F, 0.8F);
  for (const int column : {8, 9}) {
    fields.association(0, column, 12, 5.0F, 14.0F, 12.0F, 10.0F, 0.6F);
    fields.association(0, column, 8, 5.0F, 6.0F, 12.0F, 10.0F, 1.0F);
  }
  const auto owner_row = [](const Poses& poses) {  // of keypoint 1: its person's keypoint 0
    float row = 0.0F;
    int owners = 0;
    for (int p = 0; p < poses.size(); ++p) {
      if (poses.keypoints_of(p)[1].score > 0.0F) {
        row = poses.keypoints_of(p)[0].y;
        ++owners;
      }
    }
    EXPECT_EQ(owners, 1);
    return row;
  };
  Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(owner_row(poses), pixel(6.0F), 1e-3F);
  // Without the check two people claim it, and the better one keeps it.
  fields.manifest.decode["reverse_check"] = false;
  poses = fields.decode();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(owner_row(poses), pixel(14.0F), 1e-3F);
}

TEST(PifPaf, TheBestConnectionOfTheFrontierIsTakenFirst) {
  // Keypoint 2 can be reached from 0 directly (weak, to the left) or through 1 (strong, right).
  Fields fields(3, {{0, 2}, {0, 1}, {1, 2}});
  fields.keypoint(0, 5.0F, 12.0F);
  fields.keypoint(1, 12.0F, 12.0F, 0.9F);
  fields.keypoint(2, 18.0F, 6.0F, 0.9F);
  fields.keypoint(2, 18.0F, 18.0F, 0.9F);
  for (const int column : {8, 9}) {
    fields.association(0, column, 4, 5.0F, 12.0F, 18.0F, 6.0F, 0.5F);
    fields.association(1, column, 12, 5.0F, 12.0F, 12.0F, 12.0F, 0.95F);
    fields.association(2, column, 15, 12.0F, 12.0F, 18.0F, 18.0F, 0.95F);
  }
  const Poses poses = fields.decode();
  ASSERT_GE(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[2].y, pixel(18.0F), 1e-3F);
}

TEST(PifPaf, UnconnectedKeypointsAreTheirOwnPeople) {
  Fields fields(4, {{0, 1}});  // 2 and 3 have no limb
  fields.keypoint(0, 5.0F, 6.0F);
  fields.keypoint(1, 12.0F, 6.0F);
  fields.keypoint(3, 8.0F, 18.0F);
  for (const int column : {8, 9}) {
    fields.association(0, column, 6, 5.0F, 6.0F, 12.0F, 6.0F);
  }
  Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(poses.score(0), 0.5F, 1e-3F);
  EXPECT_NEAR(poses.score(1), 0.25F, 1e-3F);
  EXPECT_NEAR(poses.keypoints_of(1)[3].x, pixel(8.0F), 1e-3F);
  fields.manifest.decode["min_keypoints"] = 2;
  EXPECT_EQ(fields.decode().size(), 1);
}

TEST(PifPaf, AtTheBorderAndBeyondIt) {
  Fields fields(2, {{0, 1}});
  fields.keypoint(0, -0.4F, 23.4F);  // 2 x 2 cells of its patch are in the map
  fields.keypoint(1, 10.0F, -0.6F);  // further out than a cell reaches: nothing
  fields.manifest.decode["person_threshold"] = 0.0;
  Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[0].x, pixel(-0.4F), 1e-3F);
  EXPECT_NEAR(poses.keypoints_of(0)[0].y, pixel(23.4F), 1e-3F);
  EXPECT_LT(poses.keypoints_of(0)[0].score, 0.6F);  // a part of a patch is a part of the votes
  EXPECT_EQ(poses.keypoints_of(0)[1].score, 0.0F);
}

TEST(PifPaf, TheCapsKeepTheHighest) {
  Fields fields(2, {{0, 1}});
  fields.manifest.decode["person_threshold"] = 0.0;
  for (int i = 0; i < 5; ++i) {
    fields.keypoint(0, 4.0F * static_cast<float>(i) + 2.0F, 12.0F,
                    0.5F + 0.1F * static_cast<float>(i));
  }
  EXPECT_EQ(fields.decode().size(), 5);
  fields.manifest.decode["max_people"] = 2;
  Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 2);
  EXPECT_NEAR(poses.keypoints_of(0)[0].x, pixel(18.0F), 1e-3F);
  EXPECT_NEAR(poses.keypoints_of(1)[0].x, pixel(14.0F), 1e-3F);
  fields.manifest.decode["max_people"] = 256;
  fields.manifest.decode["max_cells"] = 16;  // one patch
  poses = fields.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_NEAR(poses.keypoints_of(0)[0].x, pixel(18.0F), 1e-3F);
  EXPECT_NEAR(poses.keypoints_of(0)[0].score, 0.9F, 1e-3F);
}

// A scale of 0 (a network that has none for somebody) still has a reach.
TEST(PifPaf, NobodyIsTooSmall) {
  Fields fields(2, {{0, 1}});
  fields.keypoint(0, 5.05F, 6.0F, 1.0F, 0.0F);
  fields.keypoint(1, 6.0F, 6.0F, 1.0F, -1.0F);
  for (const int column : {5, 6}) {
    fields.association(0, column, 6, 5.0F, 6.05F, 6.0F, 6.05F, 1.0F, 0.0F);
  }
  const Poses poses = fields.decode();
  ASSERT_EQ(poses.size(), 1);
  EXPECT_GT(poses.keypoints_of(0)[0].score, 0.5F);
  EXPECT_GT(poses.keypoints_of(0)[1].score, 0.5F);
}

TEST(PifPaf, RefusesWithTheKeyThatIsWrong) {
  const auto message = [](const Manifest& manifest) -> std::string {
    try {
      open_decoder(manifest);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kBundle);
      return error.what();
    }
    return "";
  };
  const Fields good(3, {{0, 1}, {1, 2}});
  EXPECT_EQ(message(good.manifest), "");
  const auto with = [&](const auto& change) {
    Manifest manifest = good.manifest;
    change(&manifest);
    return message(manifest);
  };
  EXPECT_NE(with([](Manifest* m) { m->outputs[0].channels = 12; }).find("cif.channels"),
            std::string::npos);
  EXPECT_NE(with([](Manifest* m) { m->outputs[1].channels = 14; }).find("caf.channels"),
            std::string::npos);
  EXPECT_EQ(with([](Manifest* m) { m->outputs[1].channels = 18; }), "");  // the older order
  EXPECT_NE(with([](Manifest* m) { m->outputs[1].stride = 16; }).find("caf.stride"),
            std::string::npos);
  EXPECT_NE(with([](Manifest* m) { m->outputs[1].name = "pafs"; }).find("there are: cif, pafs"),
            std::string::npos);
  EXPECT_NE(with([](Manifest* m) { m->skeleton.limbs.clear(); }).find("limbs"), std::string::npos);
  EXPECT_NE(with([](Manifest* m) {
              m->skeleton.limbs[1] = {1, 3};
            }).find("skeleton.limbs[1]"),
            std::string::npos);
  for (const char* key : {"max_cells", "max_people", "min_keypoints", "relative", "reverse_check",
                          "origin_px", "cif_threshold", "caf_threshold", "seed_threshold",
                          "keypoint_threshold", "keypoint_ratio", "person_threshold"}) {
    EXPECT_NE(with([&](Manifest* m) { m->decode[key] = -1; }).find(std::string("decode.") + key),
              std::string::npos)
        << key;
  }
}

}  // namespace
}  // namespace posewire::test
