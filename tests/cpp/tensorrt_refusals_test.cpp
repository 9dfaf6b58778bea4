// SPDX-License-Identifier: Apache-2.0
// What the TensorRT plug-in and its loader refuse, over fakes of TensorRT and CUDA.
#include "infer/tensorrt/library.h"
#include "tensorrt/modes.h"

namespace posewire {
namespace {

INSTANTIATE_TEST_SUITE_P(Modes, TensorRt, ::testing::ValuesIn(kModes),
                         [](const auto& info) { return info.param.name; });

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
  for (const DeclaredMode& mode : kModes) {
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
