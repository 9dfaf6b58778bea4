// SPDX-License-Identifier: Apache-2.0
// The runtime table: one contract test for every row that is available, and each row's own
// refusals.
#include <chrono>
#include <cmath>
#include <thread>

#include "infer_bundles.h"
#include "runtime_contract.h"

#ifdef POSEWIRE_OPENVINO
#include <openvino/op/ops.hpp>
#include <openvino/openvino.hpp>
#endif

namespace posewire {
namespace {

Bundle fake_bundle(Folder* folder, const std::string& json, int max_batch = 2) {
  folder->write("fake.json", json);
  Bundle bundle = bundle_in(*folder, "fake", max_batch);
  bundle.manifest.artifacts[0].files = {"fake.json"};
  return bundle;
}

#ifdef POSEWIRE_OPENVINO
// uint8 NHWC -> float NCHW -> mean of 8 x 8 cells, and the double of it.
Bundle openvino_bundle(Folder* folder, int max_batch) {
  using namespace ov::op;
  auto image =
      std::make_shared<v0::Parameter>(ov::element::u8, ov::PartialShape{-1, kHeight, kWidth, 3});
  auto real = std::make_shared<v0::Convert>(image, ov::element::f32);
  auto order = v0::Constant::create(ov::element::i64, {4}, {0, 3, 1, 2});
  auto planes = std::make_shared<v1::Transpose>(real, order);
  auto mean = std::make_shared<v1::AvgPool>(planes, ov::Strides{8, 8}, ov::Shape{0, 0},
                                            ov::Shape{0, 0}, ov::Shape{8, 8}, true);
  auto two = v0::Constant::create(ov::element::f32, {}, {2.0F});
  auto twice = std::make_shared<v1::Multiply>(mean, two);
  image->output(0).set_names({"image"});
  mean->output(0).set_names({"mean"});
  twice->output(0).set_names({"twice"});
  // The network lists its outputs in another order than the manifest.
  auto model =
      std::make_shared<ov::Model>(ov::OutputVector{twice, mean}, ov::ParameterVector{image});
  ov::serialize(model, folder->path() + "/model.xml", folder->path() + "/model.bin");
  folder->owns("model.xml");
  folder->owns("model.bin");
  Bundle bundle = bundle_in(*folder, "openvino", max_batch);
  bundle.manifest.artifacts[0].files = {"model.xml", "model.bin"};
  return bundle;
}
#endif

Bundle any_bundle(const std::string& runtime, Folder* folder, int max_batch) {
  if (runtime == "fake") {
    return fake_bundle(folder, "{\"schema\": 1, \"infer_ms\": 1}", max_batch);
  }
#ifdef POSEWIRE_OPENVINO
  if (runtime == "openvino") {
    return openvino_bundle(folder, max_batch);
  }
#endif
  if (runtime == "tflite") {
    return tflite_bundle(folder, max_batch);
  }
  throw std::runtime_error("a new runtime needs a bundle for its contract test: " + runtime);
}

// TensorRT's rows have a test of their own (tensorrt_test.cpp): nothing here makes their plans.
bool has_own_test(const std::string& name) { return name.rfind("tensorrt", 0) == 0; }

std::vector<ContractRow> available() {
  std::vector<ContractRow> rows;
  for (const RuntimeInfo& info : runtimes()) {
    if (info.available && !has_own_test(info.name)) {
      const std::string name = info.name;
      rows.push_back(
          {name,
           [name](Folder* folder, int max_batch) { return any_bundle(name, folder, max_batch); },
           open_runtime});
    } else if (!info.available) {
      EXPECT_FALSE(info.why.empty()) << info.name;
    }
  }
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Rows, Contract, ::testing::ValuesIn(available()),
                         [](const auto& info) { return info.param.name; });

TEST(Table, RefusesPortableUnknownAndForeign) {
  Folder folder;
  Bundle bundle = fake_bundle(&folder, "{}");
  bundle.manifest.target->runtime = "tpu";
  std::string what = refusal(bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("tpu"));
  EXPECT_THAT(what, HasSubstr("fake, openvino, tflite, tensorrt, tensorrt_rtx"));

  bundle = bundle_in(folder, "fake", 1);
  bundle.manifest.artifacts[0].format = "onnx";
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("of format \"fake\""));

  bundle.manifest.target.reset();
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("portable"));
}

TEST(Fake, RefusesBadParameters) {
  for (const char* json : {"", "[]", "{\"speed\": 1}", "{\"infer_ms\": \"fast\"}",
                           "{\"infer_ms\": -1}", "{\"requests\": 0}", "{\"schema\": 2}"}) {
    Folder folder;
    EXPECT_THAT(refusal(fake_bundle(&folder, json), Code::kBundle), HasSubstr("fake.json")) << json;
  }
}

TEST(Fake, PlaysARecording) {
  Folder folder;
  Bundle bundle = fake_bundle(&folder, "{}", 2);
  std::vector<float> maps;
  for (int picture = 0; picture < 3; ++picture) {
    maps.insert(maps.end(), 3 * kCells, static_cast<float>(picture));
    maps.insert(maps.end(), 3 * kCells, static_cast<float>(picture) + 0.5F);
  }
  folder.write("maps.f32", std::string(reinterpret_cast<const char*>(maps.data()),
                                       maps.size() * sizeof(float)));
  bundle.manifest.artifacts[0].files = {"fake.json", "maps.f32"};
  const auto runtime = open_runtime(bundle, {});
  std::vector<MapView> views;
  for (int round = 0; round < 4; ++round) {
    ASSERT_TRUE(runtime->start(0, 2).ok());
    ASSERT_TRUE(runtime->wait(0).ok());
    for (int i = 0; i < 2; ++i) {
      runtime->outputs(0, i, &views);
      const float expected = static_cast<float>((2 * round + i) % 3);
      EXPECT_EQ(static_cast<const float*>(views[0].data)[0], expected);
      EXPECT_EQ(static_cast<const float*>(views[1].data)[3 * kCells - 1], expected + 0.5F);
    }
  }
  folder.write("maps.f32", "short");
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("maps.f32"));
}

TEST(Fake, TakesItsTimeOneBatchAfterTheOther) {
  Folder folder;
  const auto runtime = open_runtime(fake_bundle(&folder, "{\"infer_ms\": 20}"), {});
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(runtime->start(0, 1).ok());
  ASSERT_TRUE(runtime->start(1, 2).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
  ASSERT_TRUE(runtime->wait(0).ok());
  ASSERT_TRUE(runtime->wait(1).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(60));
}

TEST(Fake, InjectsFailuresAndNan) {
  Folder folder;
  const auto runtime =
      open_runtime(fake_bundle(&folder, "{\"nan_every\": 2, \"fail_at\": 2}", 1), {});
  std::vector<MapView> views;
  for (const bool nan : {false, true}) {
    ASSERT_TRUE(runtime->start(0, 1).ok());
    ASSERT_TRUE(runtime->wait(0).ok());
    runtime->outputs(0, 0, &views);
    EXPECT_EQ(std::isnan(static_cast<const float*>(views[1].data)[7]), nan);
  }
  for (int i = 0; i < 2; ++i) {  // a broken device stays broken
    ASSERT_TRUE(runtime->start(0, 1).ok());
    const Status status = runtime->wait(0);
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.what(), HasSubstr("picture 2"));
  }
}

TEST(Fake, Hangs) {
  Folder folder;
  const auto runtime =
      open_runtime(fake_bundle(&folder, "{\"hang_at\": 0, \"hang_ms\": 80}", 1), {});
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(runtime->start(0, 1).ok());
  ASSERT_TRUE(runtime->wait(0).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(80));
}

#ifdef POSEWIRE_OPENVINO
TEST(OpenVino, ComputesTheNetworkInManifestOrder) {
  Folder folder;
  RuntimeOptions options;
  options.threads = 1;
  const auto runtime = open_runtime(openvino_bundle(&folder, 2), options);
  fill(runtime.get(), 0, 0, 100);
  fill(runtime.get(), 0, 1, 30);
  ASSERT_TRUE(runtime->start(0, 2).ok());
  ASSERT_TRUE(runtime->wait(0).ok());
  std::vector<MapView> views;
  for (const auto& [picture, mean] : {std::pair{0, 100.0F}, {1, 30.0F}}) {
    runtime->outputs(0, picture, &views);
    for (std::size_t cell = 0; cell < 3 * kCells; ++cell) {
      ASSERT_FLOAT_EQ(static_cast<const float*>(views[0].data)[cell], mean);
      ASSERT_FLOAT_EQ(static_cast<const float*>(views[1].data)[cell], 2.0F * mean);
    }
  }
}

TEST(OpenVino, RefusesWhatDisagreesWithTheManifest) {
  Folder folder;
  const Bundle good = openvino_bundle(&folder, 1);
  Bundle bundle = good;
  bundle.manifest.outputs[1].channels = 4;
  std::string what = refusal(bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("twice is f32 [1,3,6,8]"));
  EXPECT_THAT(what, HasSubstr("[?,4,6,8]"));

  bundle = good;
  bundle.manifest.outputs[0].name = bundle.manifest.artifacts[0].outputs[0].name = "heatmaps";
  what = refusal(bundle, Code::kBundle);
  EXPECT_THAT(what, HasSubstr("heatmaps"));
  EXPECT_THAT(what, HasSubstr("mean"));

  bundle = good;
  bundle.manifest.artifacts[0].outputs[0].layout = Layout::kNHWC;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("[?,6,8,3]"));

  bundle = good;
  bundle.manifest.input_width = 128;
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("input: the network takes u8 [?,48,64,3]"));

  bundle = good;
  bundle.manifest.target->device = "Another CPU";
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("Another CPU"));

  bundle = good;
  bundle.manifest.target->precision = "int8-u8";
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("int8-u8"));
}

TEST(OpenVino, SaysSoWhenTheFileIsNoNetwork) {
  Folder folder;
  Bundle bundle = openvino_bundle(&folder, 1);
  folder.write("model.xml", "<net>");
  EXPECT_THAT(refusal(bundle, Code::kBundle), HasSubstr("model.xml"));
}
#endif

}  // namespace
}  // namespace posewire
