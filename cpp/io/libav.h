// SPDX-License-Identifier: Apache-2.0
// FFmpeg's C objects as owners. Written for the API that FFmpeg 4.4 (Ubuntu 22.04), 5.1 (Debian
// 12), 6.1 (Ubuntu 24.04) and 7 share; the few differences stand where they matter.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/dict.h>
#include <libavutil/frame.h>
#include <libavutil/log.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <mutex>
#include <string>

namespace posewire {

struct AvInputDelete {
  void operator()(AVFormatContext* p) const { avformat_close_input(&p); }
};
struct AvCodecDelete {
  void operator()(AVCodecContext* p) const { avcodec_free_context(&p); }
};
struct AvFrameDelete {
  void operator()(AVFrame* p) const { av_frame_free(&p); }
};
struct AvPacketDelete {
  void operator()(AVPacket* p) const { av_packet_free(&p); }
};
struct SwsDelete {
  void operator()(SwsContext* p) const { sws_freeContext(p); }
};
using AvInput = std::unique_ptr<AVFormatContext, AvInputDelete>;
using AvCodec = std::unique_ptr<AVCodecContext, AvCodecDelete>;
using AvFrame = std::unique_ptr<AVFrame, AvFrameDelete>;
using AvPacket = std::unique_ptr<AVPacket, AvPacketDelete>;
using Sws = std::unique_ptr<SwsContext, SwsDelete>;

inline std::string av_reason(int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(error, text, sizeof text);
  return text;
}

// FFmpeg logs to stderr by itself, addresses with their passwords included. Its level is one for
// the whole process, so it is set once, by whoever of us comes first; what matters is reported by
// us.
inline void quiet_libav() {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_level(AV_LOG_QUIET); });
}

class AvOptions {
 public:
  AvOptions() = default;
  AvOptions(const AvOptions&) = delete;
  AvOptions& operator=(const AvOptions&) = delete;
  ~AvOptions() { av_dict_free(&dict_); }

  void set(const char* key, const std::string& value) {
    av_dict_set(&dict_, key, value.c_str(), 0);
  }
  AVDictionary** address() noexcept { return &dict_; }

 private:
  AVDictionary* dict_ = nullptr;
};

}  // namespace posewire
