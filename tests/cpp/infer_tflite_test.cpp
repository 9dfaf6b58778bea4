// SPDX-License-Identifier: Apache-2.0
// The TFLite row beyond the contract that infer_test runs over every row.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "infer_bundles.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;

class TfLite : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const RuntimeInfo& info : runtimes()) {
      if (info.name == "tflite" && !info.available) {
        GTEST_SKIP() << info.why;
      }
    }
  }
};

TEST_F(TfLite, ComputesTheNetworkInManifestOrder) {
  Folder folder;
  Bundle bundle = tflite_bundle(&folder, 3);
  std::swap(bundle.manifest.outputs[0], bundle.manifest.outputs[1]);
  const auto runtime = open_runtime(bundle, {});
  std::vector<MapView> views;
  for (int picture = 0; picture < 3; ++picture) {
    fill(runtime.get(), 0, picture, 100 - 30 * picture);
  }
  ASSERT_TRUE(runtime->start(0, 3).ok());
  ASSERT_TRUE(runtime->wait(0).ok());
  for (int picture = 0; picture < 3; ++picture) {
    runtime->outputs(0, picture, &views);
    const auto mean = static_cast<float>(100 - 30 * picture);
    for (std::size_t cell = 0; cell < 3 * kCells; ++cell) {
      ASSERT_FLOAT_EQ(static_cast<const float*>(views[0].data)[cell], 2.0F * mean);
      ASSERT_FLOAT_EQ(static_cast<const float*>(views[1].data)[cell], mean);
    }
  }
}

TEST_F(TfLite, Int8OutputsCarryTheirScale) {
  Folder folder;
  const auto runtime = open_runtime(tflite_bundle(&folder, 1, "int8"), {});
  fill(runtime.get(), 0, 0, 90);
  ASSERT_TRUE(runtime->start(0, 1).ok());
  ASSERT_TRUE(runtime->wait(0).ok());
  std::vector<MapView> views;
  runtime->outputs(0, 0, &views);
  for (const auto& [output, wanted] : {std::pair{0, 90.0F}, {1, 180.0F}}) {
    const MapView& view = views[static_cast<std::size_t>(output)];
    ASSERT_EQ(view.dtype, DType::kInt8);
    const int stored = static_cast<const std::int8_t*>(view.data)[11];
    EXPECT_NEAR(view.scale * static_cast<float>(stored - view.zero_point), wanted, view.scale);
  }
}

TEST_F(TfLite, ManySlotsShareTheStreams) {
  Folder folder;
  RuntimeOptions options;
  options.requests = 7;
  options.threads = 2;
  const auto runtime = open_runtime(tflite_bundle(&folder, 1), options);
  ASSERT_EQ(runtime->requests(), 7);
  std::vector<MapView> views;
  for (int round = 0; round < 50; ++round) {
    for (int request = 0; request < 7; ++request) {
      fill(runtime.get(), request, 0, round + request);
      ASSERT_TRUE(runtime->start(request, 1).ok());
    }
    for (int request = 6; request >= 0; --request) {
      ASSERT_TRUE(runtime->wait(request).ok());
      runtime->outputs(request, 0, &views);
      ASSERT_FLOAT_EQ(static_cast<const float*>(views[0].data)[0],
                      static_cast<float>(round + request));
    }
  }
  ASSERT_TRUE(runtime->start(3, 1).ok());  // and it may be closed while it works
}

std::size_t threads_here() {
  const auto entries = std::filesystem::directory_iterator("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

TEST_F(TfLite, OneRequestHasTheThreadsAskedFor) {
  Folder folder;
  const Bundle bundle = tflite_bundle(&folder, 1);
  const auto added = [&bundle](int threads) {
    RuntimeOptions options;
    options.requests = 1;
    options.threads = threads;
    const std::size_t before = threads_here();
    const auto runtime = open_runtime(bundle, options);
    // XNNPACK's pool is made at the latest by the first run.
    EXPECT_TRUE(runtime->start(0, 1).ok());
    EXPECT_TRUE(runtime->wait(0).ok());
    return threads_here() - before;
  };
  EXPECT_EQ(added(1), 1U);  // the stream's own
  EXPECT_EQ(added(4), 4U);
}

TEST_F(TfLite, RefusesWhatDisagreesWithTheManifest) {
  Folder folder;
  const Bundle good = tflite_bundle(&folder, 1);
  Bundle bundle = good;
  bundle.manifest.outputs[1].channels = 4;
  std::string what = refusal(bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("twice is float32 [1,6,8,3]"));
  EXPECT_THAT(what, HasSubstr("float32 [1,6,8,4]"));

  bundle = good;
  bundle.manifest.outputs[0].name = bundle.manifest.artifacts[0].outputs[0].name = "heatmaps";
  what = refusal(bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("heatmaps"));
  EXPECT_THAT(what, HasSubstr("mean"));

  bundle = good;
  bundle.manifest.artifacts[0].outputs[0].layout = Layout::kNCHW;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("float32 [1,3,6,8]"));

  bundle = good;
  bundle.manifest.input_width = 128;
  EXPECT_THAT(refusal(bundle, Code::kBundle),
              HasSubstr("input: the network takes image, uint8 [1,48,64,3]"));

  bundle = good;
  bundle.manifest.artifacts[0].input_dtype = DType::kFloat32;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("uint8 NHWC"));

  bundle = good;
  bundle.manifest.target->device = "abacus";
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("abacus"));

  bundle = good;
  bundle.manifest.target->precision = "bf16";
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("bf16"));

  bundle = tflite_bundle(&folder, 1, "int8");
  bundle.manifest.artifacts[0].outputs[1].zero_point = 0;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("twice has scale 2"));

  bundle.manifest.artifacts[0].outputs[1].dtype = DType::kFloat32;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("twice is int8"));
}

TEST_F(TfLite, SaysSoWhenTheFileIsNoNetwork) {
  Folder folder;
  const Bundle bundle = tflite_bundle(&folder, 1);
  std::ifstream golden(folder.path() + "/model.tflite", std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(golden), {});
  for (const std::string& bytes : {std::string(), std::string("TFL3"), std::string(4096, '\xff'),
                                   whole.substr(0, whole.size() / 2), whole.substr(0, 64)}) {
    folder.write("model.tflite", bytes);
    EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("model.tflite")) << bytes.size();
  }
  std::string renamed = whole;
  for (std::size_t at = 0; (at = renamed.find("mean", at)) != std::string::npos; ++at) {
    renamed.replace(at, 4, "m\x91\n\xff");
  }
  folder.write("model.tflite", renamed);
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("m???"));
}

}  // namespace
}  // namespace posewire
