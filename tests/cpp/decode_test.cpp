// SPDX-License-Identifier: Apache-2.0
// The decoder floor's contract: every row of the table, every instruction set, any input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "allocations.h"
#include "core/error.h"
#include "decode/decoder.h"
#include "decode/peaks.h"
#include "decode/planes.h"
#include "decode/rows.h"
#include "scenes.h"

namespace posewire::test {
namespace {

using ::testing::HasSubstr;

Skeleton skeleton_named(const std::string& name) {
  return read_skeleton(std::string(POSEWIRE_SKELETONS) + "/" + name + ".json");
}

std::vector<MapView> views_of(const Maps& maps, int height, int width) {
  return {dense_map(maps.heatmaps.data(), DType::kFloat32, Layout::kNCHW, maps.heatmap_channels,
                    height, width),
          dense_map(maps.fields.data(), DType::kFloat32, Layout::kNCHW, maps.field_channels, height,
                    width)};
}

Poses decoded(const Manifest& manifest, const std::vector<MapView>& views) {
  const auto decoder = open_decoder(manifest);
  const auto scratch = decoder->make_scratch();
  Poses poses;
  decoder->decode(views, scratch.get(), &poses);
  return poses;
}

// Finite, in the map, scores in range and consistent: whatever came in.
void expect_sane(const Poses& poses, int height, int width, int stride) {
  const auto right = static_cast<float>(width * stride);
  const auto bottom = static_cast<float>(height * stride);
  for (int p = 0; p < poses.size(); ++p) {
    float total = 0.0F;
    for (int k = 0; k < poses.keypoints_per_person(); ++k) {
      const Keypoint& point = poses.keypoints_of(p)[k];
      ASSERT_TRUE(std::isfinite(point.x) && std::isfinite(point.y));
      ASSERT_GE(point.score, 0.0F);
      ASSERT_LE(point.score, 1.0F);
      if (point.score > 0.0F) {
        ASSERT_GE(point.x, -1.0F);
        ASSERT_LE(point.x, right);
        ASSERT_GE(point.y, -1.0F);
        ASSERT_LE(point.y, bottom);
      } else {
        ASSERT_EQ(point.x, 0.0F);
        ASSERT_EQ(point.y, 0.0F);
      }
      total += point.score;
    }
    ASSERT_NEAR(poses.score(p), total / static_cast<float>(poses.keypoints_per_person()), 1e-5F);
  }
}

bool same(const Poses& left, const Poses& right) {
  if (left.size() != right.size()) {
    return false;
  }
  for (int p = 0; p < left.size(); ++p) {
    if (left.score(p) != right.score(p) ||
        std::memcmp(left.keypoints_of(p), right.keypoints_of(p),
                    sizeof(Keypoint) * static_cast<std::size_t>(left.keypoints_per_person())) !=
            0) {
      return false;
    }
  }
  return true;
}

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

// ---- layouts and element types

std::uint16_t half_of(float value) {  // rounds to nearest; normal range and zero are enough here
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const float magnitude = std::abs(value);
  if (magnitude < 6.1e-5F) {
    return static_cast<std::uint16_t>(sign |
                                      static_cast<std::uint32_t>(std::lround(magnitude * 0x1p24F)));
  }
  return static_cast<std::uint16_t>(
      sign | (((bits & 0x7FFFFFFFU) - 0x38000000U + 0x0FFFU + ((bits >> 13) & 1U)) >> 13));
}

// The same map in another layout and element type, with the memory that holds it.
struct Stored {
  std::vector<unsigned char> bytes;
  MapView view;
};

Stored stored(const float* values, DType dtype, Layout layout, int channels, int height,
              int width) {
  Stored out;
  const int cells = height * width;
  out.bytes.resize(static_cast<std::size_t>(channels * cells) * bytes_of(dtype));
  out.view = dense_map(out.bytes.data(), dtype, layout, channels, height, width);
  if (dtype == DType::kInt8 || dtype == DType::kUint8) {
    out.view.scale = 1.0F / 120.0F;
    out.view.zero_point = dtype == DType::kInt8 ? -3 : 124;
  }
  for (int c = 0; c < channels; ++c) {
    for (int i = 0; i < cells; ++i) {
      const float value = values[c * cells + i];
      const std::ptrdiff_t at = c * out.view.channel_stride + i / width * out.view.row_stride +
                                i % width * out.view.column_stride;
      unsigned char* to = out.bytes.data() + at * static_cast<std::ptrdiff_t>(bytes_of(dtype));
      const long quantised =
          std::lround(value / out.view.scale) + static_cast<long>(out.view.zero_point);
      const std::uint16_t half = half_of(value);
      const auto s8 = static_cast<std::int8_t>(std::clamp(quantised, -128L, 127L));
      const auto u8 = static_cast<std::uint8_t>(std::clamp(quantised, 0L, 255L));
      switch (dtype) {
        case DType::kFloat32:
          std::memcpy(to, &value, 4);
          break;
        case DType::kFloat16:
          std::memcpy(to, &half, 2);
          break;
        case DType::kInt8:
          std::memcpy(to, &s8, 1);
          break;
        case DType::kUint8:
          std::memcpy(to, &u8, 1);
          break;
      }
    }
  }
  return out;
}

TEST(Paf, LayoutsAndElementTypes) {
  const Skeleton body = skeleton_named("body18");
  const int height = 32, width = 57;
  const auto decoder = open_decoder(paf_manifest(body, height, width, 8, true));
  const auto scratch = decoder->make_scratch();
  Random random(21);
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kInt8, DType::kUint8}) {
    Agreement agreement;
    for (int i = 0; i < 4; ++i) {
      const Scene scene = draw_scene(body, height, width, 6, 18.0F, &random);
      const Maps maps = render(body, scene, true);
      Poses in_order[2];
      for (const Layout layout : {Layout::kNCHW, Layout::kNHWC}) {
        const Stored heat = stored(maps.heatmaps.data(), dtype, layout, 19, height, width);
        const Stored fields = stored(maps.fields.data(), dtype, layout, 38, height, width);
        Poses& poses = in_order[layout == Layout::kNCHW ? 0 : 1];
        decoder->decode({heat.view, fields.view}, scratch.get(), &poses);
      }
      EXPECT_TRUE(same(in_order[0], in_order[1])) << name_of(dtype);
      agreement.add(scene, in_order[0], 8);
    }
    EXPECT_GE(agreement.recall(), 0.98) << name_of(dtype);
    EXPECT_GE(agreement.precision(), 0.98) << name_of(dtype);
    EXPECT_LE(agreement.mean_error(), dtype <= DType::kInt8 ? 0.05 : 0.03) << name_of(dtype);
  }
}

TEST(Planes, EveryHalfValue) {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = static_cast<std::uint16_t>(i);
  }
  for (const Kernels* kernels : available_kernels()) {
    std::vector<float> values(halves.size());
    kernels->from_float16(halves.data(), 1, 65536, values.data());
    for (std::size_t i = 0; i < halves.size(); ++i) {
      const int exponent = static_cast<int>(i >> 10 & 31U), mantissa = static_cast<int>(i & 1023U);
      const double sign = i >= 0x8000U ? -1.0 : 1.0;
      if (exponent == 31) {
        ASSERT_EQ(std::isnan(values[i]), mantissa != 0) << i;
        ASSERT_EQ(std::isinf(values[i]), mantissa == 0) << i;
      } else {
        const double value =
            exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
        ASSERT_EQ(static_cast<double>(values[i]), sign * value) << kernels->name << " " << i;
      }
    }
  }
}

// ---- every instruction set, every thread, no allocation

TEST(Paf, EveryInstructionSetGivesTheSamePoses) {
  const Skeleton body = skeleton_named("body18");
  const Manifest manifest = paf_manifest(body, 46, 54, 8, true);
  Random random(31);
  for (int people = 0; people < 20; people += 3) {
    const Scene scene = draw_scene(body, 46, 54, people, 16.0F, &random);
    const Maps maps = render(body, scene, true, 0.05F, 0.1F, &random);
    std::vector<Poses> all;
    for (const Kernels* kernels : available_kernels()) {
      const auto decoder = open_paf(manifest, *kernels);
      const auto scratch = decoder->make_scratch();
      decoder->decode(views_of(maps, 46, 54), scratch.get(), &all.emplace_back());
      EXPECT_TRUE(same(all.front(), all.back())) << kernels->name;
    }
  }
}

TEST(Paf, OneDecoderServesManyThreads) {
  const Skeleton body = skeleton_named("body18");
  const auto decoder = open_decoder(paf_manifest(body, 46, 54, 8, true));
  Random random(41);
  std::vector<Maps> maps;
  std::vector<Poses> expected(6);
  const auto scratch = decoder->make_scratch();
  for (int i = 0; i < 6; ++i) {
    maps.push_back(render(body, draw_scene(body, 46, 54, 2 * i, 20.0F, &random), true));
    decoder->decode(views_of(maps.back(), 46, 54), scratch.get(),
                    &expected[static_cast<std::size_t>(i)]);
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const auto own = decoder->make_scratch();
      Poses poses;
      for (std::size_t i = 0; i < 60; ++i) {
        const std::size_t n = (i + t) % 6;
        decoder->decode(views_of(maps[n], 46, 54), own.get(), &poses);
        wrong += same(poses, expected[n]) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST(Paf, NoAllocationPerFrame) {
  const Skeleton body = skeleton_named("body18");
  const auto decoder = open_decoder(paf_manifest(body, 46, 54, 8, true));
  const auto scratch = decoder->make_scratch();
  Random random(51);
  for (const Layout layout : {Layout::kNCHW, Layout::kNHWC}) {
    std::vector<Stored> kept;
    std::vector<std::vector<MapView>> frames;
    for (const int people : {30, 0, 10, 1, 20}) {
      const Maps maps =
          render(body, draw_scene(body, 46, 54, people, 13.0F, &random), true, 0.1F, 0.1F, &random);
      kept.push_back(stored(maps.heatmaps.data(), DType::kFloat16, layout, 19, 46, 54));
      kept.push_back(stored(maps.fields.data(), DType::kFloat16, layout, 38, 46, 54));
      frames.push_back({kept[kept.size() - 2].view, kept.back().view});
    }
    Poses poses;
    decoder->decode(frames[0], scratch.get(), &poses);  // the fullest first: everything grows
    int people = 0;
    const long before = allocations();
    for (int i = 0; i < 20; ++i) {
      decoder->decode(frames[static_cast<std::size_t>(i) % frames.size()], scratch.get(), &poses);
      people += poses.size();
    }
    EXPECT_EQ(allocations(), before);
    EXPECT_GT(people, 100);
  }
}

// ---- hostile values

TEST(Paf, SurvivesAnyValues) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kTiny = std::numeric_limits<float>::denorm_min();
  constexpr float kHuge = std::numeric_limits<float>::max();
  const Skeleton body = skeleton_named("coco17");
  const int height = 30, width = 41;
  Random random(61);
  const Maps good = render(body, draw_scene(body, height, width, 4, 16.0F, &random), true);
  for (const Kernels* kernels : available_kernels()) {
    const auto decoder = open_paf(paf_manifest(body, height, width, 8, true), *kernels);
    const auto scratch = decoder->make_scratch();
    const auto survive = [&](const Maps& maps) {
      Poses poses;
      decoder->decode(views_of(maps, height, width), scratch.get(), &poses);
      expect_sane(poses, height, width, 8);
      return poses.size();
    };
    for (const float value : {kNaN, kInf, -kInf, kTiny, kHuge, -kHuge, 0.0F, 1.0F, -1.0F, 0.5F}) {
      Maps maps = good;
      std::fill(maps.heatmaps.begin(), maps.heatmaps.end(), value);
      survive(maps);
      std::fill(maps.fields.begin(), maps.fields.end(), value);
      survive(maps);
      maps.heatmaps = good.heatmaps;
      survive(maps);
      maps = good;  // sprinkled
      for (std::size_t i = 0; i < maps.heatmaps.size(); i += 7) {
        maps.heatmaps[i] = value;
      }
      for (std::size_t i = 0; i < maps.fields.size(); i += 5) {
        maps.fields[i] = value;
      }
      survive(maps);
    }
    Maps zero = good;
    std::fill(zero.heatmaps.begin(), zero.heatmaps.end(), 0.0F);
    EXPECT_EQ(survive(zero), 0);
    Maps chess = good;  // a peak in every fourth cell
    for (std::size_t i = 0; i < chess.heatmaps.size(); ++i) {
      const std::size_t cell = i % static_cast<std::size_t>(height * width);
      chess.heatmaps[i] = cell / 41 % 2 == 0 && cell % 41 % 2 == 0 ? 0.9F : 0.0F;
    }
    std::fill(chess.fields.begin(), chess.fields.end(), 1.0F);
    survive(chess);
    EXPECT_GT(survive(good), 0);  // nothing of all that is left behind
  }
}

TEST(Peaks, APlateauIsOnePeakAndTheHighestAreKept) {
  const int height = 13, width = 21;
  std::vector<float> map(static_cast<std::size_t>(height * width), 1.0F);
  const MapView view = dense_map(map.data(), DType::kFloat32, Layout::kNCHW, 1, height, width);
  PeakScratch scratch(height, width, 4);
  Peaks peaks(4);
  find_peaks(view, 0, 0.1F, 4, best_kernels(), &scratch, &peaks);
  EXPECT_EQ(peaks.count, 1);
  for (int i = 0; i < height * width; ++i) {
    const int x = i % width, y = i / width;
    map[static_cast<std::size_t>(i)] =
        x % 2 == 1 && y % 2 == 1 ? 0.3F + 0.001F * static_cast<float>(i) : 0.0F;
  }
  find_peaks(view, 0, 0.1F, 4, best_kernels(), &scratch, &peaks);
  ASSERT_EQ(peaks.count, 4);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(peaks.y[i], 11.0F);
    EXPECT_FLOAT_EQ(peaks.x[i], static_cast<float>(13 + 2 * i));
  }
}

}  // namespace
}  // namespace posewire::test
