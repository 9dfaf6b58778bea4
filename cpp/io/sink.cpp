// SPDX-License-Identifier: Apache-2.0
// The table of sinks. To add one: its file, its maker's declaration and its row. "events", the
// engine's own protocol on stdout, is the pipeline's and is not made here.
#include "io/sink.h"

namespace posewire {

std::unique_ptr<Sink> make_ndjson(const SinkOptions& options);  // ndjson.cpp
std::unique_ptr<Sink> make_video(const SinkOptions& options);   // video.cpp
std::unique_ptr<Sink> make_show(const SinkOptions& options);    // show.cpp
std::unique_ptr<Sink> make_memory(const SinkOptions& options);  // memory_sink.cpp

namespace {

struct Row {
  const char* kind;
  std::unique_ptr<Sink> (*make)(const SinkOptions&);
};

constexpr Row kSinks[] = {
    {"ndjson", make_ndjson},
    {"video", make_video},
    {"show", make_show},
    {"memory", make_memory},
};

}  // namespace

std::unique_ptr<Sink> make_sink(const SinkOptions& options) {
  std::string known;
  for (const Row& row : kSinks) {
    if (options.kind == row.kind) {
      return row.make(options);
    }
    known += (known.empty() ? "" : ", ") + std::string(row.kind);
  }
  throw Error(Code::kConfig, "sink",
              "unknown kind \"" + options.kind + "\" (known: " + known + ")");
}

std::vector<std::string> sink_kinds() {
  std::vector<std::string> kinds;
  for (const Row& row : kSinks) {
    kinds.emplace_back(row.kind);
  }
  return kinds;
}

}  // namespace posewire
