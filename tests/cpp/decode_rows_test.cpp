// SPDX-License-Identifier: Apache-2.0
// The contract of every row of the decoder table, on its golden files: the reference's poses with
// every instruction set, in every layout and element type, on many threads, without allocating, and
// nothing but sane poses whatever the outputs hold. A new row needs golden files and no new test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <thread>

#include "allocations.h"
#include "bundle/manifest.h"
#include "core/error.h"
#include "decode/rows.h"
#include "decode_checks.h"
#include "stored_map.h"

namespace posewire::test {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// One golden case: tests/decode/reference_<stem>.py wrote it.
struct Case {
  std::string path;  // without its suffix
  Manifest manifest;
  nlohmann::json people;
  std::vector<std::vector<float>> planes;  // per output, channels first

  MapView view(std::size_t i) const {
    MapView view =
        frame_shape(manifest, manifest.outputs[i], DType::kFloat32, manifest.outputs[i].layout);
    view.data = planes[i].data();
    return view;
  }
  std::vector<MapView> views() const {
    std::vector<MapView> all;
    for (std::size_t i = 0; i < planes.size(); ++i) {
      all.push_back(view(i));
    }
    return all;
  }
};

Case read_case(const std::string& path) {
  const nlohmann::json golden = nlohmann::json::parse(text_of(path + ".json"));
  Case c{path, parse_manifest(golden.at("manifest").dump(), path, true), golden.at("people"), {}};
  for (const OutputSpec& output : c.manifest.outputs) {
    std::string bytes = text_of(path + "." + output.name + ".bin");
    const MapView shape = frame_shape(c.manifest, output, DType::kFloat32, output.layout);
    std::vector<float> values(
        static_cast<std::size_t>(shape.channels * shape.height * shape.width));
    EXPECT_EQ(bytes.size(), values.size() * sizeof(float)) << path << " " << output.name;
    bytes.resize(values.size() * sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    c.planes.push_back(std::move(values));
  }
  return c;
}

std::vector<std::string> cases() {
  std::vector<std::string> found;
  for (const std::string& stem : decoder_names()) {
    const std::filesystem::path folder = std::filesystem::path(POSEWIRE_GOLDEN) / stem;
    if (!std::filesystem::is_directory(folder)) {
      continue;  // EveryRowHasGoldenFiles says so
    }
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".json") {
        found.push_back((folder / entry.path().stem()).string());
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Finite, scores in range and consistent, absent keypoints at 0, 0, no further out than a picture's
// size: whatever came in.
void expect_sane(const Manifest& manifest, const Poses& poses) {
  const auto width = static_cast<float>(manifest.input_width);
  const auto height = static_cast<float>(manifest.input_height);
  const int count = poses.keypoints_per_person();
  ASSERT_EQ(count, manifest.skeleton.count());
  for (int p = 0; p < poses.size(); ++p) {
    float total = 0.0F;
    for (int k = 0; k < count; ++k) {
      const Keypoint& point = poses.keypoints_of(p)[k];
      ASSERT_TRUE(point.score >= 0.0F && point.score <= 1.0F) << point.score;
      ASSERT_TRUE(point.x >= -width && point.x <= 2.0F * width) << point.x;
      ASSERT_TRUE(point.y >= -height && point.y <= 2.0F * height) << point.y;
      ASSERT_TRUE(point.score > 0.0F || (point.x == 0.0F && point.y == 0.0F));
      total += point.score;
    }
    ASSERT_NEAR(poses.score(p), total / static_cast<float>(count), 1e-4F);
    ASSERT_TRUE(p == 0 || poses.score(p) <= poses.score(p - 1));
  }
}

void expect_people(const Case& c, const Poses& poses, float pixels, float score) {
  ASSERT_EQ(poses.size(), static_cast<int>(c.people.size()));
  for (int p = 0; p < poses.size(); ++p) {  // both list the best first
    const nlohmann::json& person = c.people[static_cast<std::size_t>(p)];
    EXPECT_NEAR(poses.score(p), person["score"].get<float>(), score);
    for (std::size_t k = 0; k < c.manifest.skeleton.keypoints.size(); ++k) {
      const Keypoint& point = poses.keypoints_of(p)[k];
      EXPECT_NEAR(point.x, person["kp"][k][0].get<float>(), pixels) << k;
      EXPECT_NEAR(point.y, person["kp"][k][1].get<float>(), pixels) << k;
      EXPECT_NEAR(point.score, person["kp"][k][2].get<float>(), score) << k;
    }
  }
}

TEST(Rows, EveryRowHasGoldenFilesWithPeopleAndWithout) {
  for (const std::string& stem : decoder_names()) {
    std::set<bool> empty;
    for (const std::string& path : cases()) {
      if (std::filesystem::path(path).parent_path().filename() == stem) {
        empty.insert(read_case(path).people.empty());
      }
    }
    EXPECT_TRUE(empty.count(false) == 1) << stem << ": a case with people";
    EXPECT_TRUE(empty.count(true) == 1) << stem << ": a case without";
  }
}

// Lays the case's outputs over the crowd's once more, moved by a random share of the map around its
// edges: what is further from 0 stays.
void add_copy(const Case& c, Random* random, Case* crowd) {
  const float right = random->uniform(0.0F, 1.0F), down = random->uniform(0.0F, 1.0F);
  const float gain = random->uniform(0.6F, 1.0F);
  for (std::size_t i = 0; i < c.planes.size(); ++i) {
    const MapView view = c.view(i);
    const int dx = static_cast<int>(right * static_cast<float>(view.width));
    const int dy = static_cast<int>(down * static_cast<float>(view.height));
    for (int channel = 0; channel < view.channels; ++channel) {
      for (int y = 0; y < view.height; ++y) {
        for (int x = 0; x < view.width; ++x) {
          const auto at = [&view, channel](int row, int column) {
            return static_cast<std::size_t>(channel * view.channel_stride + row * view.row_stride +
                                            column * view.column_stride);
          };
          const float value = gain * c.planes[i][at((y + dy) % view.height, (x + dx) % view.width)];
          float& to = crowd->planes[i][at(y, x)];
          to = std::abs(value) > std::abs(to) ? value : to;
        }
      }
    }
  }
}

class Row : public ::testing::TestWithParam<std::string> {};

// Tolerance: 0.01 network pixel and 1e-4 of score, what float32 leaves open.
TEST_P(Row, AgreesWithTheReferenceOnEveryInstructionSet) {
  const Case c = read_case(GetParam());
  Poses first;
  for (const Kernels* kernels : available_kernels()) {
    SCOPED_TRACE(kernels->name);
    const auto decoder = open_decoder(c.manifest, *kernels);
    const auto scratch = decoder->make_scratch();
    Poses poses;
    decoder->decode(c.views(), scratch.get(), &poses);
    expect_people(c, poses, 0.01F, 1e-4F);
    expect_sane(c.manifest, poses);
    if (kernels == available_kernels().front()) {
      first = poses;
    }
    EXPECT_TRUE(same(poses, first));
  }
}

// Both layouts give the same bits, float16 nearly the same poses.
TEST_P(Row, LayoutsAndElementTypes) {
  const Case c = read_case(GetParam());
  const auto decoder = open_decoder(c.manifest);
  const auto scratch = decoder->make_scratch();
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kInt8, DType::kUint8}) {
    SCOPED_TRACE(name_of(dtype));
    Poses in_order[2];
    for (const Layout layout : {Layout::kNCHW, Layout::kNHWC}) {
      std::vector<StoredMap> kept;
      std::vector<MapView> views;
      for (std::size_t i = 0; i < c.planes.size(); ++i) {
        kept.push_back(store_map(c.view(i), dtype, layout));
        views.push_back(kept.back().view);
      }
      Poses& poses = in_order[layout == Layout::kNCHW ? 0 : 1];
      decoder->decode(views, scratch.get(), &poses);
      expect_sane(c.manifest, poses);
      if (dtype == DType::kFloat32) {
        expect_people(c, poses, 0.01F, 1e-4F);
      } else if (dtype == DType::kFloat16) {
        EXPECT_EQ(poses.size(), static_cast<int>(c.people.size()));
      }
    }
    EXPECT_TRUE(same(in_order[0], in_order[1]));
  }
}

TEST_P(Row, ManyThreadsAndNoAllocation) {
  const Case c = read_case(GetParam());
  const auto decoder = open_decoder(c.manifest);
  const std::vector<MapView> views = c.views();
  const auto scratch = decoder->make_scratch();
  Poses expected;
  decoder->decode(views, scratch.get(), &expected);
  Poses poses = expected;
  const long before = allocations();
  for (int i = 0; i < 5; ++i) {
    decoder->decode(views, scratch.get(), &poses);
  }
  EXPECT_EQ(allocations(), before);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      const auto own = decoder->make_scratch();
      Poses mine;
      for (int i = 0; i < 10; ++i) {
        decoder->decode(views, own.get(), &mine);
        wrong += same(mine, expected) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(Row, SurvivesAnyValues) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kHuge = std::numeric_limits<float>::max();
  const Case c = read_case(GetParam());
  for (const Kernels* kernels : available_kernels()) {
    const auto decoder = open_decoder(c.manifest, *kernels);
    const auto scratch = decoder->make_scratch();
    const auto survive = [&](const Case& hostile) {
      Poses poses;
      decoder->decode(hostile.views(), scratch.get(), &poses);
      expect_sane(hostile.manifest, poses);
    };
    for (const float value : {kNaN, kInf, -kInf, std::numeric_limits<float>::denorm_min(), kHuge,
                              -kHuge, 0.0F, 1.0F, -1.0F, 0.5F, 1e6F}) {
      SCOPED_TRACE(value);
      Case all = c;
      for (std::size_t i = 0; i < c.planes.size(); ++i) {
        Case one = c;
        std::fill(one.planes[i].begin(), one.planes[i].end(), value);
        survive(one);
        all.planes[i] = one.planes[i];
        one.planes[i] = c.planes[i];  // sprinkled
        for (std::size_t n = i; n < one.planes[i].size(); n += 5) {
          one.planes[i][n] = value;
        }
        survive(one);
      }
      survive(all);
    }
    Case chess = c;  // a peak in every fourth cell
    for (std::size_t i = 0; i < chess.planes.size(); ++i) {
      const MapView view = chess.view(i);
      for (std::size_t n = 0; n < chess.planes[i].size(); ++n) {
        const auto at = static_cast<std::ptrdiff_t>(n);
        const bool peak = at / view.column_stride % view.width % 2 == 0 &&
                          (view.height == 1 || at / view.row_stride % view.height % 2 == 0);
        chess.planes[i][n] = peak ? 0.9F : 0.0F;
      }
    }
    survive(chess);
    Poses poses;  // nothing of all that is left behind
    decoder->decode(c.views(), scratch.get(), &poses);
    expect_people(c, poses, 0.01F, 1e-4F);
  }
}

// From nobody to more people than there is room for, so that the kernels' last vectors are filled
// in every way: the same bits on every instruction set, with a scratch of the frame's own and with
// one that holds the remains of a hostile frame.
TEST_P(Row, AnyNumberOfPeopleAndAUsedScratch) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kPattern[] = {0.9F, kNaN, 3e38F, 0.0F, -kInf, 0.4F, kInf, 1e-41F, -3e38F};
  const Case c = read_case(GetParam());
  Case crowd = c, hostile = c;
  for (std::size_t i = 0; i < c.planes.size(); ++i) {
    std::fill(crowd.planes[i].begin(), crowd.planes[i].end(), 0.0F);
    for (std::size_t n = 0; n < hostile.planes[i].size(); ++n) {
      hostile.planes[i][n] = kPattern[(n + i) % std::size(kPattern)];
    }
  }
  std::vector<std::unique_ptr<Decoder>> decoders;
  std::vector<std::unique_ptr<Decoder::Scratch>> used;
  for (const Kernels* kernels : available_kernels()) {
    decoders.push_back(open_decoder(c.manifest, *kernels));
    used.push_back(decoders.back()->make_scratch());
  }
  Random random(71);
  int people = 0;
  for (int copies = 0; copies <= 40; ++copies) {
    SCOPED_TRACE(copies);
    Poses expected, poses;
    const auto own = decoders.front()->make_scratch();
    decoders.front()->decode(crowd.views(), own.get(), &expected);
    expect_sane(c.manifest, expected);
    for (std::size_t n = 0; n < decoders.size(); ++n) {
      decoders[n]->decode(hostile.views(), used[n].get(), &poses);
      const std::vector<MapView> views = crowd.views();
      spoil_stack();
      decoders[n]->decode(views, used[n].get(), &poses);
      ASSERT_TRUE(same(poses, expected)) << available_kernels()[n]->name;
    }
    people += expected.size();
    add_copy(c, &random, &crowd);
  }
  EXPECT_TRUE(people > 0 || c.people.empty());
}

TEST_P(Row, AFrameOfAnotherShapeIsRefused) {
  const Case c = read_case(GetParam());
  const auto decoder = open_decoder(c.manifest);
  const auto scratch = decoder->make_scratch();
  Poses poses;
  for (std::size_t i = 0; i < c.planes.size(); ++i) {
    std::vector<MapView> views = c.views();
    views[i].width -= 1;
    EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error) << i;
    views = c.views();
    views[i].channels -= 1;
    EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error) << i;
    views = c.views();
    views[i].data = nullptr;
    EXPECT_THROW(decoder->decode(views, scratch.get(), &poses), Error) << i;
  }
  EXPECT_THROW(decoder->decode({}, scratch.get(), &poses), Error);
}

TEST_P(Row, RefusesAManifestThatDisagrees) {
  const Case good = read_case(GetParam());
  const auto refused = [](const Manifest& manifest) {
    try {
      open_decoder(manifest);
    } catch (const Error& error) {
      return error.code() == Code::kBundle;
    }
    return false;
  };
  EXPECT_FALSE(refused(good.manifest));
  Manifest bad = good.manifest;
  bad.decode["magic"] = 1;
  EXPECT_TRUE(refused(bad)) << "an unknown parameter";
  for (std::size_t i = 0; i < good.manifest.outputs.size(); ++i) {
    bad = good.manifest;
    bad.outputs[i].channels += 2;  // one more could be a background
    EXPECT_TRUE(refused(bad)) << bad.outputs[i].name << " with too many channels";
    bad = good.manifest;
    bad.outputs[i].name = "magic";
    EXPECT_TRUE(refused(bad)) << good.manifest.outputs[i].name << " under another name";
  }
}

TEST_P(Row, RefusesOutputsBeyondAnyMemory) {
  Manifest manifest = read_case(GetParam()).manifest;
  manifest.input_width = manifest.input_height = 16384;
  manifest.outputs[0].channels = 65536;
  manifest.outputs[0].stride = 1;
  manifest.outputs[0].length = 0;  // 64 TiB as float32
  try {
    open_decoder(manifest);
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBundle);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("values a frame"));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Row, ::testing::ValuesIn(cases()), [](const auto& info) {
  const std::filesystem::path path(info.param);
  std::string name = path.parent_path().filename().string() + "_" + path.filename().string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace posewire::test
