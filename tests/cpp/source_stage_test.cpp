// SPDX-License-Identifier: Apache-2.0
// A camera that comes and goes, by a script.
#include "pipeline/source_stage.h"

#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "recorder.h"

namespace posewire {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

// A source that does as it is told.
struct Step {
  enum { kOpens, kAbsent, kFrame, kEnd, kFails } what;
};

class Scripted final : public Source {
 public:
  Scripted(bool live, std::deque<Step> script) : live_(live), script_(std::move(script)) {}
  void open() override {
    if (next() == Step::kAbsent) {
      throw Error(Code::kSource, "camera door", "no such device");
    }
  }
  Read read(Frame* frame, Status* status) override {
    switch (next()) {
      case Step::kFrame:
        frame->image.resize(8, 6);
        frame->t_arrival = std::chrono::steady_clock::now();
        return Read::kFrame;
      case Step::kFails:
        *status = Status(Code::kSource, "camera door: connection reset");
        return Read::kFailed;
      default:
        return script_.empty() ? Read::kStopped : Read::kEnd;
    }
  }
  void stop() noexcept override {}
  bool live() const noexcept override { return live_; }

 private:
  int next() {
    if (script_.empty()) {
      return -1;
    }
    const int what = script_.front().what;
    script_.pop_front();
    return what;
  }
  const bool live_;
  std::deque<Step> script_;
};

struct Stage {
  Stage(bool live, bool retry, std::deque<Step> script)
      : stage("door", 0, std::make_unique<Scripted>(live, std::move(script)), retry, &events,
              &verdict) {
    stage.connect(&lane, &frames);
  }
  std::vector<std::string> states() const {
    std::vector<std::string> result;
    for (const json& event : recorder.of("source")) {
      result.push_back(event["state"]);
    }
    return result;
  }
  Recorder recorder;
  Events events{&recorder};
  Verdict verdict;
  Pool<Frame> frames{32};
  Channel<FramePtr> lane{16, Policy::kBlock};
  SourceStage stage;
};

TEST(SourceStage, ReopensALiveSourceAndCountsOn) {
  Stage test(true, true,
             {{Step::kAbsent},
              {Step::kOpens},
              {Step::kFrame},
              {Step::kFrame},
              {Step::kFails},
              {Step::kAbsent},
              {Step::kOpens},
              {Step::kFrame},
              {Step::kEnd},
              {Step::kOpens}});
  test.stage.open();  // absent: no reason not to start
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(test.stage.run().ok());
  EXPECT_GT(std::chrono::steady_clock::now() - begin, milliseconds(4 * 500));  // it backs off
  EXPECT_EQ(test.states(), (std::vector<std::string>{"offline", "online", "offline", "offline",
                                                     "online", "offline"}));
  EXPECT_EQ(test.recorder.of("source")[5]["why"], "the stream ended");
  EXPECT_TRUE(test.verdict.status().ok());
  FramePtr frame;
  for (std::uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(test.lane.try_pop(&frame));
    EXPECT_EQ(frame->seq, i);
  }
}

TEST(SourceStage, WithoutRetryAFailureIsTheEnd) {
  Stage absent(true, false, {{Step::kAbsent}});
  EXPECT_THROW(absent.stage.open(), Error);
  Stage failing(true, false, {{Step::kOpens}, {Step::kFrame}, {Step::kFails}});
  failing.stage.open();
  EXPECT_TRUE(failing.stage.run().ok());
  EXPECT_EQ(failing.verdict.status().code(), Code::kSource);
}

TEST(SourceStage, AFiniteSourceThatBreaksIsAFailureWithItsFramesKept) {
  Stage test(false, true, {{Step::kOpens}, {Step::kFrame}, {Step::kFails}});
  test.stage.open();
  EXPECT_TRUE(test.stage.run().ok());
  EXPECT_EQ(test.verdict.status().code(), Code::kSource);
  EXPECT_EQ(test.verdict.status().what(), "camera door: connection reset");
  EXPECT_EQ(test.recorder.of("warning").size(), 1U);
  ASSERT_NE(test.stage.end_event(), nullptr);
  EXPECT_EQ(test.stage.end_event()->why, "camera door: connection reset");
  EXPECT_EQ(test.lane.counts().depth, 1U);
}

// The back-off would reach 5 s a try.
TEST(SourceStage, StopEndsTheBackOff) {
  Stage test(true, true, std::deque<Step>(1000, Step{Step::kAbsent}));
  test.stage.open();
  const auto begin = std::chrono::steady_clock::now();
  std::thread running([&] { EXPECT_TRUE(test.stage.run().ok()); });
  std::this_thread::sleep_for(milliseconds(20));
  test.stage.stop();
  running.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, milliseconds(20000));
  EXPECT_EQ(test.states(), std::vector<std::string>{"offline"});  // said once
}

}  // namespace
}  // namespace posewire
