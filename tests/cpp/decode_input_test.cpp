// SPDX-License-Identifier: Apache-2.0
// Decoders against their input: layouts, element types, instruction sets, threads, memory, hostile
// values.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <thread>

#include "allocations.h"
#include "bundle/manifest.h"
#include "decode/peaks.h"
#include "decode/planes.h"
#include "decode/rows.h"
#include "decode_checks.h"
#include "scenes.h"
#include "stored_map.h"

namespace posewire::test {
namespace {

// ---- layouts and element types

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
        const std::vector<MapView> views = views_of(maps, height, width);
        const StoredMap heat = store_map(views[0], dtype, layout);
        const StoredMap fields = store_map(views[1], dtype, layout);
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
  std::vector<std::unique_ptr<Decoder>> decoders;
  std::vector<std::unique_ptr<Decoder::Scratch>> scratch;
  for (const Kernels* kernels : available_kernels()) {
    decoders.push_back(open_paf(manifest, *kernels));
    scratch.push_back(decoders.back()->make_scratch());
  }
  PeakScratch search(46, 54, 96);
  Peaks peaks(96);
  std::set<int> tails;
  Random random(31);
  for (int people = 40; people >= 0;
       --people) {  // fewer every time: what was before is left behind
    const Scene scene = draw_scene(body, 46, 54, people, 13.0F, &random, 2.0F);
    const Maps maps = render(body, scene, true, 0.05F, 0.1F, &random);
    const std::vector<MapView> views = views_of(maps, 46, 54);
    Poses first, poses;
    const auto own = decoders.front()->make_scratch();
    decoders.front()->decode(views, own.get(), &first);
    for (std::size_t n = 0; n < decoders.size(); ++n) {
      spoil_stack();
      decoders[n]->decode(views, scratch[n].get(), &poses);
      EXPECT_TRUE(same(first, poses)) << available_kernels()[n]->name << ", " << people;
    }
    for (int type = 0; type < body.count(); ++type) {
      find_peaks(views[0], type, 0.05F, 4.0F, 96, best_kernels(), &search, &peaks);
      tails.insert(peaks.count % kLanes);
    }
  }
  EXPECT_EQ(tails.size(), static_cast<std::size_t>(kLanes)) << "vectors filled in every way";
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
    std::vector<StoredMap> kept;
    std::vector<std::vector<MapView>> frames;
    for (const int people : {30, 0, 10, 1, 20}) {
      const Maps maps =
          render(body, draw_scene(body, 46, 54, people, 13.0F, &random), true, 0.1F, 0.1F, &random);
      for (const MapView& view : views_of(maps, 46, 54)) {
        kept.push_back(store_map(view, DType::kFloat16, layout));
      }
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

// What is dense already is read where it lies: copying a sequence cost simcc half of its time. Who
// made the view may have said nothing of the stride between rows where there is one row.
TEST(Planes, OnlyWhatIsNotDenseIsCopied) {
  const std::vector<float> values(60);
  std::vector<float> buffer;
  MapView sequence = dense_map(values.data(), DType::kFloat32, Layout::kNCHW, 3, 1, 20);
  sequence.row_stride = 0;
  const MapView same = float_planes(sequence, 3, best_kernels(), &buffer);
  EXPECT_EQ(same.data, values.data());
  EXPECT_EQ(same.row_stride, 20);
  const MapView plane = dense_map(values.data(), DType::kFloat32, Layout::kNCHW, 3, 4, 5);
  EXPECT_EQ(float_planes(plane, 3, best_kernels(), &buffer).data, values.data());
  EXPECT_TRUE(buffer.empty());
  const MapView apart = dense_map(values.data(), DType::kFloat32, Layout::kNHWC, 3, 4, 5);
  const MapView planes = float_planes(apart, 3, best_kernels(), &buffer);
  EXPECT_EQ(planes.data, buffer.data());
  MapView wider = plane;  // two columns of a wider map are left out
  wider.width = 3;
  const MapView narrow = float_planes(wider, 3, best_kernels(), &buffer);
  EXPECT_EQ(narrow.data, buffer.data());
}

TEST(Peaks, APlateauIsOnePeakAndTheHighestAreKept) {
  const int height = 13, width = 21;
  std::vector<float> map(static_cast<std::size_t>(height * width), 1.0F);
  const MapView view = dense_map(map.data(), DType::kFloat32, Layout::kNCHW, 1, height, width);
  PeakScratch scratch(height, width, 4);
  Peaks peaks(4);
  find_peaks(view, 0, 0.1F, 4.0F, 4, best_kernels(), &scratch, &peaks);
  EXPECT_EQ(peaks.count, 1);
  for (int i = 0; i < height * width; ++i) {
    const int x = i % width, y = i / width;
    map[static_cast<std::size_t>(i)] =
        x % 2 == 1 && y % 2 == 1 ? 0.3F + 0.001F * static_cast<float>(i) : 0.0F;
  }
  find_peaks(view, 0, 0.1F, 4.0F, 4, best_kernels(), &scratch, &peaks);
  ASSERT_EQ(peaks.count, 4);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(peaks.y[i], 11.0F);
    EXPECT_FLOAT_EQ(peaks.x[i], static_cast<float>(13 + 2 * i));
  }
}

}  // namespace
}  // namespace posewire::test
