// SPDX-License-Identifier: Apache-2.0
#include "pipeline/events.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/log.h"

namespace posewire {
namespace {

using Json = nlohmann::ordered_json;

// A pipe that is ready takes so much without blocking (POSIX: PIPE_BUF, at least 512; Linux: 4096).
constexpr std::size_t kChunkBytes = 4096;
constexpr int kPatienceMs = 100;

std::string text_of(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* name_of(SourceState state) {
  switch (state) {
    case SourceState::kOnline:
      return "online";
    case SourceState::kOffline:
      return "offline";
    case SourceState::kEnded:
      return "ended";
  }
  return "";
}

double rounded(double value) { return std::round(value * 1000.0) / 1000.0; }

}  // namespace

bool FdLines::write(const std::string& line) {
  std::size_t done = 0;
  while (done < line.size()) {
    if (torn_) {
      return false;
    }
    pollfd ready{descriptor_, POLLOUT, 0};
    const int count = ::poll(&ready, 1, kPatienceMs);
    if (count == 0 || (count < 0 && errno == EINTR)) {
      if (count == 0 && std::chrono::steady_clock::now() >= deadline_.load()) {
        torn_ = done > 0;
        return false;
      }
      continue;
    }
    const ssize_t written =
        ::write(descriptor_, line.data() + done, std::min(line.size() - done, kChunkBytes));
    if (written > 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno != EINTR && errno != EAGAIN) {
      torn_ = true;
    }
  }
  return true;
}

void Events::write(const std::string& object) {
  const std::lock_guard<std::mutex> lock(mutex_);
  line_.assign(object);
  line_ += '\n';
  if (!closed_ && !out_->write(line_)) {
    closed_ = true;
  }
}

void Events::ready(const ReadyEvent& event) {
  write(text_of({{"event", "ready"},
                 {"bundle", event.bundle},
                 {"runtime", event.runtime},
                 {"requests", event.requests},
                 {"max_batch", event.max_batch},
                 {"skeleton", event.skeleton},
                 {"precision", event.precision}}));
}

void Events::source(const SourceEvent& event) {
  const std::string why = redacted(event.why);
  log(event.why.empty() ? Level::kInfo : Level::kWarning, event.camera,
      std::string(name_of(event.state)) + (why.empty() ? "" : ": " + why));
  write(text_of({{"event", "source"},
                 {"camera", event.camera},
                 {"state", name_of(event.state)},
                 {"width", event.width},
                 {"height", event.height},
                 {"why", why}}));
}

void Events::frame(const std::string& payload) {
  const std::lock_guard<std::mutex> lock(mutex_);
  line_.assign("{\"event\":\"frame\",\"payload\":");
  line_ += payload;
  line_ += "}\n";
  if (!closed_ && !out_->write(line_)) {
    closed_ = true;
  }
}

void Events::stats(const StatsEvent& event) {
  Json operators = Json::array(), cameras = Json::array();
  for (const StatsEvent::Row& row : event.operators) {
    operators.push_back({{"name", row.name},
                         {"frames", row.frames},
                         {"busy_ms", rounded(row.busy_ms)},
                         {"depth", row.depth},
                         {"dropped", row.dropped}});
  }
  for (const StatsEvent::Camera& row : event.cameras) {
    cameras.push_back({{"camera", row.camera},
                       {"captured", row.captured},
                       {"published", row.published},
                       {"dropped", row.dropped}});
  }
  write(text_of({{"event", "stats"},
                 {"fps", rounded(event.fps)},
                 {"latency_ms", {{"p50", rounded(event.p50_ms)}, {"p99", rounded(event.p99_ms)}}},
                 {"operators", operators},
                 {"cameras", cameras}}));
}

void Events::warning(const std::string& where, const std::string& what) {
  log(Level::kWarning, where, what);
  write(text_of({{"event", "warning"}, {"where", redacted(where)}, {"what", redacted(what)}}));
}

void Events::stopped(Code code, std::uint64_t frames, const std::string& why) {
  write(text_of({{"event", "stopped"},
                 {"code", static_cast<int>(code)},
                 {"frames", frames},
                 {"why", redacted(why)}}));
}

}  // namespace posewire
