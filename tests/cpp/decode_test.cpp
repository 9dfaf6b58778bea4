// SPDX-License-Identifier: Apache-2.0
// The decoder floor: the table, parameters, and rendered people that must come back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "decode/decoder.h"
#include "decode_checks.h"
#include "scenes.h"

namespace posewire::test {
namespace {

using ::testing::HasSubstr;

std::string refusal(const Manifest& manifest) {
  try {
    open_decoder(manifest);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBundle);
    return error.what();
  }
  return "accepted";
}

// ---- the table and the parameters

TEST(Table, UnknownAlgorithmListsTheKnownOnes) {
  Manifest manifest = paf_manifest(skeleton_named("body18"), 8, 8, 8, true);
  manifest.algorithm = "magic";
  EXPECT_THAT(refusal(manifest), HasSubstr("decode.algorithm"));
  EXPECT_THAT(refusal(manifest), HasSubstr("magic"));
  for (const std::string& name : decoder_names()) {
    EXPECT_THAT(refusal(manifest), HasSubstr(name));
  }
}

TEST(Paf, RefusesWhatItCannotDecode) {
  const Skeleton body = skeleton_named("body18");
  const auto with = [&body](const char* key, nlohmann::json value) {
    return paf_manifest(body, 8, 8, 8, true, {{"algorithm", "paf"}, {key, std::move(value)}});
  };
  EXPECT_EQ(refusal(with("samples", 12)), "accepted");
  EXPECT_THAT(refusal(with("sample", 12)), HasSubstr("decode.sample: unknown key (known: "));
  EXPECT_THAT(refusal(with("samples", 12.5)), HasSubstr("decode.samples: must be an integer"));
  EXPECT_THAT(refusal(with("samples", 1)), HasSubstr("decode.samples: "));
  EXPECT_THAT(refusal(with("samples", 1e300)), HasSubstr("decode.samples: "));
  EXPECT_THAT(refusal(with("score_threshold", "high")), HasSubstr("must be a number in"));
  EXPECT_THAT(refusal(with("score_threshold", 1e300)), HasSubstr("must be a number in"));
  EXPECT_THAT(refusal(with("background", 1)),
              HasSubstr("decode.background: must be true or false"));
  EXPECT_THAT(refusal(with("background", false)), HasSubstr("outputs.heatmaps.channels: is 19"));

  Manifest manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.decode = nlohmann::json::array();
  EXPECT_THAT(refusal(manifest), HasSubstr("decode: must be an object"));
  manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.outputs[1].channels = 36;
  EXPECT_THAT(refusal(manifest), HasSubstr("outputs.pafs.channels: is 36, but 19 limbs need 38"));
  manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.outputs[0].name = "heat";
  EXPECT_THAT(refusal(manifest), HasSubstr("\"heatmaps\" (there are: heat, pafs)"));
  manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.outputs[1].stride = 4;
  EXPECT_THAT(refusal(manifest), HasSubstr("outputs.pafs.stride"));
  manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.outputs[0].stride = 0;
  EXPECT_THAT(refusal(manifest), HasSubstr("stride"));
  manifest = paf_manifest(body, 8, 8, 8, true);
  manifest.skeleton.limbs[3] = {0, 18};
  EXPECT_THAT(refusal(manifest), HasSubstr("skeleton.limbs[3]"));
  manifest = paf_manifest(body, 1, 8, 8, true);
  EXPECT_THAT(refusal(manifest), HasSubstr("input: gives maps of 8 x 1"));
}

TEST(Paf, AFrameOfAnotherShapeIsRefused) {
  const Skeleton body = skeleton_named("body18");
  Random random(3);
  const Maps maps = render(body, draw_scene(body, 20, 24, 1, 14.0F, &random), true);
  const auto decoder = open_decoder(paf_manifest(body, 20, 24, 8, true));
  const auto scratch = decoder->make_scratch();
  Poses poses;
  std::vector<MapView> views = views_of(maps, 20, 24);
  views.pop_back();
  EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error);
  views = views_of(maps, 24, 20);
  EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error);
  views = views_of(maps, 20, 24);
  views[0].data = nullptr;
  EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error);
}

// ---- round trips

struct Case {
  const char* skeleton;
  int height, width, stride;
  bool background;
};

class RoundTrip : public ::testing::TestWithParam<Case> {};

TEST_P(RoundTrip, RenderedPeopleComeBack) {
  const Case& c = GetParam();
  const Skeleton skeleton = skeleton_named(c.skeleton);
  const auto decoder =
      open_decoder(paf_manifest(skeleton, c.height, c.width, c.stride, c.background));
  const auto scratch = decoder->make_scratch();
  Random random(7);
  Agreement few, crowd;
  Poses poses;
  const bool large = skeleton.count() > 64;  // rendering is what takes the time
  for (int people = 1; people <= 11; ++people) {
    const bool thirty = people == 11;
    for (int i = 0; i < (large ? 1 : thirty ? 5 : 2); ++i) {
      const float size = thirty ? 13.0F : 26.0F - static_cast<float>(people);
      const Scene scene =
          draw_scene(skeleton, c.height, c.width, thirty ? 30 : people, size, &random);
      const Maps maps = render(skeleton, scene, c.background);
      decoder->decode(views_of(maps, c.height, c.width), scratch.get(), &poses);
      expect_sane(poses, c.height, c.width, c.stride);
      (thirty ? crowd : few).add(scene, poses, c.stride);
    }
  }
  EXPECT_GE(few.people, large ? 40 : 80);  // the maps have room for most
  for (const Agreement& agreement : {few, crowd}) {
    EXPECT_GE(agreement.recall(), 0.99);
    EXPECT_GE(agreement.precision(), 0.99);
    EXPECT_LE(agreement.mean_error(), 0.05);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Skeletons, RoundTrip,
    ::testing::Values(Case{"body18", 46, 54, 8, true}, Case{"body18", 32, 57, 8, false},
                      Case{"body25", 57, 41, 8, true}, Case{"coco17", 46, 54, 8, true},
                      Case{"coco17", 64, 48, 4, false}, Case{"mpii16", 46, 54, 8, false},
                      Case{"crowdpose14", 40, 70, 8, false}, Case{"lsp14", 46, 54, 16, true},
                      Case{"halpe26", 46, 54, 8, true}, Case{"hand21", 46, 54, 2, false},
                      Case{"coco_wholebody133", 60, 60, 8, false}),
    [](const auto& info) {
      return std::string(info.param.skeleton) + "_" + std::to_string(info.param.height) + "x" +
             std::to_string(info.param.width);
    });

TEST(Paf, KeypointsAtTheBorderAndInTheFirstCell) {
  const Skeleton body = skeleton_named("body18");
  Random random(5);
  Scene scene = draw_scene(body, 20, 24, 1, 12.0F, &random);
  // Moved into the corner: several keypoints lie between the border cells' centres and beyond.
  float left = 1e9F, top = 1e9F;
  for (const Spot& spot : scene.people[0]) {
    left = std::min(left, spot.x);
    top = std::min(top, spot.y);
  }
  for (Spot& spot : scene.people[0]) {
    spot.x -= left + 0.3F;
    spot.y -= top + 0.3F;
  }
  const Maps maps = render(body, scene, true);
  const Poses poses = decoded(paf_manifest(body, 20, 24, 8, true), views_of(maps, 20, 24));
  Agreement agreement;
  agreement.add(scene, poses, 8);
  EXPECT_EQ(agreement.matched, 18);
  EXPECT_EQ(agreement.found, 18);
  EXPECT_LE(agreement.mean_error(), 0.03);
}

// White noise has a local maximum in every ninth cell; most of them pass score_threshold here.
TEST(Paf, NoiseGivesNoPeople) {
  const Skeleton body = skeleton_named("body18");
  const auto decoder = open_decoder(paf_manifest(body, 46, 54, 8, true));
  const auto scratch = decoder->make_scratch();
  Random random(9);
  Poses poses;
  for (const float noise : {0.02F, 0.05F, 0.1F}) {
    Agreement agreement;
    for (int i = 0; i < 6; ++i) {
      const Scene scene = draw_scene(body, 46, 54, 6 * (i % 3), 20.0F, &random);
      const Maps maps = render(body, scene, true, noise, 0.05F, &random);
      decoder->decode(views_of(maps, 46, 54), scratch.get(), &poses);
      agreement.add(scene, poses, 8);
    }
    EXPECT_EQ(agreement.people_found, agreement.people) << noise;
    EXPECT_GE(agreement.recall(), 0.98) << noise;
    EXPECT_GE(agreement.precision(), 0.98) << noise;
  }
}

TEST(Paf, ScoresAreMeansOverAllKeypoints) {
  const Skeleton body = skeleton_named("coco17");
  Random random(6);
  Scene scene = draw_scene(body, 46, 54, 1, 30.0F, &random);
  for (Spot& spot : scene.people[0]) {
    spot = {std::round(spot.x), std::round(spot.y), true};  // every peak is 1
  }
  for (const int absent : {3, 9, 15}) {
    scene.people[0][static_cast<std::size_t>(absent)].there = false;
  }
  const Poses poses =
      decoded(paf_manifest(body, 46, 54, 8, false), views_of(render(body, scene, false), 46, 54));
  ASSERT_EQ(poses.size(), 1);
  EXPECT_FLOAT_EQ(poses.score(0), 14.0F / 17.0F);
  EXPECT_EQ(poses.keypoints_of(0)[9].score, 0.0F);
}

// A missing hip or shoulder leaves coco17 in one piece: its limbs have cycles. In body18 the ears
// still hold the arms to the head when the neck is missing.
TEST(Paf, SurvivesAMissingKeypoint) {
  const auto people_without = [](const char* name, const char* keypoint) {
    const Skeleton skeleton = skeleton_named(name);
    Random random(11);
    Scene scene = draw_scene(skeleton, 46, 54, 3, 26.0F, &random);
    const auto at = std::find(skeleton.keypoints.begin(), skeleton.keypoints.end(), keypoint) -
                    skeleton.keypoints.begin();
    for (Person& person : scene.people) {
      person[static_cast<std::size_t>(at)].there = false;
    }
    const Poses poses = decoded(paf_manifest(skeleton, 46, 54, 8, false),
                                views_of(render(skeleton, scene, false), 46, 54));
    Agreement agreement;
    agreement.add(scene, poses, 8);
    return std::make_pair(poses.size(), agreement.recall());
  };
  EXPECT_EQ(people_without("coco17", "left_hip").first, 3);
  EXPECT_EQ(people_without("coco17", "right_shoulder").first, 3);
  EXPECT_GE(people_without("coco17", "nose").second, 0.99);
  // Arms and head: 11 of the 17 that are there; each leg is a piece of its own.
  EXPECT_GE(people_without("body18", "neck").second, 11.0 / 17.0 - 1e-6);
  EXPECT_EQ(people_without("body18", "nose").first, 3);
}

}  // namespace
}  // namespace posewire::test
