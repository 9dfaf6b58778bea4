// SPDX-License-Identifier: Apache-2.0
// Packets of one video stream in, upright BGR pictures out.
#pragma once

#include <cstdint>
#include <optional>

#include "core/image.h"
#include "io/libav.h"

namespace posewire {

// Used by one thread. Functions return libav's error codes, 0 is success.
class VideoDecoder {
 public:
  // low_delay: no frame threads, which hold back one picture each.
  int open(const AVStream* stream, bool low_delay);

  int send(const AVPacket* packet);  // null: no more packets
  int receive();                     // AVERROR(EAGAIN): needs packets; AVERROR_EOF: all delivered

  // The picture last received, in its own size, turned upright. Pixels are not made square: a frame
  // has the size in which it was coded.
  int to_image(Image* image);

  std::optional<double> position_ms() const noexcept;  // from the stream's start
  bool damaged() const noexcept;  // the picture last received was concealed or is incomplete

 private:
  int convert(Image* image);

  AvCodec codec_;
  AvFrame frame_;
  Sws sws_;
  const AVStream* stream_ = nullptr;
  Image upright_;  // scratch for turned streams
};

}  // namespace posewire
