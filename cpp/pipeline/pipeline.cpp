// SPDX-License-Identifier: Apache-2.0
#include "pipeline/pipeline.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "bundle/bundle.h"
#include "decode/decoder.h"
#include "flow/batcher.h"
#include "flow/graph.h"
#include "infer/runtime.h"
#include "io/source.h"
#include "pipeline/inference_stages.h"
#include "pipeline/sink_stage.h"
#include "pipeline/source_stage.h"

namespace posewire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kTick{50};

// A live camera's lane holds what came while a batch was filled; older frames are stale. A file's
// lane feeds the largest batch while the next frame is read.
std::size_t lane_capacity(bool drops, int max_batch) {
  const auto batch = static_cast<std::size_t>(max_batch);
  return drops ? std::max<std::size_t>(2, std::min<std::size_t>(batch, 4))
               : std::clamp<std::size_t>(batch + 1, 3, 16);
}

SourceOptions options_of(const SourceConfig& config) {
  SourceOptions options;
  options.camera = config.camera;
  options.uri = config.uri;
  options.loop = config.loop;
  options.fps = config.fps;
  options.realtime = config.realtime;
  options.timeout_ms = config.timeout_ms;
  return options;
}

}  // namespace

// Members are destroyed from the last to the first: threads, then stages, then what they use.
struct Pipeline::Running {
  Bundle bundle;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<PayloadWriter> payload;
  Verdict verdict;

  struct Camera {
    std::unique_ptr<SourceStage> source;
    std::unique_ptr<Pool<Frame>> frames;
    std::unique_ptr<Channel<FramePtr>> lane;
    bool end_told = false;
  };
  Doorbell bell;
  std::vector<Camera> cameras;
  std::vector<NamedSink> sinks;  // until the sink stage has them
  std::unique_ptr<Pool<Work>> works;
  std::unique_ptr<Channel<WorkPtr>> results;
  std::unique_ptr<Slots> slots;
  std::unique_ptr<Batcher<FramePtr>> batcher;
  std::unique_ptr<PreprocessStage> preprocess;
  std::unique_ptr<DecodeStage> decode;
  std::unique_ptr<SinkStage> sink;
  Graph graph;

  steady_clock::time_point started, reported;
  std::uint64_t reported_frames = 0, reported_refused = 0;
  LatencyHistogram::Counts reported_latencies{};
};

Pipeline::Pipeline(EngineConfig config, Events* events)
    : config_(std::move(config)), events_(events) {}

Pipeline::~Pipeline() = default;

void Pipeline::add_sink(const std::string& name, std::unique_ptr<Sink> sink) {
  own_sinks_.emplace_back(name, std::move(sink));
}

void Pipeline::stop(int drain_ms) noexcept {
  const auto deadline = steady_clock::now() + milliseconds(drain_ms);
  steady_clock::time_point none{};
  if (deadline_.compare_exchange_strong(none, deadline)) {
    events_->give_up_at(deadline);  // whoever holds the events' lock may hold up everybody
  }
  stopping_ = true;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (running_ != nullptr) {
    for (const Running::Camera& camera : running_->cameras) {
      camera.source->stop();
    }
  }
}

Outcome Pipeline::run() {
  const auto running = std::make_unique<Running>();
  Outcome outcome;
  try {
    outcome = run_opened(running.get());
  } catch (const Error& error) {
    outcome = {error.code(), 0, error.what()};
  } catch (const std::exception& error) {
    outcome = {Code::kBug, 0, error.what()};
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ = nullptr;
  }
  if (stopping_ && outcome.code == Code::kSource && outcome.frames == 0) {
    outcome = {};  // a source that did not open because it was told to stop
  }
  events_->stopped(outcome.code, outcome.frames, outcome.why);
  return outcome;
}

Outcome Pipeline::run_opened(Running* running) {
  open(running);
  running->started = running->reported = steady_clock::now();
  running->graph.start();
  watch(running);
  const Status failure = running->graph.wait();
  if (failure.ok()) {
    // After a failure of the graph the outputs stay what they are: incomplete.
    running->sink->close_sinks(
        std::none_of(running->cameras.begin(), running->cameras.end(),
                     [](const Running::Camera& camera) { return camera.source->failed(); }));
  }
  tell_ends(running, true);
  warn_of_refused_poses(running);
  report(running, true);
  const Status verdict = failure.ok() ? running->verdict.status() : failure;
  return {verdict.code(), running->sink->published(), verdict.what()};
}

void Pipeline::open(Running* running) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t i = 0; i < config_.sources.size(); ++i) {
      running->cameras.emplace_back();
      running->cameras.back().source = std::make_unique<SourceStage>(
          config_.sources[i].camera, static_cast<int>(i),
          make_source(options_of(config_.sources[i])), config_.retry, events_, &running->verdict);
    }
    running_ = running;
  }
  running->bundle = open_bundle(config_.bundle);
  if (running->bundle.manifest.mode != Mode::kBottomUp) {
    throw Error(Code::kBundle, config_.bundle + "/manifest.json: mode",
                "only bottom_up bundles run on whole pictures");
  }
  running->decoder = open_decoder(running->bundle.manifest);
  RuntimeOptions options;
  options.requests = config_.requests;
  options.threads = config_.threads;
  options.max_batch = config_.max_batch;
  running->runtime = open_runtime(running->bundle, options);
  open_sources(running);
  open_sinks(running);
  build(running);
  const Manifest& manifest = running->bundle.manifest;
  events_->ready({config_.bundle, manifest.target->runtime, manifest.skeleton.name,
                  manifest.target->precision, running->runtime->requests(),
                  running->runtime->max_batch()});
}

// Together, because each absent camera may take its whole timeout.
void Pipeline::open_sources(Running* running) {
  if (stopping_) {
    for (const Running::Camera& camera : running->cameras) {
      camera.source->stop();
    }
  }
  std::vector<std::exception_ptr> failures(running->cameras.size());
  std::vector<std::thread> opening;
  for (std::size_t i = 0; i < running->cameras.size(); ++i) {
    opening.emplace_back([&failures, i, source = running->cameras[i].source.get()] {
      try {
        source->open();
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : opening) {
    thread.join();
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure != nullptr) {
      std::rethrow_exception(failure);
    }
  }
}

void Pipeline::open_sinks(Running* running) {
  const auto add = [running](const std::string& name, std::unique_ptr<Sink> sink) {
    sink->open(running->bundle.manifest.skeleton);
    running->sinks.push_back({name, std::move(sink)});
  };
  for (const SinkConfig& config : config_.sinks) {
    if (config.kind == "events") {
      add(config.kind, make_events_sink(events_));
      continue;
    }
    // Pictures of several cameras do not go into one video; messages say whose they are.
    const bool one_each = config.kind == "video" || config.kind == "show";
    for (std::size_t i = 0; i < (one_each ? config_.sources.size() : 1); ++i) {
      SinkOptions options;
      options.kind = config.kind;
      options.path = config.path;
      if (one_each) {
        options.camera_index = static_cast<int>(i);
        options.label = config_.sources[i].camera;
        options.camera = config_.sources.size() > 1 ? options.label : "";
        options.fps = config_.sources[i].fps;
      }
      add(config.kind, make_sink(options));  // what it says starts with its path
    }
  }
  for (auto& [name, sink] : own_sinks_) {
    add(name, std::move(sink));
  }
  own_sinks_.clear();
}

void Pipeline::build(Running* running) {
  const int max_batch = running->runtime->max_batch();
  const auto batch = static_cast<std::size_t>(max_batch);
  const bool keep_pictures =
      std::any_of(running->sinks.begin(), running->sinks.end(),
                  [](const NamedSink& named) { return named.sink->wants_picture(); });
  running->slots = std::make_unique<Slots>(running->runtime.get());
  const std::size_t results = 2 * batch + 2;
  // In the slots, being prepared, decoded, waiting, at the sinks: a stage never waits for a Work.
  const std::size_t works = (running->slots->slots.size() + 2) * batch + results + 1;
  running->works = std::make_unique<Pool<Work>>(works);
  running->results = std::make_unique<Channel<WorkPtr>>(results, Policy::kBlock);

  std::vector<Channel<FramePtr>*> lanes;
  std::vector<std::string> names;
  std::vector<CameraCounts*> counts;
  for (std::size_t i = 0; i < running->cameras.size(); ++i) {
    Running::Camera& camera = running->cameras[i];
    const auto full = config_.sources[i].policy;
    const bool drops = full == SourceConfig::Full::kDropOldest ||
                       (full == SourceConfig::Full::kAuto && camera.source->live());
    const std::size_t capacity = lane_capacity(drops, max_batch);
    // In the lane, at the source, being preprocessed: a live source never waits for a Frame.
    const std::size_t frames = capacity + 1 + batch + (keep_pictures ? works : 0);
    camera.frames = std::make_unique<Pool<Frame>>(frames);
    camera.lane = std::make_unique<Channel<FramePtr>>(
        capacity, drops ? Policy::kDropOldest : Policy::kBlock, &running->bell);
    camera.source->connect(camera.lane.get(), camera.frames.get());
    lanes.push_back(camera.lane.get());
    names.push_back(camera.source->camera());
    counts.push_back(&camera.source->counts());
    running->graph.add(camera.source.get(), {camera.lane.get()});
  }
  running->payload = std::make_unique<PayloadWriter>(config_.node, names, running->bundle);
  running->batcher = std::make_unique<Batcher<FramePtr>>(lanes, &running->bell);
  running->preprocess = std::make_unique<PreprocessStage>(
      running->bundle.manifest, running->slots.get(), running->batcher.get(), running->works.get(),
      keep_pictures);
  running->decode = std::make_unique<DecodeStage>(running->decoder.get(), config_.min_score,
                                                  running->slots.get(), running->results.get());
  running->sink =
      std::make_unique<SinkStage>(running->payload.get(), std::move(running->sinks), counts,
                                  running->results.get(), events_, &running->verdict);
  running->graph.add(running->preprocess.get(), {&running->slots->busy});
  running->graph.add(running->decode.get(), {running->results.get(), &running->slots->free});
  running->graph.add(running->sink.get(), {});
}

// "ended" is said when a source's last frame is published, not when it is read.
void Pipeline::tell_ends(Running* running, bool all) {
  for (Running::Camera& camera : running->cameras) {
    const SourceEvent* event = camera.source->end_event();
    const CameraCounts& counts = camera.source->counts();
    if (event != nullptr && !camera.end_told &&
        (all || counts.published + camera.lane->counts().dropped >= counts.captured)) {
      camera.end_told = true;
      events_->source(*event);
    }
  }
}

// Until every operator has ended.
void Pipeline::watch(Running* running) {
  const milliseconds interval(config_.stats_interval_ms);
  bool aborted = false;
  while (!running->graph.wait_for(kTick)) {
    if (interval.count() > 0 && steady_clock::now() - running->reported >= interval) {
      warn_of_refused_poses(running);
      report(running, false);
    }
    tell_ends(running, false);
    if (!stopping_ && (events_->closed() || running->sink->nobody_listens())) {
      stop();
    }
    if (stopping_ && !aborted && steady_clock::now() > deadline_.load()) {
      aborted = true;
      running->graph.abort();
      running->works->close();
      for (const Running::Camera& camera : running->cameras) {
        camera.frames->close();
      }
    }
  }
}

void Pipeline::warn_of_refused_poses(Running* running) {
  const std::uint64_t refused = running->decode->poses_refused();
  if (refused > running->reported_refused) {
    events_->warning("decode", std::to_string(refused - running->reported_refused) +
                                   " poses were not finite and are not reported");
    running->reported_refused = refused;
  }
}

void Pipeline::report(Running* running, bool whole_run) {
  const auto now = steady_clock::now();
  const std::uint64_t frames = running->sink->published();
  const LatencyHistogram::Counts latencies = running->sink->latencies().counts();
  const std::chrono::duration<double> time =
      now - (whole_run ? running->started : running->reported);
  const auto since = whole_run ? latencies : latencies - running->reported_latencies;
  StatsEvent event;
  event.fps = static_cast<double>(frames - (whole_run ? 0 : running->reported_frames)) /
              std::max(time.count(), 1e-6);
  event.p50_ms = percentile_ms(since, 0.50);
  event.p99_ms = percentile_ms(since, 0.99);

  const auto row = [&event](const std::string& name, const OperatorStats& stats,
                            const ChannelCounts& input) {
    event.operators.push_back({name, stats.frames(), stats.busy_ms(), input.depth, input.dropped});
  };
  ChannelCounts lanes;
  for (const Running::Camera& camera : running->cameras) {
    const ChannelCounts lane = camera.lane->counts();
    const CameraCounts& counts = camera.source->counts();
    lanes.depth += lane.depth;
    lanes.dropped += lane.dropped;
    const std::uint64_t captured = counts.captured, published = counts.published;
    // In the end whatever was not published is lost, wherever that was.
    event.cameras.push_back({camera.source->camera(), captured, published,
                             whole_run ? captured - published : lane.dropped});
    row(camera.source->name(), camera.source->stats(), {});
  }
  row("preprocess", running->preprocess->stats(), lanes);
  row("infer", running->decode->infer_stats(), running->slots->busy.counts());
  row("decode", running->decode->stats(), {});
  row("sink", running->sink->stats(), running->results->counts());
  events_->stats(event);
  running->reported = now;
  running->reported_frames = frames;
  running->reported_latencies = latencies;
}

}  // namespace posewire
