// SPDX-License-Identifier: Apache-2.0
// The borders of the pipeline: engine.json in, messages and events out.
#include "pipeline/payload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>

#include "core/error.h"
#include "fake_bundle.h"
#include "pipeline/config.h"
#include "pipeline/events.h"

namespace posewire {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::string number(double value, int decimals) {
  std::string text;
  append_number(value, decimals, &text);
  return text;
}

TEST(Payload, NumbersAreShortRoundedAndFinite) {
  EXPECT_EQ(number(0.0, 5), "0");
  EXPECT_EQ(number(-0.0, 5), "0");
  EXPECT_EQ(number(0.5, 5), "0.5");
  EXPECT_EQ(number(0.123456789, 5), "0.12346");
  EXPECT_EQ(number(-0.000004, 5), "0");
  EXPECT_EQ(number(-0.00001, 5), "-0.00001");
  EXPECT_EQ(number(0.99999999, 5), "1");
  EXPECT_EQ(number(1234567.0, 3), "1234567");
  EXPECT_EQ(number(7.1, 3), "7.1");
  EXPECT_EQ(number(2.5, 0), "3");
  EXPECT_EQ(number(kNaN, 5), "0");
  EXPECT_EQ(number(-kInf, 5), "0");
  EXPECT_EQ(number(1e300, 5), "1000000000000");
  EXPECT_EQ(number(-1e300, 9), "-100000000");
}

TEST(Payload, NumbersRoundTrip) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> value(-3.0, 3.0);
  for (int i = 0; i < 20000; ++i) {
    const double before = value(random);
    EXPECT_NEAR(std::stod(number(before, 5)), before, 0.5001e-5);
  }
}

std::string time_text(std::int64_t ms) {
  std::string text;
  append_time(std::chrono::system_clock::time_point(std::chrono::milliseconds(ms)), &text);
  return text;
}

TEST(Payload, TimesAreRfc3339) {
  EXPECT_EQ(time_text(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(time_text(1767323045123), "2026-01-02T03:04:05.123Z");
  EXPECT_EQ(time_text(951782400007), "2000-02-29T00:00:00.007Z");
  EXPECT_EQ(time_text(-5), "1970-01-01T00:00:00.995Z");  // a broken clock, a readable message
}

struct Fixture {
  TempFolder folder;
  Bundle bundle = open_bundle(write_fake_bundle(folder));
  PayloadWriter writer{"n1", {"door", "yard"}, bundle};
};

TEST(Payload, IsTheMessageOfTheDesign) {
  Fixture fixture;
  Frame frame;
  frame.camera = 1;
  frame.seq = 812;
  frame.t_capture = std::chrono::system_clock::time_point(std::chrono::milliseconds(1767323045123));
  frame.t_media_ms = 32480.0;
  Poses poses;
  poses.clear(3);
  Keypoint* points = poses.add(0.6F);
  points[0] = {9.5F, 19.5F, 0.9F};
  points[2] = {59.5F, 79.5F, 0.9F};
  std::string text = "rubbish that is replaced";
  fixture.writer.write(frame, 100, 200, poses, {7.1, 31.0}, &text);
  EXPECT_EQ(text, R"({"schema":"posewire.poses/1","node":"n1","camera":"yard","seq":812,)"
                  R"("t_capture":"2026-01-02T03:04:05.123Z","t_media_ms":32480,)"
                  R"("image":{"width":100,"height":200},"skeleton":"column3",)"
                  R"("model":{"id":"fake-net@1.2","sha256":")" +
                      fixture.bundle.sha256 +
                      R"(","precision":"fp32"},"lat_ms":{"infer":7.1,"total":31},)"
                      R"("people":[{"score":0.6,"box":[0.1,0.1,0.5,0.3],)"
                      R"("kp":[0.1,0.1,0.9,0,0,0,0.6,0.4,0.9]}]})");
  frame.t_media_ms.reset();
  poses.clear(3);
  fixture.writer.write(frame, 100, 200, poses, {}, &text);
  const json message = json::parse(text);
  EXPECT_EQ(message["people"], json::array());  // silence would mean failure
  EXPECT_FALSE(message.contains("t_media_ms"));
}

TEST(Payload, NeverHoldsNaN) {
  Fixture fixture;
  Frame frame;
  frame.t_media_ms = kNaN;
  Poses poses;
  poses.clear(3);
  for (const float bad : {kNaN, kInf, -kInf, 1e38F}) {
    Keypoint* points = poses.add(bad);
    points[0] = {bad, bad, 0.5F};
    points[1] = {1.0F, 2.0F, bad};
    points[2] = {bad, 3.0F, 1.0F};
  }
  std::string text;
  fixture.writer.write(frame, 64, 48, poses, {kNaN, kInf}, &text);
  EXPECT_TRUE(json::accept(text)) << text;
}

TEST(Config, HasTheDefaultsOfItsSpecification) {
  const EngineConfig config = parse_config(
      R"({"schema":1,"node":"n1","bundle":"/b","sources":[{"camera":"a","uri":"x.mp4"}]})", "f");
  EXPECT_EQ(config.node, "n1");
  EXPECT_EQ(config.bundle, "/b");
  EXPECT_EQ(config.requests, 0);
  EXPECT_EQ(config.min_score, 0.0);
  EXPECT_TRUE(config.retry);
  EXPECT_EQ(config.stats_interval_ms, 1000);
  ASSERT_EQ(config.sources.size(), 1U);
  EXPECT_EQ(config.sources[0].policy, SourceConfig::Full::kAuto);
  EXPECT_EQ(config.sources[0].timeout_ms, 5000);
  EXPECT_FALSE(config.sources[0].loop);
  ASSERT_EQ(config.sinks.size(), 1U);
  EXPECT_EQ(config.sinks[0].kind, "events");
}

std::string config_error(const std::function<void(json*)>& edit) {
  json config = engine_config("/b", json::array({{{"camera", "a"}, {"uri", "x"}}}));
  edit(&config);
  try {
    parse_config(config.dump(), "engine.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kConfig);
    return error.what();
  }
  return "";
}

TEST(Config, NamesFileAndKey) {
  EXPECT_EQ(config_error([](json*) {}), "");
  const auto says = [](const std::function<void(json*)>& edit, const std::string& what) {
    EXPECT_THAT(config_error(edit), HasSubstr("engine.json: " + what));
  };
  says([](json* c) { (*c)["colour"] = 1; }, "colour: unknown key");
  says([](json* c) { c->erase("node"); }, "node: is missing");
  says([](json* c) { (*c)["schema"] = 2; }, "schema: must be 1");
  says([](json* c) { (*c)["node"] = "A B"; }, "node: must be 1 to 48");
  says([](json* c) { (*c)["requests"] = -1; }, "requests: must be an integer of 0");
  says([](json* c) { (*c)["requests"] = 1.5; }, "requests: must be an integer of 0");
  says([](json* c) { (*c)["min_score"] = 2; }, "min_score: must be a number of 0..1");
  says([](json* c) { (*c)["retry"] = 1; }, "retry: must be true or false");
  says([](json* c) { (*c)["sources"] = json::array(); }, "sources: must not be empty");
  says([](json* c) { (*c)["sources"][0]["uri"] = 5; }, "sources[0].uri: must be a string");
  says([](json* c) { (*c)["sources"][0]["url"] = "x"; }, "sources[0].url: unknown key");
  says([](json* c) { (*c)["sources"][0]["camera"] = "cmd"; },
       "sources[0].camera: cmd is a reserved");
  says([](json* c) { (*c)["sources"].push_back((*c)["sources"][0]); },
       "sources[1].camera: a appears twice");
  says([](json* c) { (*c)["sources"][0]["policy"] = "drop"; }, "sources[0].policy: must be one of");
  says([](json* c) { (*c)["sources"][0]["fps"] = -1; }, "sources[0].fps: must be a number");
  says(
      [](json* c) {
        (*c)["sinks"] = {{{"kind", "mqtt"}}};
      },
      "sinks[0].kind: must be one of events");
  says([](json* c) { (*c)["sinks"] = {{{"kind", "memory"}}}; }, "sinks[0].kind: must be one of");
  says([](json* c) { (*c)["sinks"] = {{{"kind", "ndjson"}}}; }, "sinks[0].path: is missing");
  says(
      [](json* c) {
        (*c)["sinks"] = {{{"kind", "events"}, {"path", "x"}}};
      },
      "sinks[0].path: is not for events");
}

TEST(Config, NamesAFileThatIsNotThere) {
  try {
    read_config("/nowhere/engine.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "/nowhere/engine.json: cannot be read: No such file or directory");
  }
  EXPECT_THROW(read_config("/"), Error);
}

struct Pipe {
  Pipe() {
    std::signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(::pipe(ends), 0);
  }
  ~Pipe() {
    ::close(ends[1]);
    close_reader();
  }
  void close_reader() {
    if (ends[0] >= 0) {
      ::close(ends[0]);
      ends[0] = -1;
    }
  }
  int ends[2] = {-1, -1};
};

TEST(FdLines, WritesLongLinesWhole) {
  Pipe pipe;
  FdLines lines(pipe.ends[1]);
  const std::string line = std::string(300000, 'x') + "\n";
  std::thread writer([&] { EXPECT_TRUE(lines.write(line)); });
  std::string got(line.size(), '\0');
  for (std::size_t done = 0; done < got.size();) {
    const ssize_t count = ::read(pipe.ends[0], &got[done], got.size() - done);
    ASSERT_GT(count, 0);
    done += static_cast<std::size_t>(count);
  }
  writer.join();
  EXPECT_EQ(got, line);
}

TEST(FdLines, AReaderThatWentAwayIsNoCrash) {
  Pipe pipe;
  pipe.close_reader();
  FdLines lines(pipe.ends[1]);
  Events events(&lines);
  events.warning("x", "y");
  EXPECT_TRUE(events.closed());
  events.stopped(Code::kOk, 0, "");
}

// A reader that stands still holds the writer, not the engine's end.
TEST(FdLines, GivesUpWhenTold) {
  Pipe pipe;
  FdLines lines(pipe.ends[1]);
  std::thread writer([&] { EXPECT_FALSE(lines.write(std::string(1 << 20, 'x') + "\n")); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  lines.give_up_at(std::chrono::steady_clock::now());
  writer.join();
  EXPECT_FALSE(lines.write("{}\n")) << "half a line is out";
}

class Lines final : public LineOut {
 public:
  bool write(const std::string& line) override {
    text += line;
    return true;
  }
  std::string text;
};

TEST(Events, AreTheProtocol) {
  Lines lines;
  Events events(&lines);
  events.ready({"/b", "fake", "coco17", "int8", 3, 8});
  events.source({"door", SourceState::kOnline, 1280, 720, ""});
  events.source({"door", SourceState::kOffline, 0, 0, "rtsp://u:secret@h/x: \xff refused"});
  events.frame(R"({"seq":1})");
  StatsEvent stats;
  stats.fps = 24.98765;
  stats.operators.push_back({"infer", 7, 1.5, 2, 3});
  stats.cameras.push_back({"door", 9, 7, 2});
  events.stats(stats);
  events.warning("decode", "odd");
  events.stopped(Code::kSource, 7, "cut off");
  EXPECT_EQ(
      lines.text,
      R"({"event":"ready","bundle":"/b","runtime":"fake","requests":3,"max_batch":8,"skeleton":"coco17","precision":"int8"}
{"event":"source","camera":"door","state":"online","width":1280,"height":720,"why":""}
{"event":"source","camera":"door","state":"offline","width":0,"height":0,"why":"rtsp://***@h/x: )"
      "\xef\xbf\xbd"
      R"( refused"}
{"event":"frame","payload":{"seq":1}}
{"event":"stats","fps":24.988,"latency_ms":{"p50":0.0,"p99":0.0},"operators":[{"name":"infer","frames":7,"busy_ms":1.5,"depth":2,"dropped":3}],"cameras":[{"camera":"door","captured":9,"published":7,"dropped":2}]}
{"event":"warning","where":"decode","what":"odd"}
{"event":"stopped","code":66,"frames":7,"why":"cut off"}
)");
}

}  // namespace
}  // namespace posewire
