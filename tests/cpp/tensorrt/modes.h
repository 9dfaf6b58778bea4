// SPDX-License-Identifier: Apache-2.0
// The plug-in in every mode of our declarations, over the fakes: what both of its test programs
// share.
#pragma once

#include <memory>
#include <string>

#include "infer/plugin.h"
#include "runtime_bundle.h"
#include "tensorrt/fake_cuda.h"

namespace posewire {

using test::fake_cuda;

struct DeclaredMode {
  const char* name;
  const char* runtime;
  const char* file;
  const char* version;
  bool old;  // TensorRT < 10
};
constexpr DeclaredMode kModes[] = {{"v8_5", "tensorrt", POSEWIRE_PLUGIN_8_5, "8.5.0", true},
                                   {"v11", "tensorrt", POSEWIRE_PLUGIN_11, "11.1.0", false},
                                   {"rtx", "tensorrt_rtx", POSEWIRE_PLUGIN_RTX, "1.6.1", false}};
inline void PrintTo(const DeclaredMode& mode, std::ostream* out) { *out << mode.name; }

constexpr const char* kHead = "posewire-fake-plan 1\n";
constexpr const char* kProfiles = "profile 1 4\nprofile 1 4\nprofile 1 4\n";
constexpr const char* kInput = "input image uint8 ? 48 64 3\n";
// Not in the manifest's order.
constexpr const char* kOutputs =
    "output twice float32 2 ? 3 6 8\noutput mean float32 1 ? 3 6 8\nend\n";

inline std::string good_plan() { return std::string(kHead) + kProfiles + kInput + kOutputs; }

inline PluginPlace place_of(const DeclaredMode& mode) { return {mode.runtime, {mode.file}, true}; }

inline Bundle bundle_of(const DeclaredMode& mode, Folder* folder, int max_batch,
                        const std::string& plan = good_plan()) {
  folder->write("model.plan", plan);
  Bundle bundle = bundle_in(*folder, mode.runtime, mode.version, max_batch);
  bundle.manifest.artifacts[0].files = {"model.plan"};
  bundle.manifest.target->device = "Fake GPU";
  return bundle;
}

inline OpenRuntime opener(const DeclaredMode& mode) {
  return [mode](const Bundle& bundle, const RuntimeOptions& options) {
    return open_plugin(place_of(mode), bundle, options);
  };
}

class TensorRt : public ::testing::TestWithParam<DeclaredMode> {
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
inline void run(Runtime* runtime, int request, int batch) {
  const Status started = runtime->start(request, batch);
  ASSERT_TRUE(started.ok()) << started.what();
  const Status done = runtime->wait(request);
  ASSERT_TRUE(done.ok()) << done.what();
}

// Every cell of the first output of a picture that was filled with one value.
inline void expect_means(const Runtime& runtime, int request, int index, float value) {
  std::vector<MapView> views;
  runtime.outputs(request, index, &views);
  for (std::size_t cell = 0; cell < 3 * kCells; ++cell) {
    ASSERT_FLOAT_EQ(static_cast<const float*>(views[0].data)[cell], value);
    ASSERT_FLOAT_EQ(static_cast<const float*>(views[1].data)[cell], 2.0F * value);
  }
}

}  // namespace posewire
