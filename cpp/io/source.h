// SPDX-License-Identifier: Apache-2.0
// Where frames come from, chosen by URI scheme in one table (io/source.cpp). A bare path is a file
// or folder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/image.h"

namespace posewire {

struct SourceOptions {
  std::string camera;  // for messages
  std::string uri;
  bool loop = false;      // files: start again at the end
  double fps = 0.0;       // files and synthetic: pace to this rate; 0: as fast as they are read
  int timeout_ms = 5000;  // live: no byte for so long is a failure
  bool realtime = false;  // files: pace by their own time stamps (fps wins)
};

enum class Read { kFrame, kEnd, kFailed, kStopped };

// Calls come from one thread, except stop().
class Source {
 public:
  virtual ~Source() = default;

  // Throws Error: kSource (missing, unreadable, absent camera, stopped), kConfig (URI). May be
  // called again after kEnd or kFailed: it starts afresh.
  virtual void open() = 0;
  // Fills image, t_capture, t_arrival, t_media_ms of a frame that is reused; the size may change
  // from frame to frame. kFailed: *status says why (a decode error that a live source may survive
  // by reopening, a truncated file: never a clean kEnd).
  virtual Read read(Frame* frame, Status* status) = 0;
  // Any thread: makes a blocked open() or read() return soon (read: kStopped). Sticky: a stopped
  // source does not open again.
  virtual void stop() noexcept = 0;

  // Cameras: may be reopened for ever, may be dropped from. Ask after open(): a finite file behind
  // http:// is not live.
  virtual bool live() const noexcept = 0;

  // Any thread: pictures that came damaged (bitstream, camera buffer) since open(). They do not end
  // the stream: concealed ones are delivered, others are missing; somebody should be told.
  virtual std::uint64_t damaged() const noexcept { return 0; }
};

// "file:clip.mp4" or a bare path (a video, a picture, a folder of pictures), "v4l2:/dev/video0",
// "rtsp://…", "http://…", "synthetic:?people=5".
// Throws Error(kConfig) for an unknown scheme, listing the known ones. Opens nothing.
std::unique_ptr<Source> make_source(const SourceOptions& options);
std::vector<std::string> source_schemes();

}  // namespace posewire
