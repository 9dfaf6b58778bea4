// SPDX-License-Identifier: Apache-2.0
// posewire._core.Pipeline: the stream API from Python. Its events come as dictionaries instead of
// lines on stdout.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "app/python.h"
#include "flow/channel.h"
#include "pipeline/config.h"
#include "pipeline/events.h"
#include "pipeline/pipeline.h"

namespace nb = nanobind;

namespace posewire {
namespace {

constexpr std::size_t kQueuedEvents = 256;
constexpr std::chrono::milliseconds kPatience{2};  // while nobody takes them

// Lines into a channel that Python empties.
class QueueLines final : public LineOut {
 public:
  explicit QueueLines(Policy policy) : lines_(kQueuedEvents, policy) {}
  bool write(const std::string& line) override {
    while (!lines_.try_push(std::string(line))) {
      if (lines_.drained() || std::chrono::steady_clock::now() >= deadline_.load()) {
        return false;
      }
      std::this_thread::sleep_for(kPatience);
    }
    return true;
  }
  void give_up_at(std::chrono::steady_clock::time_point deadline) noexcept override {
    deadline_ = deadline;
  }
  Channel<std::string>& lines() noexcept { return lines_; }

 private:
  Channel<std::string> lines_;
  std::atomic<std::chrono::steady_clock::time_point> deadline_{
      std::chrono::steady_clock::time_point::max()};
};

class PyPipeline {
 public:
  explicit PyPipeline(const std::string& config_json)
      : config_(parse_config(config_json, "engine.json")) {}

  ~PyPipeline() {
    const nb::gil_scoped_release release;
    if (thread_.joinable()) {
      pipeline_->stop(0);
      queue_->give_up_at({});
      thread_.join();
    }
  }
  PyPipeline(const PyPipeline&) = delete;
  PyPipeline& operator=(const PyPipeline&) = delete;

  std::uint64_t run() {
    // Nobody may be reading: the events that nobody takes must not hold the frames back.
    start(Policy::kDropOldest);
    while (!ended_) {
      {
        const nb::gil_scoped_release release;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      if (PyErr_CheckSignals() != 0) {
        pipeline_->stop();
        throw nb::python_error();
      }
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (outcome_.code != Code::kOk) {
      throw Error(outcome_.code, "", outcome_.why);
    }
    return outcome_.frames;
  }

  nb::object next_event(std::optional<double> timeout_s) {
    start(Policy::kBlock);
    using std::chrono::steady_clock;
    const auto begin = steady_clock::now();
    std::string line;
    for (;;) {
      bool got = false;
      {
        const nb::gil_scoped_release release;
        const double left =
            timeout_s
                ? *timeout_s - std::chrono::duration<double>(steady_clock::now() - begin).count()
                : 1.0;
        const auto wait = std::chrono::duration<double>(left < 0 ? 0.0 : left > 0.1 ? 0.1 : left);
        got = queue_->lines().wait_pop_timed(&line, wait);
      }
      if (got) {
        return nb::module_::import_("json").attr("loads")(line);
      }
      if (queue_->lines().drained() ||
          (timeout_s &&
           std::chrono::duration<double>(steady_clock::now() - begin).count() >= *timeout_s)) {
        return nb::none();
      }
      if (PyErr_CheckSignals() != 0) {
        throw nb::python_error();
      }
    }
  }

  void stop() {
    stop_asked_ = true;
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (pipeline_ != nullptr) {
      pipeline_->stop();
    }
  }

 private:
  // Once; the first caller decides whether unread events hold the pipeline back.
  void start(Policy policy) {
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (pipeline_ != nullptr) {
      return;
    }
    queue_ = std::make_unique<QueueLines>(policy);
    events_ = std::make_unique<Events>(queue_.get());
    pipeline_ = std::make_unique<Pipeline>(config_, events_.get());
    if (stop_asked_) {
      pipeline_->stop();
    }
    thread_ = std::thread([this] {
      Outcome outcome = pipeline_->run();
      {
        const std::lock_guard<std::mutex> outcome_lock(mutex_);
        outcome_ = std::move(outcome);
      }
      ended_ = true;
      queue_->lines().close();
    });
  }

  const EngineConfig config_;
  std::atomic<bool> stop_asked_{false};
  std::mutex mutex_;  // guards the making of what follows, and outcome_
  std::unique_ptr<QueueLines> queue_;
  std::unique_ptr<Events> events_;
  std::unique_ptr<Pipeline> pipeline_;
  Outcome outcome_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

void bind_pipeline(nb::module_& module) {
  nb::class_<PyPipeline>(module, "Pipeline",
                         "Sources to poses, as engine.json (given as text) describes it.")
      .def(nb::init<const std::string&>(), nb::arg("config_json"))
      .def("run", &PyPipeline::run,
           "Runs to the end and returns the number of frames. Events that nobody takes "
           "meanwhile with next_event are lost, oldest first. Raises EngineError.")
      .def("next_event", &PyPipeline::next_event, nb::arg("timeout_s") = nb::none(),
           "The next event, as posewire-engine prints it; starts the pipeline when run() did "
           "not, and then no event is lost. None: nothing came in time, or after \"stopped\".")
      .def("stop", &PyPipeline::stop,
           "Ends the sources; what is under way still comes. Any thread.");
}

}  // namespace posewire
