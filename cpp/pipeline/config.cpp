// SPDX-License-Identifier: Apache-2.0
#include "pipeline/config.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/strict_json.h"
#include "io/sink.h"

namespace posewire {
namespace {

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20U;
constexpr std::size_t kMaxSources = 64;
constexpr std::size_t kMaxSinks = 16;
constexpr std::size_t kMaxPath = 4096;

// Nodes and cameras become MQTT topic levels.
std::string topic_word(const At& at) {
  return at.matching(
      [](const std::string& s) {
        return !s.empty() && s.size() <= 48 &&
               s.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string::npos;
      },
      "must be 1 to 48 of a-z, 0-9, _, -");
}

int small(const At& at, const char* key, int most) {
  return at.has(key) ? static_cast<int>(at[key].integer(0, most, "an integer of 0")) : 0;
}

SourceConfig parse_source(const At& at) {
  at.object({"camera", "uri"}, {"policy", "loop", "fps", "realtime", "timeout_ms"});
  SourceConfig source;
  source.camera = topic_word(at["camera"]);
  for (const char* reserved : {"status", "info", "health", "cmd"}) {
    if (source.camera == reserved) {
      at["camera"].fail(source.camera + " is a reserved name");
    }
  }
  source.uri = at["uri"].text(kMaxPath);
  if (at.has("policy")) {
    const std::string policy = at["policy"].choice({"auto", "block", "drop_oldest"});
    source.policy = policy == "auto"    ? SourceConfig::Full::kAuto
                    : policy == "block" ? SourceConfig::Full::kBlock
                                        : SourceConfig::Full::kDropOldest;
  }
  source.loop = at.has("loop") && at["loop"].boolean();
  source.realtime = at.has("realtime") && at["realtime"].boolean();
  source.fps = at.has("fps") ? at["fps"].number(0, 10000, "a number of 0..10000") : 0.0;
  if (at.has("timeout_ms")) {
    source.timeout_ms = static_cast<int>(at["timeout_ms"].integer(1, 3600000, "an integer of 1"));
  }
  return source;
}

SinkConfig parse_sink(const At& at) {
  at.object({"kind"}, {"path"});
  SinkConfig sink;
  sink.kind = at["kind"].text();
  std::vector<std::string> known = sink_kinds();
  known.insert(known.begin(), "events");
  known.erase(std::remove(known.begin(), known.end(), "memory"), known.end());  // a test's fake
  if (std::find(known.begin(), known.end(), sink.kind) == known.end()) {
    std::string list;
    for (const std::string& kind : known) {
      list += (list.empty() ? "" : ", ") + kind;
    }
    at["kind"].fail("must be one of " + list + ", not " + shown(sink.kind));
  }
  const bool needs_path = sink.kind == "ndjson" || sink.kind == "video";
  if (at.has("path") != needs_path) {
    needs_path ? at["path"].fail("is missing") : at["path"].fail("is not for " + sink.kind);
  }
  if (needs_path) {
    sink.path = at["path"].text(kMaxPath);
    if (sink.path.empty()) {
      at["path"].fail("must not be empty");
    }
  }
  return sink;
}

}  // namespace

EngineConfig parse_config(const std::string& text, const std::string& file) {
  const nlohmann::json document = parse_json(text, file, Code::kConfig);
  const At at(document, file, Code::kConfig);
  at.mapping();
  if (at["schema"].integer(0, INT32_MAX, "an integer") != 1) {
    at["schema"].fail("must be 1");
  }
  at.object(
      {"schema", "node", "bundle", "sources"},
      {"requests", "threads", "max_batch", "min_score", "sinks", "stats_interval_ms", "retry"});
  EngineConfig config;
  config.node = topic_word(at["node"]);
  config.bundle = at["bundle"].text(kMaxPath);
  config.requests = small(at, "requests", 256);
  config.threads = small(at, "threads", 1024);
  config.max_batch = small(at, "max_batch", 4096);
  if (at.has("min_score")) {
    config.min_score = at["min_score"].number(0, 1, "a number of 0..1");
  }
  if (at.has("stats_interval_ms")) {
    config.stats_interval_ms = small(at, "stats_interval_ms", 86400000);
  }
  config.retry = !at.has("retry") || at["retry"].boolean();
  const At sources = at["sources"];
  const std::size_t source_count = sources.items(1, kMaxSources);
  for (std::size_t i = 0; i < source_count; ++i) {
    config.sources.push_back(parse_source(sources.item(i)));
    for (std::size_t j = 0; j < i; ++j) {
      if (config.sources[j].camera == config.sources[i].camera) {
        sources.item(i)["camera"].fail(config.sources[i].camera + " appears twice");
      }
    }
  }
  if (!at.has("sinks")) {
    config.sinks = {{"events", ""}};
    return config;
  }
  const At sinks = at["sinks"];
  const std::size_t sink_count = sinks.items(0, kMaxSinks);
  for (std::size_t i = 0; i < sink_count; ++i) {
    config.sinks.push_back(parse_sink(sinks.item(i)));
  }
  return config;
}

EngineConfig read_config(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  char chunk[4096];
  while (file.read(chunk, sizeof chunk), file.gcount() > 0 && text.size() <= kMaxConfigBytes) {
    text.append(chunk, static_cast<std::size_t>(file.gcount()));
  }
  if (!file.eof() && text.size() <= kMaxConfigBytes) {
    throw Error(Code::kConfig, path,
                "cannot be read: " + std::string(std::strerror(errno == 0 ? EIO : errno)));
  }
  if (text.size() > kMaxConfigBytes) {
    throw Error(Code::kConfig, path,
                "is larger than " + std::to_string(kMaxConfigBytes) + " bytes");
  }
  return parse_config(text, path);
}

}  // namespace posewire
