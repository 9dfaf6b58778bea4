// SPDX-License-Identifier: Apache-2.0
// H.264 in MP4 as browsers play it: yuv420p, even sizes, index in front. One time stamp a picture.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/image.h"
#include "io/aside_file.h"
#include "io/libav.h"

namespace posewire {

// Used by one thread. Written aside; finish() gives the file its name.
class Mp4Writer {
 public:
  // Takes the file's name and lock; the encoder starts with the first picture, whose size counts.
  // Throws Error(kCannotWrite, kUnavailable: this FFmpeg has no encoder).
  void open(const std::string& path);

  // position_ms must grow from picture to picture; pictures must keep the first one's size, less
  // one column or row where that was odd. fps: a hint to the encoder at the first picture.
  Status write(const Image& image, double position_ms, double fps);

  // No picture at all: no file, success. Not whole: a playable file that keeps its name aside, and
  // a Status that says which.
  Status finish(bool whole);
  bool is_open() const noexcept { return file_.is_open(); }

 private:
  Status start(const Image& image, double fps);
  Status encode(const AVFrame* frame);
  Status failure(const char* doing, int error) const;

  AsideFile file_;
  std::string path_;
  const AVCodec* encoder_ = nullptr;
  struct OutputDelete {
    void operator()(AVFormatContext* p) const {
      avio_closep(&p->pb);
      avformat_free_context(p);
    }
  };
  std::unique_ptr<AVFormatContext, OutputDelete> output_;
  AvCodec codec_;
  AvFrame frame_;
  AvPacket packet_;
  Sws sws_;
  AVStream* stream_ = nullptr;
  std::int64_t last_pts_ = -1, step_ = 0;
};

}  // namespace posewire
