// SPDX-License-Identifier: Apache-2.0
// Where frames are letterboxed: on the runtime's device if it can, else straight into its input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "pipeline/inference_stages.h"

namespace posewire {
namespace {

constexpr int kWidth = 8, kHeight = 6, kBatch = 3;
constexpr int kRequests = 3;  // nobody gives slots back: one is left when the frames are over

struct Prepared {
  int request, index, width, height;
  Letterbox geometry;
};

// Notes what it is given; computes nothing.
class NotingRuntime final : public Runtime, private DeviceLetterbox {
 public:
  explicit NotingRuntime(bool has_device) : has_device_(has_device) {}

  int requests() const noexcept override { return kRequests; }
  int max_batch() const noexcept override { return kBatch; }
  void* input(int request) noexcept override { return inputs[request]; }
  Status start(int, int batch) override {
    batches.push_back(batch);
    return {};
  }
  Status wait(int) override { return {}; }
  void outputs(int, int, std::vector<MapView>*) const override {}
  DeviceLetterbox* device_letterbox() noexcept override { return has_device_ ? this : nullptr; }

  std::vector<Prepared> prepared;
  std::vector<int> batches;
  Status answer;
  std::uint8_t inputs[kRequests][kBatch * kWidth * kHeight * 3] = {};

 private:
  Status letterbox(int request, int index, const DeviceFrame& frame,
                   const Letterbox& geometry) override {
    EXPECT_FALSE(frame.on_device);
    EXPECT_EQ(frame.pixels, DeviceFrame::Pixels::kBgr);
    EXPECT_EQ(frame.planes[0][0], 200);
    prepared.push_back({request, index, frame.width, frame.height, geometry});
    return answer;
  }
  const bool has_device_;
};

// Runs the stage over frames of 16 x 12 of one colour.
Status run(NotingRuntime* runtime, int frames) {
  Manifest manifest;
  manifest.input_width = kWidth;
  manifest.input_height = kHeight;
  Pool<Frame> pool(static_cast<std::size_t>(frames));
  Pool<Work> works(static_cast<std::size_t>(frames));
  Doorbell bell;
  Channel<FramePtr> lane(static_cast<std::size_t>(frames), Policy::kBlock, &bell);
  for (int i = 0; i < frames; ++i) {
    FramePtr frame = pool.wait_take();
    frame->image.resize(16, 12);
    std::fill(frame->image.bytes.begin(), frame->image.bytes.end(), std::uint8_t{200});
    EXPECT_TRUE(lane.wait_push(std::move(frame)));
  }
  lane.close();
  Batcher<FramePtr> batcher({&lane}, &bell);
  Slots slots(runtime);
  return PreprocessStage(manifest, &slots, &batcher, &works, false).run();
}

TEST(PreprocessStage, LetsTheDeviceLetterboxWhereItCan) {
  NotingRuntime runtime(true);
  ASSERT_TRUE(run(&runtime, 4).ok());
  EXPECT_THAT(runtime.batches, ::testing::ElementsAre(3, 1));
  ASSERT_EQ(runtime.prepared.size(), 4U);
  for (int i = 0; i < 4; ++i) {
    const Prepared& prepared = runtime.prepared[static_cast<std::size_t>(i)];
    EXPECT_EQ(prepared.request, i / 3);
    EXPECT_EQ(prepared.index, i % 3);
    EXPECT_EQ(prepared.width, 16);
    EXPECT_EQ(prepared.height, 12);
    EXPECT_EQ(prepared.geometry.width, kWidth);
  }
  EXPECT_EQ(std::count(std::begin(runtime.inputs[0]), std::end(runtime.inputs[0]), 0),
            static_cast<long>(sizeof(runtime.inputs[0])));  // the CPU wrote nothing
}

TEST(PreprocessStage, EndsWithTheDevicesFailure) {
  NotingRuntime runtime(true);
  runtime.answer = {Code::kUnavailable, "letterbox: out of memory"};
  const Status status = run(&runtime, 4);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_EQ(status.what(), "letterbox: out of memory");
  EXPECT_TRUE(runtime.batches.empty());
}

TEST(PreprocessStage, LetterboxesIntoTheInputOtherwise) {
  NotingRuntime runtime(false);
  ASSERT_TRUE(run(&runtime, 4).ok());
  EXPECT_TRUE(runtime.prepared.empty());
  for (const std::uint8_t value : runtime.inputs[0]) {
    ASSERT_EQ(value, 200);
  }
  EXPECT_EQ(runtime.inputs[1][0], 200);
  EXPECT_EQ(runtime.inputs[1][kWidth * kHeight * 3], 0);
}

}  // namespace
}  // namespace posewire
