// SPDX-License-Identifier: Apache-2.0
// posewire-engine as a child process: exit codes, protocol, signals, a reader that goes away.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "fake_bundle.h"

namespace posewire {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments) {
    int out[2], err[2];
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(err, O_CLOEXEC), 0);
    std::vector<char*> words = {const_cast<char*>(POSEWIRE_ENGINE)};
    for (const std::string& argument : arguments) {
      words.push_back(const_cast<char*>(argument.c_str()));
    }
    words.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(err[1], STDERR_FILENO);
      ::execv(words[0], words.data());
      ::_exit(127);
    }
    ::close(out[1]);
    ::close(err[1]);
    out_ = out[0];
    err_ = err[0];
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    close_stdout();
    ::close(err_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  void close_stdout() {
    if (out_ >= 0) {
      ::close(out_);
      out_ = -1;
    }
  }

  // Reads until `count` events of a kind were seen or the child closed its stdout.
  void read_until(const std::string& kind, int count) {
    while (count > 0 && read_some()) {
      count -= take_lines(kind);
    }
  }

  // Reads everything and returns the exit code; 128 + n for signal n.
  int finish() {
    read_until("", 1);
    take_lines("");
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(err_, buffer, sizeof buffer)) > 0;) {
      error += std::string(buffer, static_cast<std::size_t>(got));
    }
    EXPECT_EQ(buffer_, "") << "half a line";
    return wait();
  }

  // The exit code, without reading anything.
  int wait() {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::vector<json> of(const std::string& kind) const {
    std::vector<json> found;
    for (const json& event : events) {
      if (event["event"] == kind) {
        found.push_back(event);
      }
    }
    return found;
  }

  std::vector<json> events;
  std::string error;

 private:
  bool read_some() {
    char buffer[65536];
    pollfd ready{out_, POLLIN, 0};
    if (out_ < 0 || ::poll(&ready, 1, 60000) != 1) {
      return false;
    }
    const ssize_t got = ::read(out_, buffer, sizeof buffer);
    if (got > 0) {
      buffer_ += std::string(buffer, static_cast<std::size_t>(got));
    }
    return got > 0;
  }
  int take_lines(const std::string& kind) {
    int count = 0;
    for (std::size_t end = 0; (end = buffer_.find('\n')) != std::string::npos;) {
      events.push_back(json::parse(buffer_.substr(0, end)));
      count += events.back()["event"] == kind ? 1 : 0;
      buffer_.erase(0, end + 1);
    }
    return count;
  }

  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  std::string buffer_;
};

class EngineProgram : public ::testing::Test {
 protected:
  json config(const json& sources, const json& fake = {{"schema", 1}}) const {
    return engine_config(write_fake_bundle(folder_, fake), sources);
  }
  std::string write(const json& config) const {
    return folder_.write("engine.json", config.dump());
  }
  static json camera(const std::string& name, const std::string& uri) {
    return {{"camera", name}, {"uri", uri}};
  }
  static std::string synthetic(const std::string& query) {
    return "synthetic:?people=1&width=64&height=48&" + query;
  }
  TempFolder folder_;
};

TEST_F(EngineProgram, RunsToTheEndOfItsSources) {
  json value = config(json::array(
      {camera("a", synthetic("frames=80")), camera("b", synthetic("frames=40&seed=2"))}));
  value["sinks"] = {{{"kind", "events"}},
                    {{"kind", "ndjson"}, {"path", folder_.file("out.jsonl")}}};
  Child child({"--config", write(value)});
  EXPECT_EQ(child.finish(), 0) << child.error;
  EXPECT_EQ(child.events.front()["event"], "ready");
  EXPECT_EQ(child.events.back(),
            json({{"event", "stopped"}, {"code", 0}, {"frames", 120}, {"why", ""}}));
  std::map<std::string, int> next;
  for (const json& event : child.of("frame")) {
    const json& payload = event["payload"];
    EXPECT_EQ(payload["seq"], next[payload["camera"]]++);
    EXPECT_EQ(payload["schema"], "posewire.poses/1");
    EXPECT_EQ(payload["people"].size(), 1U);
  }
  EXPECT_EQ(next["a"], 80);
  EXPECT_EQ(next["b"], 40);
  std::ifstream file(folder_.file("out.jsonl"));
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    EXPECT_EQ(json::parse(line), child.of("frame")[static_cast<std::size_t>(lines)]["payload"]);
  }
  EXPECT_EQ(lines, 120);
}

TEST_F(EngineProgram, SigtermAndSigintDrainAndExitWithZero) {
  for (const int number : {SIGTERM, SIGINT}) {
    Child child({"--config", write(config(json::array({camera("a", synthetic("fps=200"))})))});
    child.read_until("frame", 20);
    const auto begin = steady_clock::now();
    child.signal(number);
    EXPECT_EQ(child.finish(), 0) << child.error;
    EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(6));
    EXPECT_EQ(child.events.back()["event"], "stopped");
    EXPECT_EQ(child.events.back()["frames"], child.of("frame").size());
    const json camera = child.of("stats").back()["cameras"][0];
    EXPECT_EQ(camera["captured"], camera["published"]);
  }
}

TEST_F(EngineProgram, EndsWithinItsBoundAlthoughItsReaderStandsStill) {
  json value = config(json::array({camera("a", synthetic(""))}));
  value["stats_interval_ms"] = 10;  // the thread that watches has something to write, too
  Child child({"--config", write(value)});
  child.read_until("frame", 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // the pipe is full now
  child.signal(SIGTERM);
  EXPECT_EQ(child.wait(), 0);  // 4 s to drain, then what is under way is dropped; 6 s would be 70
}

TEST_F(EngineProgram, AHangingRuntimeDoesNotKeepIt) {
  Child child({"--config", write(config(json::array({camera("a", synthetic(""))}),
                                        {{"schema", 1}, {"hang_at", 30}}))});
  child.read_until("frame", 20);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // picture 30 is in the runtime
  const auto begin = steady_clock::now();
  child.signal(SIGTERM);
  EXPECT_EQ(child.finish(), 70);
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(9));
  EXPECT_THAT(child.error, HasSubstr("posewire-engine: error: did not stop within"));
}

TEST_F(EngineProgram, AReaderThatGoesAwayEndsItCleanly) {
  Child child({"--config", write(config(json::array({camera("a", synthetic(""))})))});
  child.read_until("frame", 5);
  child.close_stdout();
  EXPECT_EQ(child.finish(), 0) << child.error;
}

TEST_F(EngineProgram, ExitCodesAreTheDesigns) {
  const auto outcome = [](const std::string& path, int code, const std::string& what) {
    Child child({"--config", path});
    EXPECT_EQ(child.finish(), code);
    EXPECT_THAT(child.error, HasSubstr("posewire-engine: error: "));
    EXPECT_THAT(child.error, HasSubstr(what));
    ASSERT_FALSE(child.events.empty());
    EXPECT_EQ(child.events.back()["event"], "stopped");
    EXPECT_EQ(child.events.back()["code"], code);
    EXPECT_THAT(child.events.back()["why"].get<std::string>(), HasSubstr(what));
  };
  const json sources = json::array({camera("door", synthetic("frames=5"))});
  outcome("/nowhere.json", 78, "/nowhere.json: cannot be read");
  outcome(folder_.write("bad.json", "{\"schema\": 1,"), 78, "bad.json: not JSON");
  json value = config(sources);
  value["colour"] = 1;
  outcome(write(value), 78, "engine.json: colour: unknown key");
  value = config(sources);
  value["bundle"] = folder_.file("none");
  outcome(write(value), 65, "none: does not exist");
  value = config(sources);
  folder_.write(value["bundle"].get<std::string>().substr(folder_.file("").size()) + "/maps.bin",
                "tampered with");
  outcome(write(value), 65, "maps.bin: has 13 bytes");
  outcome(write(config(json::array({camera("door", "/nowhere.mp4")}))), 66, "/nowhere.mp4");
  outcome(write(config(sources, {{"schema", 1}, {"fail_at", 2}})), 69, "decode: fake: failure");
  value = config(sources);
  value["sinks"] = {{{"kind", "events"}}, {{"kind", "ndjson"}, {"path", "/nowhere/x.jsonl"}}};
  outcome(write(value), 73, "/nowhere/x.jsonl");
}

TEST_F(EngineProgram, KnowsItsArguments) {
  Child none({});
  EXPECT_EQ(none.finish(), 64);
  EXPECT_THAT(none.error, HasSubstr("--config FILE is missing"));
  Child wrong({"--speed", "9"});
  EXPECT_EQ(wrong.finish(), 64);
  EXPECT_THAT(wrong.error, HasSubstr("usage: posewire-engine"));
}

}  // namespace
}  // namespace posewire
