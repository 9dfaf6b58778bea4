// SPDX-License-Identifier: Apache-2.0
// Where results go. Calls come from one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/image.h"
#include "core/pose.h"
#include "core/skeleton.h"

namespace posewire {

// One finished frame: the picture, its poses in frame pixels, and the message that goes on the
// wire.
struct Result {
  const Frame* frame = nullptr;
  const Poses* poses = nullptr;
  const std::string* payload = nullptr;  // one JSON object, no newline
};

struct SinkOptions {
  std::string kind;       // a row of the table: events, ndjson, video, show, memory
  std::string path;       // ndjson, video
  std::string camera;     // several cameras: one file each, "<stem>-<camera>.mp4"
  double fps = 0.0;       // video: nominal rate; 0: from the stream's time stamps
  int camera_index = -1;  // only results with this Frame::camera; -1: all
  std::string label;      // video, show: written into the picture; empty: the camera
};

class Sink {
 public:
  virtual ~Sink() = default;
  virtual void open(const Skeleton& skeleton) = 0;  // throws Error: kCannotWrite, kUnavailable
  virtual bool wants_picture()
      const noexcept = 0;  // otherwise the frame's memory is given back early
  virtual Status write(const Result& result) = 0;
  // Before close(): a source failed, what was written is not all. A file then is finished but keeps
  // its name aside, and close() says where it is.
  virtual void cut_off() noexcept {}
  // Finishes the output: a file is written aside and renamed only here, so that a half-written one
  // never replaces a good one. Called once, also after a failed write.
  virtual Status close() = 0;
};

// Throws Error(kConfig) for an unknown kind, listing the known ones.
std::unique_ptr<Sink> make_sink(const SinkOptions& options);
std::vector<std::string> sink_kinds();

}  // namespace posewire
