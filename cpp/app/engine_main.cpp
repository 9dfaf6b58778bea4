// SPDX-License-Identifier: Apache-2.0
// posewire-engine --config FILE: one engine, one process. Events on stdout, logs on stderr, exit
// codes as in core/error.h. SIGTERM and SIGINT end it after draining.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "infer/preprocess.h"
#include "infer/runtime.h"
#include "pipeline/config.h"
#include "pipeline/events.h"
#include "pipeline/pipeline.h"

namespace posewire {
namespace {

constexpr int kDrainMs = 4000;       // then what is under way is dropped
constexpr int kLastResortMs = 6000;  // then a thread hangs in a driver, and the process ends

constexpr const char* kUsage =
    "usage: posewire-engine --config FILE\n"
    "       posewire-engine --version | --help\n"
    "Runs the pipeline that FILE (engine.json) describes; one JSON object per event on stdout.\n";

void complain(const std::string& why) {
  std::fprintf(stderr, "posewire-engine: error: %s\n", redacted(why).c_str());
}

// Waits for the signals on a thread of its own, so that no handler has to be careful.
class Signals {
 public:
  // Before any other thread starts: they inherit the mask.
  Signals() {
    sigset_t set = watched();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    std::signal(SIGPIPE, SIG_IGN);  // a closed stdout is an error code, not the end
  }

  void watch(Pipeline* pipeline) {
    thread_ = std::thread([this, pipeline] { wait(pipeline); });
  }
  void end() {
    done_ = true;
    if (thread_.joinable()) {
      thread_.join();
    }
  }

 private:
  static sigset_t watched() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::sigaddset(&set, SIGINT);
    return set;
  }

  void wait(Pipeline* pipeline) {
    const sigset_t set = watched();
    const timespec tick{0, 50000000};
    std::chrono::steady_clock::time_point stopped{};
    while (!done_) {
      const int number = ::sigtimedwait(&set, nullptr, &tick);
      const auto now = std::chrono::steady_clock::now();
      if (number > 0 && stopped == std::chrono::steady_clock::time_point{}) {
        stopped = now;
        pipeline->stop(kDrainMs);
      }
      if (stopped != std::chrono::steady_clock::time_point{} &&
          now - stopped > std::chrono::milliseconds(kLastResortMs)) {
        complain("did not stop within " + std::to_string(kLastResortMs) + " ms of the signal");
        ::_exit(static_cast<int>(Code::kBug));  // threads that hang cannot be joined
      }
    }
  }

  std::atomic<bool> done_{false};
  std::thread thread_;
};

int usage_error(const std::string& why) {
  complain(why);
  std::fputs(kUsage, stderr);
  return static_cast<int>(Code::kUsage);
}

int run(const std::string& config_path) {
  Signals signals;
  FdLines out(STDOUT_FILENO);
  Events events(&out);
  try {
    EngineConfig config = read_config(config_path);
    use_no_opencv_threads();
    Pipeline pipeline(std::move(config), &events);
    signals.watch(&pipeline);
    const Outcome outcome = pipeline.run();
    signals.end();
    if (outcome.code != Code::kOk) {
      complain(outcome.why);
    }
    return static_cast<int>(outcome.code);
  } catch (const Error& error) {
    complain(error.what());
    events.stopped(error.code(), 0, error.what());
    return static_cast<int>(error.code());
  }
}

int run_command(int count, char** words) {
  if (count == 2 && std::strcmp(words[1], "--version") == 0) {
    std::printf("posewire-engine %s\n", POSEWIRE_VERSION);
    return 0;
  }
  if (count == 2 && std::strcmp(words[1], "--help") == 0) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (count != 3 || std::strcmp(words[1], "--config") != 0) {
    return usage_error(count < 2 ? "--config FILE is missing"
                                 : "wrong arguments: " + std::string(words[1]));
  }
  return run(words[2]);
}

}  // namespace
}  // namespace posewire

int main(int count, char** words) {
  try {
    return posewire::run_command(count, words);
  } catch (const std::exception& error) {
    posewire::complain(error.what());
    return static_cast<int>(posewire::Code::kBug);
  }
}
