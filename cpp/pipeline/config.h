// SPDX-License-Identifier: Apache-2.0
// engine.json, the whole of what an engine is told. Unknown keys are errors.
//
//   {"schema": 1, "node": "n1", "bundle": "/dir/of/a/compiled/bundle",
//    "requests": 0, "threads": 0, "max_batch": 0,     0: the runtime's choice
//    "min_score": 0.0,                                people below are not reported
//    "sources": [{"camera": "door", "uri": "file:clip.mp4", "policy": "auto", "loop": false,
//                 "fps": 0, "realtime": false, "timeout_ms": 5000}],
//    "sinks": [{"kind": "events"}, {"kind": "ndjson", "path": "poses.jsonl"}],
//    "stats_interval_ms": 1000,                       0: only at the end
//    "retry": true}                                   false: a camera that fails ends the engine
//
// schema, node, bundle and sources must stand; the values shown are the defaults of the others,
// except for sinks, which is [{"kind": "events"}].
#pragma once

#include <string>
#include <vector>

namespace posewire {

struct SourceConfig {
  // What a full channel does. kAuto: kBlock for files, folders and pictures; kDropOldest for live.
  enum class Full { kAuto, kBlock, kDropOldest };

  std::string camera, uri;
  Full policy = Full::kAuto;
  bool loop = false;
  double fps = 0.0;
  bool realtime = false;
  int timeout_ms = 5000;
};

struct SinkConfig {
  std::string kind, path;
};

struct EngineConfig {
  std::string node, bundle;
  int requests = 0, threads = 0, max_batch = 0;
  double min_score = 0.0;
  std::vector<SourceConfig> sources;
  std::vector<SinkConfig> sinks;
  int stats_interval_ms = 1000;
  bool retry = true;
};

// Throw Error(kConfig): "engine.json: sources[0].uri: is missing".
EngineConfig parse_config(const std::string& text, const std::string& file);
EngineConfig read_config(const std::string& path);

}  // namespace posewire
