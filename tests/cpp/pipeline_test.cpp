// SPDX-License-Identifier: Apache-2.0
// The whole pipeline as a library: fake runtime, synthetic and scripted sources, sinks in memory.
#include "pipeline/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "allocations.h"
#include "fake_bundle.h"
#include "recorder.h"

namespace posewire {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using ::testing::HasSubstr;

// A sink from a function.
class CallSink final : public Sink {
 public:
  explicit CallSink(std::function<Status(const Result&)> write) : write_(std::move(write)) {}
  void open(const Skeleton&) override {}
  bool wants_picture() const noexcept override { return false; }
  Status write(const Result& result) override { return write_(result); }
  Status close() override { return {}; }

 private:
  std::function<Status(const Result&)> write_;
};

// One engine with a sink in memory.
class Engine {
 public:
  explicit Engine(const json& sources, const json& fake = {{"schema", 1}}, int max_batch = 4,
                  const json& more = json::object()) {
    json config = engine_config(write_fake_bundle(folder_, fake, max_batch), sources);
    config.update(more);
    pipeline_ = std::make_unique<Pipeline>(parse_config(config.dump(), "engine.json"), &events_);
    pipeline_->add_sink("memory", std::make_unique<CallSink>([this](const Result& result) {
                          messages_.push_back(json::parse(*result.payload));
                          return Status();
                        }));
  }
  Outcome run() { return pipeline_->run(); }
  Pipeline& pipeline() { return *pipeline_; }
  const Recorder& events() const { return recorder_; }
  // Another thread: stops `after` the first frame was read.
  std::thread stop_later(milliseconds after, int drain_ms) {
    return std::thread([this, after, drain_ms] {
      while (recorder_.of("source").empty()) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      std::this_thread::sleep_for(after);
      pipeline_->stop(drain_ms);
    });
  }
  const std::vector<json>& messages() const { return messages_; }

  // Sequence numbers as they came, by camera.
  std::map<std::string, std::vector<int>> sequences() const {
    std::map<std::string, std::vector<int>> result;
    for (const json& message : messages_) {
      result[message["camera"]].push_back(message["seq"]);
    }
    return result;
  }

 private:
  TempFolder folder_;
  Recorder recorder_;
  Events events_{&recorder_};
  std::vector<json> messages_;
  std::unique_ptr<Pipeline> pipeline_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

json uri_source(const std::string& camera, const std::string& uri) {
  return {{"camera", camera}, {"uri", uri}};
}

json source(const std::string& camera, const std::string& query,
            const std::string& policy = "auto") {
  return {{"camera", camera},
          {"uri", "synthetic:?people=0&width=64&height=48&" + query},
          {"policy", policy}};
}

TEST(Pipeline, PublishesEveryFrameOnceAndInOrder) {
  for (const int max_batch : {1, 3, 8}) {
    for (const int requests : {1, 4}) {
      Engine engine(json::array({source("a", "frames=120"), source("b", "frames=70"),
                                 source("c", "frames=1")}),
                    {{"schema", 1}, {"requests", requests}, {"infer_ms", 0.2}}, max_batch);
      const Outcome outcome = engine.run();
      EXPECT_EQ(outcome.code, Code::kOk) << outcome.why;
      EXPECT_EQ(outcome.frames, 191U);
      const auto sequences = engine.sequences();
      for (const auto& [camera, frames] :
           std::map<std::string, int>{{"a", 120}, {"b", 70}, {"c", 1}}) {
        std::vector<int> expected(static_cast<std::size_t>(frames));
        for (int i = 0; i < frames; ++i) {
          expected[static_cast<std::size_t>(i)] = i;
        }
        EXPECT_EQ(sequences.at(camera), expected) << camera;
      }
    }
  }
}

TEST(Pipeline, TellsItsStory) {
  Engine engine(json::array({source("a", "frames=150")}), {{"schema", 1}, {"infer_ms", 1}}, 2,
                {{"stats_interval_ms", 10}, {"sinks", {{{"kind", "events"}}}}});
  EXPECT_EQ(engine.run().code, Code::kOk);
  const std::vector<json> events = engine.events().all();
  EXPECT_EQ(events.front()["event"], "ready");
  EXPECT_EQ(events.front()["runtime"], "fake");
  EXPECT_EQ(events.front()["max_batch"], 2);
  EXPECT_EQ(events.front()["skeleton"], "column3");
  EXPECT_EQ(events.back()["event"], "stopped");
  EXPECT_EQ(events.back()["frames"], 150);
  EXPECT_EQ(engine.events().of("stopped").size(), 1U);
  EXPECT_EQ(engine.events().of("frame").size(), 150U);
  const auto sources = engine.events().of("source");
  ASSERT_EQ(sources.size(), 2U);
  EXPECT_EQ(sources[0]["state"], "online");
  EXPECT_EQ(sources[0]["width"], 64);
  EXPECT_EQ(sources[1]["state"], "ended");
  std::size_t last_frame = 0, ended = 0;  // "ended" is said after the last frame
  for (std::size_t i = 0; i < events.size(); ++i) {
    last_frame = events[i]["event"] == "frame" ? i : last_frame;
    ended = events[i].value("state", "") == "ended" ? i : ended;
  }
  EXPECT_GT(ended, last_frame);
  const auto stats = engine.events().of("stats");
  ASSERT_GE(stats.size(), 2U);
  EXPECT_GT(stats.back()["fps"], 0.0);
  EXPECT_GT(stats.back()["latency_ms"]["p99"], 0.9);
  std::set<std::string> names;
  for (const json& row : stats.back()["operators"]) {
    EXPECT_EQ(row["frames"], 150) << row["name"];
    names.insert(row["name"]);
  }
  EXPECT_EQ(names, (std::set<std::string>{"source:a", "preprocess", "infer", "decode", "sink"}));
  EXPECT_EQ(stats.back()["cameras"][0],
            json({{"camera", "a"}, {"captured", 150}, {"published", 150}, {"dropped", 0}}));
}

TEST(Pipeline, MapsPosesBackToTheFrame) {
  // 256 x 96 into 64 x 48: scale 1/4, 12 rows of padding above.
  Engine engine(json::array({uri_source("a", "synthetic:?people=0&width=256&height=96&frames=3")}));
  EXPECT_EQ(engine.run().code, Code::kOk);
  ASSERT_EQ(engine.messages().size(), 3U);
  for (const json& message : engine.messages()) {
    ASSERT_EQ(message["people"].size(), 1U);
    const json& points = message["people"][0]["kp"];
    for (int k = 0; k < 3; ++k) {
      const auto at = static_cast<std::size_t>(3 * k);
      const double x = 27.5, y = 8 * (1 + 2 * k) + 3.5;  // network pixels: see fake_bundle.h
      EXPECT_NEAR(points[at], (x + 0.5) / 64, 2e-3);
      EXPECT_NEAR(points[at + 1], (y - 12 + 0.5) * 4 / 96, 2e-3);
      EXPECT_NEAR(points[at + 2], 0.9, 0.11);
    }
    const json& box = message["people"][0]["box"];
    EXPECT_NEAR(box[0], points[0], 2e-3);
    EXPECT_NEAR(box[1].get<double>() + box[3].get<double>(), points[7], 2e-3);
  }
}

TEST(Pipeline, ReportsNobodyBelowTheMinimumScore) {
  Engine engine(json::array({source("a", "frames=3")}), {{"schema", 1}}, 4, {{"min_score", 0.99}});
  EXPECT_EQ(engine.run().frames, 3U);
  for (const json& message : engine.messages()) {
    EXPECT_EQ(message["people"].size(), 0U);
  }
}

TEST(Pipeline, NaNFromTheNetworkReachesNobody) {
  Engine engine(json::array({source("a", "frames=20")}), {{"schema", 1}, {"nan_every", 2}});
  EXPECT_EQ(engine.run().code, Code::kOk);
  ASSERT_EQ(engine.messages().size(), 20U);  // each was parsed as JSON, which has no NaN
  std::size_t people = 0;
  for (const json& message : engine.messages()) {
    people += message["people"].size();
  }
  EXPECT_EQ(people, 10U);
}

TEST(Pipeline, DropsOldestAndCountsEveryLoss) {
  Engine engine(json::array({source("a", "frames=400", "drop_oldest")}),
                {{"schema", 1}, {"requests", 1}, {"infer_ms", 3}}, 1);
  const Outcome outcome = engine.run();
  EXPECT_EQ(outcome.code, Code::kOk);
  const json camera = engine.events().of("stats").back()["cameras"][0];
  EXPECT_EQ(camera["captured"], 400);
  EXPECT_EQ(camera["published"], outcome.frames);
  EXPECT_EQ(camera["captured"].get<int>(),
            camera["published"].get<int>() + camera["dropped"].get<int>());
  EXPECT_GT(camera["dropped"], 0);
  const std::vector<int> seqs = engine.sequences().at("a");
  EXPECT_TRUE(std::is_sorted(seqs.begin(), seqs.end()));
  EXPECT_EQ(seqs.back(), 399);  // the newest is never the one that is dropped
}

TEST(Pipeline, AFailureOfTheRuntimeNamesTheOperator) {
  Engine engine(json::array({source("a", "")}), {{"schema", 1}, {"fail_at", 50}});
  const Outcome outcome = engine.run();
  EXPECT_EQ(outcome.code, Code::kUnavailable);
  EXPECT_EQ(outcome.why, "decode: fake: failure injected at picture 50");
  EXPECT_EQ(engine.events().of("stopped")[0]["code"], 69);
}

TEST(Pipeline, AFullDiskEndsOneSinkOnly) {
  Engine engine(json::array({source("a", "frames=50")}));
  int written = 0;
  engine.pipeline().add_sink("disk", std::make_unique<CallSink>([&](const Result&) {
                               return ++written == 5 ? Status(Code::kCannotWrite,
                                                              "out.jsonl: no space left on device")
                                                     : Status();
                             }));
  const Outcome outcome = engine.run();
  EXPECT_EQ(outcome.code, Code::kCannotWrite);
  EXPECT_EQ(outcome.why, "out.jsonl: no space left on device");
  EXPECT_EQ(outcome.frames, 50U);
  EXPECT_EQ(written, 5);
  EXPECT_EQ(engine.messages().size(), 50U);
  EXPECT_EQ(engine.events().of("warning").at(0)["where"], "disk");
}

// What came before the cut is kept aside; the good files of an earlier run stay.
TEST(Pipeline, ASourceThatIsCutOffReplacesNoOutput) {
  const TempFolder folder;
  const std::string clip = folder.file("clip.mp4"), lines = folder.file("out.jsonl");
  const std::string moving = "synthetic:?people=3&width=320&height=240&frames=60";
  const auto sinks = [](const std::string& kind, const std::string& path) {
    return json{{"sinks", {{{"kind", kind}, {"path", path}}}}};
  };
  ASSERT_EQ(
      Engine(json::array({uri_source("door", moving)}), {{"schema", 1}}, 4, sinks("video", clip))
          .run()
          .code,
      Code::kOk);
  ASSERT_EQ(::truncate(clip.c_str(), static_cast<off_t>(text_of(clip).size() * 7 / 10)), 0);
  std::ofstream(lines) << "good\n";
  const Outcome outcome =
      Engine(json::array({uri_source("door", clip)}), {{"schema", 1}}, 4, sinks("ndjson", lines))
          .run();
  EXPECT_EQ(outcome.code, Code::kSource);
  EXPECT_GT(outcome.frames, 5U);
  EXPECT_EQ(text_of(lines), "good\n");
  const std::string part = text_of(lines + ".part");
  EXPECT_EQ(std::count(part.begin(), part.end(), '\n'), static_cast<long>(outcome.frames));

  const std::string video = folder.file("out.mp4");
  Engine again(json::array({uri_source("door", clip)}), {{"schema", 1}}, 4, sinks("video", video));
  EXPECT_EQ(again.run().code, Code::kSource);
  EXPECT_THAT(again.events().of("warning").back()["what"],
              HasSubstr("out.mp4: is incomplete; what was written is in "));
  EXPECT_EQ(text_of(video), "");                             // there is none
  const std::string finished = folder.file("finished.mp4");  // playable: it has its index
  ASSERT_EQ(::rename((video + ".part").c_str(), finished.c_str()), 0);
  EXPECT_EQ(Engine(json::array({uri_source("door", finished)})).run().code, Code::kOk);
}

TEST(Pipeline, WithoutAnySinkLeftItStops) {
  TempFolder folder;
  Recorder recorder;
  Events events(&recorder);
  json config = engine_config(write_fake_bundle(folder), json::array({source("a", "")}));
  config["sinks"] = json::array();
  Pipeline pipeline(parse_config(config.dump(), "engine.json"), &events);
  pipeline.add_sink("disk", std::make_unique<CallSink>(
                                [](const Result&) { return Status(Code::kCannotWrite, "full"); }));
  EXPECT_EQ(pipeline.run().code, Code::kCannotWrite);
}

TEST(Pipeline, StopDrainsWhatWasCaptured) {
  Engine engine(json::array({source("a", ""), source("b", "")}),
                {{"schema", 1}, {"infer_ms", 0.5}});
  std::thread stopping = engine.stop_later(milliseconds(50), 60000);
  const Outcome outcome = engine.run();
  stopping.join();
  EXPECT_EQ(outcome.code, Code::kOk) << outcome.why;
  const json cameras = engine.events().of("stats").back()["cameras"];
  for (const json& camera : cameras) {
    EXPECT_EQ(camera["captured"], camera["published"]);
    EXPECT_GT(camera["captured"], 0);
  }
}

TEST(Pipeline, StopBeforeOrWhileOpeningEndsIt) {
  Engine engine(json::array({source("a", "")}));
  engine.pipeline().stop();
  EXPECT_EQ(engine.run().code, Code::kOk);
  EXPECT_EQ(engine.events().of("stopped").size(), 1U);
}

TEST(Pipeline, DropsWhatDoesNotDrainInTime) {
  Engine engine(json::array({source("a", "")}), {{"schema", 1}, {"requests", 1}, {"infer_ms", 150}},
                4);
  std::thread stopping = engine.stop_later(milliseconds(200), 50);
  EXPECT_EQ(engine.run().code, Code::kOk);
  stopping.join();
  // 4 pictures under way and 5 waiting would take 1.4 s; what is dropped is counted.
  const json camera = engine.events().of("stats").back()["cameras"][0];
  EXPECT_GT(camera["dropped"], 0);
  EXPECT_EQ(camera["captured"].get<int>(),
            camera["published"].get<int>() + camera["dropped"].get<int>());
}

TEST(Pipeline, RefusesBeforeItStarts) {
  Engine missing(json::array({uri_source("door", "/nowhere/clip.mp4")}));
  Outcome outcome = missing.run();
  EXPECT_EQ(outcome.code, Code::kSource);
  EXPECT_THAT(outcome.why, HasSubstr("door"));
  EXPECT_THAT(outcome.why, HasSubstr("/nowhere/clip.mp4"));
  EXPECT_TRUE(missing.events().of("ready").empty());
  EXPECT_EQ(missing.events().of("stopped")[0]["code"], 66);

  Engine scheme(json::array({uri_source("door", "gopher://x")}));
  EXPECT_EQ(scheme.run().code, Code::kConfig);

  Engine bundle(json::array({source("a", "frames=1")}), {{"schema", 1}}, 4,
                {{"bundle", "/nowhere"}});
  EXPECT_EQ(bundle.run().code, Code::kBundle);
}

// The steady state of all stages together: a longer run does not allocate more.
TEST(Pipeline, DoesNotAllocatePerFrame) {
  const auto allocations_of = [](int frames) {
    TempFolder folder;
    Recorder recorder;
    Events events(&recorder);
    json config = engine_config(write_fake_bundle(folder, {{"schema", 1}}, 2),
                                json::array({source("a", "frames=" + std::to_string(frames))}));
    config["sinks"] = json::array();
    config["stats_interval_ms"] = 0;
    Pipeline pipeline(parse_config(config.dump(), "engine.json"), &events);
    pipeline.add_sink("null", std::make_unique<CallSink>([](const Result&) { return Status(); }));
    const long before = test::allocations();
    EXPECT_EQ(pipeline.run().frames, static_cast<std::uint64_t>(frames));
    return test::allocations() - before;
  };
  allocations_of(100);  // what libraries set up once
  const long few = allocations_of(200);
  const long many = allocations_of(2200);
  EXPECT_LT(many - few, 100) << "over 2000 frames";
}

}  // namespace
}  // namespace posewire
