// SPDX-License-Identifier: Apache-2.0
// The TensorRT plug-in over fakes of TensorRT and CUDA (tests/cpp/tensorrt), in every mode of our
// declarations: the contract of all runtimes, and what is special about this one.
#include <algorithm>
#include <atomic>
#include <thread>

#include "allocations.h"
#include "infer/device.h"
#include "runtime_contract.h"
#include "tensorrt/host_kernels.h"
#include "tensorrt/modes.h"

namespace posewire {
namespace {

std::vector<ContractRow> rows() {
  std::vector<ContractRow> rows;
  for (const DeclaredMode& mode : kModes) {
    rows.push_back(
        {mode.name,
         [mode](Folder* folder, int max_batch) { return bundle_of(mode, folder, max_batch); },
         opener(mode)});
  }
  return rows;
}
INSTANTIATE_TEST_SUITE_P(TensorRt, Contract, ::testing::ValuesIn(rows()),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Modes, TensorRt, ::testing::ValuesIn(kModes),
                         [](const auto& info) { return info.param.name; });

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

}  // namespace
}  // namespace posewire
