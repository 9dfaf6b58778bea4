// SPDX-License-Identifier: Apache-2.0
// The TensorRT plug-in over fakes of TensorRT and CUDA (tests/cpp/tensorrt), in every mode of our
// declarations: the contract of all runtimes, what is special about this one, and its refusals.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "allocations.h"
#include "infer/device.h"
#include "infer/plugin.h"
#include "infer/tensorrt/library.h"
#include "runtime_contract.h"
#include "tensorrt/fake_cuda.h"
#include "tensorrt/host_kernels.h"

namespace posewire {
namespace {

using test::fake_cuda;

struct Mode {
  const char* name;
  const char* runtime;
  const char* file;
  const char* version;
  bool old;  // TensorRT < 10
};
constexpr Mode kModes[] = {{"v8_5", "tensorrt", POSEWIRE_PLUGIN_8_5, "8.5.0", true},
                           {"v11", "tensorrt", POSEWIRE_PLUGIN_11, "11.1.0", false},
                           {"rtx", "tensorrt_rtx", POSEWIRE_PLUGIN_RTX, "1.6.1", false}};
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

constexpr const char* kHead = "posewire-fake-plan 1\n";
constexpr const char* kProfiles = "profile 1 4\nprofile 1 4\nprofile 1 4\n";
constexpr const char* kInput = "input image uint8 ? 48 64 3\n";
// Not in the manifest's order.
constexpr const char* kOutputs =
    "output twice float32 2 ? 3 6 8\noutput mean float32 1 ? 3 6 8\nend\n";

std::string good_plan() { return std::string(kHead) + kProfiles + kInput + kOutputs; }

PluginPlace place_of(const Mode& mode) { return {mode.runtime, {mode.file}, true}; }

Bundle bundle_of(const Mode& mode, Folder* folder, int max_batch,
                 const std::string& plan = good_plan()) {
  folder->write("model.plan", plan);
  Bundle bundle = bundle_in(*folder, mode.runtime, mode.version, max_batch);
  bundle.manifest.artifacts[0].files = {"model.plan"};
  bundle.manifest.target->device = "Fake GPU";
  return bundle;
}

OpenRuntime opener(const Mode& mode) {
  return [mode](const Bundle& bundle, const RuntimeOptions& options) {
    return open_plugin(place_of(mode), bundle, options);
  };
}

std::vector<ContractRow> rows() {
  std::vector<ContractRow> rows;
  for (const Mode& mode : kModes) {
    rows.push_back(
        {mode.name,
         [mode](Folder* folder, int max_batch) { return bundle_of(mode, folder, max_batch); },
         opener(mode)});
  }
  return rows;
}
INSTANTIATE_TEST_SUITE_P(TensorRt, Contract, ::testing::ValuesIn(rows()),
                         [](const auto& info) { return info.param.name; });

class TensorRt : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override { fake_cuda() = {}; }
  void TearDown() override {
    EXPECT_EQ(fake_cuda().bad_copies, 0);
    EXPECT_EQ(fake_cuda().pageable_copies, 0);
    EXPECT_EQ(fake_cuda().alive, 0) << "memory, streams or events are left";
    EXPECT_EQ(fake_cuda().graphs_alive, 0);
    EXPECT_EQ(fake_cuda().fail, "") << "was never called";
  }
  std::unique_ptr<Runtime> open(const Bundle& bundle, const RuntimeOptions& options = {}) const {
    return open_plugin(place_of(GetParam()), bundle, options);
  }
  std::string refuse(const Bundle& bundle, Code code, const RuntimeOptions& options = {}) const {
    return refusal_by(opener(GetParam()), bundle, code, options);
  }
  std::string refuse_plan(const std::string& plan, Code code = Code::kBundle) {
    return refuse(bundle_of(GetParam(), &folder_, 2, plan), code);
  }
  Folder folder_;
};
INSTANTIATE_TEST_SUITE_P(Modes, TensorRt, ::testing::ValuesIn(kModes),
                         [](const auto& info) { return info.param.name; });

void run(Runtime* runtime, int request, int batch) {
  const Status started = runtime->start(request, batch);
  ASSERT_TRUE(started.ok()) << started.what();
  const Status done = runtime->wait(request);
  ASSERT_TRUE(done.ok()) << done.what();
}

// Every cell of the first output of a picture that was filled with one value.
void expect_means(const Runtime& runtime, int request, int index, float value) {
  std::vector<MapView> views;
  runtime.outputs(request, index, &views);
  for (std::size_t cell = 0; cell < 3 * kCells; ++cell) {
    ASSERT_FLOAT_EQ(static_cast<const float*>(views[0].data)[cell], value);
    ASSERT_FLOAT_EQ(static_cast<const float*>(views[1].data)[cell], 2.0F * value);
  }
}

Image noisy_frame(int width, int height, unsigned seed) {
  Image image;
  image.resize(width, height);
  for (std::uint8_t& byte : image.bytes) {
    seed = seed * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>(seed >> 24);
  }
  return image;
}

std::vector<float> means_of(const Runtime& runtime, int request, int index) {
  std::vector<MapView> views;
  runtime.outputs(request, index, &views);
  const auto* values = static_cast<const float*>(views[0].data);
  return {values, values + 3 * kCells};
}

// The same picture, letterboxed by the CPU.
std::vector<float> means_by_cpu(Runtime* runtime, const Image& image) {
  const Letterbox box = letterbox_of(image.width, image.height, kWidth, kHeight);
  letterbox(image, box, kWidth, kHeight, Channels::kRGB,
            static_cast<std::uint8_t*>(runtime->input(1)));
  run(runtime, 1, 1);
  return means_of(*runtime, 1, 0);
}

TEST_P(TensorRt, ComputesTheNetworkInManifestOrder) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 2));
  EXPECT_EQ(runtime->requests(), 3);
  fill(runtime.get(), 0, 0, 100);
  fill(runtime.get(), 0, 1, 30);
  run(runtime.get(), 0, 2);
  expect_means(*runtime, 0, 0, 100.0F);
  expect_means(*runtime, 0, 1, 30.0F);
}

TEST_P(TensorRt, CapturesWhatRepeatsAndForgetsItWhenTheBatchChanges) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 4));
  for (int i = 0; i < 10; ++i) {
    fill(runtime.get(), 0, 1, i);
    run(runtime.get(), 0, 2);
    expect_means(*runtime, 0, 1, static_cast<float>(i));
  }
  EXPECT_EQ(fake_cuda().captured, 1);
  EXPECT_EQ(fake_cuda().graph_launches, 8);
  EXPECT_EQ(fake_cuda().enqueues, 3);  // two plain ones and the captured one
  Launches launches = launches_of(*runtime);
  EXPECT_EQ(launches.graphs, 8);
  EXPECT_EQ(launches.plain, 2);

  run(runtime.get(), 0, 3);
  EXPECT_EQ(fake_cuda().graphs_alive, 0);
  for (int i = 0; i < 4; ++i) {
    fill(runtime.get(), 0, 2, 200 + i);
    run(runtime.get(), 0, 3);
    expect_means(*runtime, 0, 2, static_cast<float>(200 + i));
  }
  EXPECT_EQ(fake_cuda().captured, 2);
}

TEST_P(TensorRt, GoesOnWithoutGraphsWhereNoneCanBeMade) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 2));
  for (const char* call : {"capture", "cudaGraphInstantiateWithFlags"}) {
    for (int i = 0; i < 6; ++i) {
      fake_cuda().fail = i == 2 ? call : "";
      fill(runtime.get(), 0, 0, 10 + i);
      run(runtime.get(), 0, 1);
      expect_means(*runtime, 0, 0, static_cast<float>(10 + i));
    }
    EXPECT_EQ(fake_cuda().graph_launches, 0);
    fake_cuda().fail.clear();  // it is not tried again
  }
}

TEST_P(TensorRt, AllocatesNothingInTheSteadyState) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 2));
  DeviceLetterbox* const device = runtime->device_letterbox();
  ASSERT_NE(device, nullptr);
  const Image image = noisy_frame(80, 80, 1);
  const Letterbox box = letterbox_of(80, 80, kWidth, kHeight);
  std::vector<MapView> views;
  const auto round = [&](int i) {
    const int request = i % 2, batch = 1 + i / 7 % 2;
    ASSERT_TRUE(device->letterbox(request, 0, device_frame(image), box).ok());
    run(runtime.get(), request, batch);
    runtime->outputs(request, batch - 1, &views);
  };
  for (int i = 0; i < 30; ++i) {
    round(i);
  }
  const long memory = fake_cuda().allocations;
  for (int i = 0; i < 2; ++i) {  // both requests again have a graph for batches of one
    for (int k = 0; k < 4; ++k) {
      ASSERT_TRUE(device->letterbox(i, 0, device_frame(image), box).ok());
      run(runtime.get(), i, 1);
    }
  }
  const long before = test::allocations();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(device->letterbox(i % 2, 0, device_frame(image), box).ok());
    run(runtime.get(), i % 2, 1);
    runtime->outputs(i % 2, 0, &views);
  }
  EXPECT_EQ(test::allocations(), before);
  EXPECT_EQ(fake_cuda().allocations, memory);
}

// As the engine: one thread fills and starts, another waits and reads.
TEST_P(TensorRt, ServesTwoThreads) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 2));
  constexpr int kRounds = 200;
  std::atomic<int> started{0}, read{0};
  std::thread reader([&] {
    std::vector<MapView> views;
    for (int i = 0; i < kRounds; ++i) {
      while (started.load() <= i) {
        std::this_thread::yield();
      }
      ASSERT_TRUE(runtime->wait(i % 3).ok());
      expect_means(*runtime, i % 3, i % 2, static_cast<float>(i % 251));
      read.store(i + 1);
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    while (read.load() + 3 <= i) {
      std::this_thread::yield();
    }
    fill(runtime.get(), i % 3, i % 2, i % 251);
    ASSERT_TRUE(runtime->start(i % 3, 2).ok());
    started.store(i + 1);
  }
  reader.join();
}

TEST_P(TensorRt, LetterboxesOnTheDeviceAsTheCpuDoes) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 4));
  DeviceLetterbox* const device = runtime->device_letterbox();
  ASSERT_NE(device, nullptr);
  unsigned seed = 1;
  for (const auto& [width, height] : {std::pair{64, 48}, {300, 200}, {90, 150}, {640, 480}}) {
    Image image = noisy_frame(width, height, seed++);
    const Letterbox box = letterbox_of(width, height, kWidth, kHeight);
    const std::vector<float> expected = means_by_cpu(runtime.get(), image);
    // Between pictures that the CPU prepared.
    fill(runtime.get(), 0, 0, 11);
    fill(runtime.get(), 0, 3, 13);
    ASSERT_TRUE(device->letterbox(0, 1, device_frame(image), box).ok());
    ASSERT_TRUE(device->letterbox(0, 2, device_frame(image), box).ok());
    std::fill(image.bytes.begin(), image.bytes.end(), std::uint8_t{0});  // it may go at once
    run(runtime.get(), 0, 4);
    EXPECT_EQ(means_of(*runtime, 0, 1), expected);
    EXPECT_EQ(means_of(*runtime, 0, 2), expected);
    expect_means(*runtime, 0, 0, 11.0F);
    expect_means(*runtime, 0, 3, 13.0F);
    // The next batch takes the CPU's again.
    run(runtime.get(), 0, 1);
    expect_means(*runtime, 0, 0, 11.0F);
  }
}

TEST_P(TensorRt, TakesNv12) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 1));
  DeviceLetterbox* const device = runtime->device_letterbox();
  ASSERT_NE(device, nullptr);
  // Grey: chroma in the middle, light 16 + 219 * 100 / 255.
  constexpr int kFrameWidth = 130, kFrameHeight = 98, kStrideBytes = 144;
  const std::vector<std::uint8_t> luma(kStrideBytes * kFrameHeight, 102);
  const std::vector<std::uint8_t> chroma(kStrideBytes * kFrameHeight / 2, 128);
  DeviceFrame frame;
  frame.pixels = DeviceFrame::Pixels::kNv12;
  frame.width = kFrameWidth;
  frame.height = kFrameHeight;
  frame.planes[0] = luma.data();
  frame.planes[1] = chroma.data();
  frame.stride_bytes[0] = frame.stride_bytes[1] = kStrideBytes;
  ASSERT_TRUE(
      device->letterbox(0, 0, frame, letterbox_of(kFrameWidth, kFrameHeight, kWidth, kHeight))
          .ok());
  run(runtime.get(), 0, 1);
  EXPECT_FLOAT_EQ(means_of(*runtime, 0, 0)[3 * 8 + 4], 100.0F);
}

TEST_P(TensorRt, NormalisesForNetworksThatTakeFloats) {
  Bundle bundle =
      bundle_of(GetParam(), &folder_, 2,
                std::string(kHead) + kProfiles + "input image float32 ? 3 48 64\n" + kOutputs);
  Artifact& artifact = bundle.manifest.artifacts[0];
  artifact.input_dtype = DType::kFloat32;
  artifact.input_layout = Layout::kNCHW;
  artifact.mean = {10.0F, 20.0F, 30.0F};
  artifact.std = {2.0F, 4.0F, 8.0F};
  const auto runtime = open(bundle);
  fill(runtime.get(), 0, 1, 90);
  Image image;
  image.resize(kWidth, kHeight);
  std::fill(image.bytes.begin(), image.bytes.end(), std::uint8_t{90});
  ASSERT_TRUE(runtime->device_letterbox()
                  ->letterbox(0, 0, device_frame(image), letterbox_of(64, 48, kWidth, kHeight))
                  .ok());
  run(runtime.get(), 0, 2);
  for (int picture = 0; picture < 2; ++picture) {
    const std::vector<float> means = means_of(*runtime, 0, picture);
    EXPECT_FLOAT_EQ(means[0], 40.0F);
    EXPECT_FLOAT_EQ(means[kCells], 17.5F);
    EXPECT_FLOAT_EQ(means[2 * kCells], 7.5F);
  }
}

TEST_P(TensorRt, DeliversHalfPrecision) {
  Bundle bundle = bundle_of(GetParam(), &folder_, 2,
                            std::string(kHead) + kProfiles + kInput +
                                "output mean float32 1 ? 3 6 8\n"
                                "output twice float16 2 ? 3 6 8\nend\n");
  for (ArtifactOutput& output : bundle.manifest.artifacts[0].outputs) {
    output.dtype = DType::kFloat16;
  }
  const auto runtime = open(bundle);
  std::vector<MapView> views;
  for (int i = 0; i < 4; ++i) {  // plain and captured
    fill(runtime.get(), 0, 1, 77 + i);
    run(runtime.get(), 0, 2);
    runtime->outputs(0, 1, &views);
    ASSERT_EQ(views[0].dtype, DType::kFloat16);
    const auto at = [&](std::size_t map, std::size_t cell) {
      return from_half_bits(static_cast<const std::uint16_t*>(views[map].data)[cell]);
    };
    EXPECT_EQ(at(0, 3 * kCells - 1), static_cast<float>(77 + i));
    EXPECT_EQ(at(1, 3 * kCells - 1), static_cast<float>(2 * (77 + i)));
  }
}

TEST_P(TensorRt, FindsPeaksWhereTheMapsAre) {
  RuntimeOptions options;
  options.peaks = {0, 127.0F, 20};
  const auto with = open(bundle_of(GetParam(), &folder_, 2), options);
  const auto without = open(bundle_of(GetParam(), &folder_, 2));
  EXPECT_EQ(without->device_peaks(), nullptr);
  ASSERT_NE(with->device_peaks(), nullptr);
  long all = 0;
  for (unsigned seed = 1; seed < 7; ++seed) {
    for (int picture = 0; picture < 2; ++picture) {
      const Image image = noisy_frame(kWidth, kHeight, seed + 10U * static_cast<unsigned>(picture));
      for (Runtime* runtime : {with.get(), without.get()}) {
        std::copy(image.bytes.begin(), image.bytes.end(),
                  static_cast<std::uint8_t*>(runtime->input(0)) +
                      kPicture * static_cast<std::size_t>(picture));
      }
    }
    run(with.get(), 0, 2);
    run(without.get(), 0, 2);
    for (int picture = 0; picture < 2; ++picture) {
      const std::vector<float> means = means_of(*without, 0, picture);
      std::int32_t counts[3];
      DevicePeak peaks[3 * 20];
      PeakJob job{means.data(), false, 3, 6, 8, 127.0F, 20, counts, peaks};
      test::host_peaks(job);
      const DevicePeakView found = with->device_peaks()->peaks(0, picture);
      for (int c = 0; c < 3; ++c) {
        ASSERT_EQ(found.counts[c], counts[c]);
        all += counts[c];
        for (int k = 0; k < counts[c]; ++k) {
          EXPECT_EQ(found.peaks[c * 20 + k].cell, peaks[c * 20 + k].cell);
          EXPECT_EQ(found.peaks[c * 20 + k].centre, peaks[c * 20 + k].centre);
        }
      }
    }
    std::vector<MapView> views;
    with->outputs(0, 0, &views);
    EXPECT_EQ(views[0].data, nullptr);  // it stayed on the device
    EXPECT_NE(views[1].data, nullptr);
  }
  EXPECT_GT(all, 30);
  options.peaks.output = 2;
  EXPECT_THAT(refuse(bundle_of(GetParam(), &folder_, 2), Code::kConfig, options),
              HasSubstr("peaks"));
}

TEST_P(TensorRt, RunsPlansOfAFixedBatch) {
  const std::string plan = std::string(kHead) + "input image uint8 3 48 64 3\n" +
                           "output twice float32 2 3 3 6 8\noutput mean float32 1 3 3 6 8\nend\n";
  const auto runtime = open(bundle_of(GetParam(), &folder_, 2, plan));
  for (const int batch : {1, 2, 2, 2, 2, 1}) {
    fill(runtime.get(), 0, batch - 1, 40 + batch);
    run(runtime.get(), 0, batch);
    expect_means(*runtime, 0, batch - 1, static_cast<float>(40 + batch));
  }
  EXPECT_THAT(refuse(bundle_of(GetParam(), &folder_, 4, plan), Code::kBundle),
              HasSubstr("at most 3 pictures, target.max_batch is 4"));
}

TEST_P(TensorRt, LendsAProfileToEachRequest) {
  const std::string plan = std::string(kHead) + "profile 1 4\n" + kInput + kOutputs;
  const Bundle bundle = bundle_of(GetParam(), &folder_, 4, plan);
  RuntimeOptions options;
  if (GetParam().old) {
    EXPECT_EQ(open(bundle)->requests(), 1);
    options.requests = 2;
    EXPECT_THAT(refuse(bundle, Code::kUnavailable, options), HasSubstr("profile 0 is in use"));
  } else {
    EXPECT_EQ(open(bundle)->requests(), 3);
  }
  EXPECT_THAT(refuse_plan(std::string(kHead) + "profile 1 1\nprofile 2 8\n" + kInput + kOutputs),
              HasSubstr("at most 1 pictures, target.max_batch is 2"));
}

TEST_P(TensorRt, RunsImplicitBatchesOfUff) {
  const std::string plan = std::string(kHead) +
                           "implicit 2\ninput image float32 3 48 64\n"
                           "output twice float32 2 3 6 8\noutput mean float32 1 3 6 8\nend\n";
  Bundle bundle = bundle_of(GetParam(), &folder_, 2, plan);
  bundle.manifest.artifacts[0].input_dtype = DType::kFloat32;
  bundle.manifest.artifacts[0].input_layout = Layout::kNCHW;
  if (!GetParam().old) {  // the shape is another one for those who know no implicit batch
    EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("[3,48,64]"));
    return;
  }
  const auto runtime = open(bundle);
  for (const int batch : {2, 1, 1, 1, 1}) {
    fill(runtime.get(), 0, batch - 1, 60 + batch);
    run(runtime.get(), 0, batch);
    expect_means(*runtime, 0, batch - 1, static_cast<float>(60 + batch));
  }
  EXPECT_GT(fake_cuda().graph_launches, 0);
  bundle.manifest.target->max_batch = 3;
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("at most 2 pictures"));
}

TEST_P(TensorRt, RefusesWhatDisagreesWithTheManifest) {
  const std::string head = std::string(kHead) + kProfiles;
  EXPECT_THAT(refuse_plan(head + kInput + "output mean float32 1 ? 3 6 8\nend\n"),
              HasSubstr("the manifest names twice, the plan has no such tensor"));
  EXPECT_THAT(refuse_plan(head + kInput + "output more float32 1 ? 3 6 8\n" + kOutputs),
              HasSubstr("the plan's more is not in the manifest"));
  EXPECT_THAT(refuse_plan(head + "input picture uint8 ? 48 64 3\n" + kOutputs),
              HasSubstr("the plan's picture is not in the manifest"));
  EXPECT_THAT(refuse_plan(head + "input image uint8 ? 48 128 3\n" + kOutputs),
              HasSubstr("image: the plan's shape is [?,48,128,3], the manifest's [?,48,64,3]"));
  EXPECT_THAT(refuse_plan(head + "input image float32 ? 48 64 3\n" + kOutputs),
              HasSubstr("the plan takes float32, the manifest says uint8"));
  EXPECT_THAT(refuse_plan(head + kInput +
                          "output mean float32 1 ? 4 6 8\noutput twice float32 1 ? 3 6 8\nend\n"),
              HasSubstr("mean: the plan's shape is [?,4,6,8], the manifest's [?,3,6,8]"));
  EXPECT_THAT(refuse_plan(head + kInput +
                          "output mean float16 1 ? 3 6 8\noutput twice float32 1 ? 3 6 8\nend\n"),
              HasSubstr("mean is float16, the manifest's float32"));
  EXPECT_THAT(refuse_plan(head + kInput +
                          "output mean chw2 1 ? 3 6 8\noutput twice float32 1 ? 3 6 8\nend\n"),
              HasSubstr("mean is not stored row by row"));
  EXPECT_EQ(fake_cuda().allocations, 0);

  Bundle bundle = bundle_of(GetParam(), &folder_, 2);
  bundle.manifest.artifacts[0].files.emplace_back("more");
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("files"));
  bundle = bundle_of(GetParam(), &folder_, 2);
  bundle.manifest.artifacts[0].input_dtype = DType::kInt8;
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("artifacts[0].input"));
  bundle = bundle_of(GetParam(), &folder_, 2);
  bundle.manifest.artifacts[0].outputs[1].dtype = DType::kInt8;
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("twice must be float32 or float16"));
}

TEST_P(TensorRt, RefusesDamagedAndForeignPlans) {
  const std::string plan = good_plan();
  const std::string cut = refuse_plan(plan.substr(0, plan.size() - 5));
  EXPECT_THAT(cut, HasSubstr("model.plan"));
  EXPECT_THAT(cut, HasSubstr(GetParam().version));
  EXPECT_THAT(cut, HasSubstr("fake plan: the plan is cut off"));
  EXPECT_THAT(refuse_plan("ftrt"), HasSubstr("magic tag does not match"));
  EXPECT_THAT(refuse_plan(""), HasSubstr("is empty"));
  Bundle bundle = bundle_of(GetParam(), &folder_, 1);
  bundle.manifest.artifacts[0].files = {"none.plan"};
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("none.plan"));
  bundle = bundle_of(GetParam(), &folder_, 1);
  bundle.manifest.target->device = "Orin";
  EXPECT_THAT(refuse(bundle, Code::kBundle), HasSubstr("\"Orin\", this is \"Fake GPU\""));
  bundle.manifest.target->device = "";  // goes anywhere
  EXPECT_NE(open(bundle), nullptr);
  bundle.manifest.target->runtime_version += ".42";  // a build of the same version
  EXPECT_NE(open(bundle), nullptr);
}

TEST_P(TensorRt, SaysWhatIsMissing) {
  const Bundle bundle = bundle_of(GetParam(), &folder_, 1);
  fake_cuda().driver = 0;
  EXPECT_THAT(refuse(bundle, Code::kUnavailable), HasSubstr("libcuda.so.1 is missing"));
  RuntimeInfo info = plugin_info(place_of(GetParam()));
  EXPECT_FALSE(info.available);
  EXPECT_EQ(info.version, GetParam().version);
  EXPECT_THAT(info.why, HasSubstr("libcuda.so.1"));

  fake_cuda() = {};
  fake_cuda().devices = 0;
  EXPECT_THAT(refuse(bundle, Code::kUnavailable), HasSubstr("no CUDA-capable device"));

  fake_cuda() = {};
  fake_cuda().tensorrt = GetParam().old ? 8401 : 10000;  // 8.4.1, and 1.0.0 or 10.0.0's sibling
  EXPECT_THAT(plugin_info(place_of(GetParam())).why, HasSubstr("build it again"));
  fake_cuda().tensorrt = GetParam().old ? 100300 : 130000;
  EXPECT_THAT(plugin_info(place_of(GetParam())).why, HasSubstr("build it again"));

  fake_cuda() = {};
  info = plugin_info(place_of(GetParam()));
  EXPECT_TRUE(info.available) << info.why;
  EXPECT_EQ(info.name, GetParam().runtime);
}

TEST_P(TensorRt, GoesWithANewerLibraryOfItsMajorVersion) {
  fake_cuda().tensorrt = GetParam().old                          ? 8601
                         : std::string(GetParam().name) == "rtx" ? 10701
                                                                 : 110400;
  const RuntimeInfo info = plugin_info(place_of(GetParam()));
  EXPECT_TRUE(info.available) << info.why;
  EXPECT_NE(info.version, GetParam().version);
  // But a plan is for one version.
  EXPECT_THAT(refuse(bundle_of(GetParam(), &folder_, 1), Code::kBundle),
              HasSubstr("posewire compile"));
}

TEST_P(TensorRt, LeavesNothingWhenItCannotOpen) {
  const Bundle bundle = bundle_of(GetParam(), &folder_, 1);
  for (const char* call :
       {"createInferRuntime", "createExecutionContext", "cudaMalloc", "cudaHostAlloc"}) {
    fake_cuda().fail = call;
    const std::string what = refuse(bundle, Code::kUnavailable);
    EXPECT_TRUE(what.find("memory") != std::string::npos || what.find("start") != std::string::npos)
        << what;
    EXPECT_EQ(fake_cuda().alive, 0) << call;
  }
}

TEST_P(TensorRt, ReportsFailuresWhileItRuns) {
  const auto runtime = open(bundle_of(GetParam(), &folder_, 1));
  run(runtime.get(), 0, 1);
  for (const char* call : {"enqueue", "cudaMemcpyAsync"}) {
    fake_cuda().fail = call;
    const Status status = runtime->start(0, 1);
    EXPECT_EQ(status.code(), Code::kUnavailable) << call;
    EXPECT_THAT(status.what(), HasSubstr(GetParam().runtime));
  }
  for (int i = 0; i < 4; ++i) {
    run(runtime.get(), 0, 1);
  }
  fake_cuda().fail = "cudaGraphLaunch";
  EXPECT_EQ(runtime->start(0, 1).code(), Code::kUnavailable);
  ASSERT_TRUE(runtime->start(0, 1).ok());
  fake_cuda().fail = "cudaEventSynchronize";
  EXPECT_THAT(runtime->wait(0).what(), HasSubstr("injected error"));
}

TEST_P(TensorRt, RunsWithoutItsKernelsWhatNeedsNone) {
  fake_cuda().kernels = false;
  const auto runtime = open(bundle_of(GetParam(), &folder_, 1));
  EXPECT_EQ(runtime->device_letterbox(), nullptr);
  fill(runtime.get(), 0, 0, 5);
  run(runtime.get(), 0, 1);
  expect_means(*runtime, 0, 0, 5.0F);
  Bundle bundle = bundle_of(GetParam(), &folder_, 1);
  bundle.manifest.artifacts[0].outputs[0].dtype = DType::kFloat16;
  EXPECT_THAT(refuse(bundle, Code::kUnavailable), HasSubstr("CUDA kernels"));
}

TEST(Plugins, AreLookedForBesideTheEngineAndNamedWhenMissing) {
  const PluginPlace place = plugin_place("tensorrt");
  ASSERT_GE(place.files.size(), 2U);
  EXPECT_THAT(place.files.front(), HasSubstr("/tests/cpp/libposewire_tensorrt.so"));
  EXPECT_EQ(place.files.back(), "libposewire_tensorrt.so");
  const std::string why =
      plugin_info({"tensorrt", {"/no/such/libposewire_tensorrt.so", "libposewire_no.so"}, false})
          .why;
  EXPECT_THAT(why, HasSubstr("/no/such/libposewire_tensorrt.so"));
  EXPECT_THAT(why, HasSubstr("docs/tensorrt.md"));
}

// The most important refusal: an object compiled with our declarations must not meet a network of
// somebody's.
TEST(Plugins, MadeForTestsAreRefused) {
  for (const Mode& mode : kModes) {
    PluginPlace place = place_of(mode);
    place.declarations = false;
    EXPECT_THAT(plugin_info(place).why, HasSubstr("without the vendor's headers"));
  }
}

TEST(Plugins, ThatAreNoneOrAnothersAreRefused) {
  EXPECT_THAT(plugin_info({"tensorrt", {POSEWIRE_NO_PLUGIN}, true}).why,
              HasSubstr("none of posewire's"));
  EXPECT_THAT(plugin_info({"tensorrt", {POSEWIRE_PLUGIN_RTX}, true}).why,
              HasSubstr("is one for tensorrt_rtx"));
  Folder folder;
  folder.write("broken.so", "no library");
  const RuntimeInfo info = plugin_info({"tensorrt", {folder.path() + "/broken.so"}, true});
  EXPECT_THAT(info.why, HasSubstr("does not load"));
}

TEST(Plugins, NameTheLibraryThatTheyMiss) {
  try {
    load_tensorrt();
    FAIL() << "was loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUnavailable);
    EXPECT_STREQ(error.what(),
                 "libposewire_no_such_tensorrt.so.11: the library of TensorRT does not load: "
                 "cannot open shared object file: No such file or directory");
  }
}

}  // namespace
}  // namespace posewire
