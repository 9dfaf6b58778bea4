// SPDX-License-Identifier: Apache-2.0
// Video files, RTSP and HTTP through libavformat and libavcodec. What OpenCV's reader hides is seen
// here: stop() and time-outs reach into blocking calls, every frame has its own size and time
// stamp, damaged pictures are counted, and a file that was cut off does not look like one that
// ended.
//
// What cannot be seen: a raw H.264, MPEG-TS or FLV file cut between two pictures (these containers
// state no length); and a name lookup is not interruptible, so stop() then takes as long as the
// resolver's own time-out.
#include "io/libav.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/log.h"
#include "io/container_size.h"
#include "io/libav_decode.h"
#include "io/pacing.h"
#include "io/source.h"
#include "io/uri.h"

namespace posewire {
namespace {

using Clock = std::chrono::steady_clock;

// An address is untrusted: what a playlist or a redirection may open is what its own kind needs,
// and a demuxer that follows paths (concat, image patterns) or "plays" text is never tried.
struct Kind {
  const char* protocols;
  const char* demuxers;
};
constexpr Kind kFile{"file",
                     "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,"
                     "ogg,h264,hevc,av1,obu,ivf,mjpeg,mpjpeg,mxf,nut,gif,dv,vob,y4m,yuv4mpegpipe"};
constexpr Kind kRtsp{"rtsp,rtsps,rtp,tcp,tls", "rtsp"};
constexpr Kind kHttp{"http,https,tcp,tls,crypto",
                     "hls,mpjpeg,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv,h264,"
                     "hevc,asf,ogg,dash"};

class Libav final : public Source {
 public:
  Libav(const SourceOptions& options, bool file)
      : options_(options),
        file_(file),
        live_(!file),
        where_(camera_place(options.camera)),
        pacer_(file ? options.fps : 0.0, file && options.realtime) {}

  void open() override {
    damaged_.store(0);
    pacer_.restart();
    if (const Status status = start(); !status.ok()) {
      throw Error(status.code(), where_, status.what());
    }
  }

  Read read(Frame* frame, Status* status) override {
    if (!input_) {
      return ended_ ? Read::kEnd : fail(status, "is not open");
    }
    arm(options_.timeout_ms);
    // Bytes that never make a picture are no stream either; slow key frames get their time.
    const auto picture_due = Clock::now() + std::chrono::milliseconds(4) * options_.timeout_ms;
    for (;;) {
      if (flag_.stopped()) {
        return Read::kStopped;
      }
      const int got = decoder_.receive();
      if (got == 0) {
        return deliver(frame, status);
      }
      if (got == AVERROR_EOF) {
        const Read end = finish(status);
        if (end != Read::kFrame) {
          return end;
        }
      } else if (got == AVERROR(EAGAIN)) {
        const int fed = feed();
        if (fed < 0) {
          return flag_.stopped() ? Read::kStopped : fail(status, reason(fed));
        }
      } else {
        damage();
      }
      if (!file_ && Clock::now() > picture_due) {
        return fail(status, "sends data but no picture that can be decoded");
      }
    }
  }

  void stop() noexcept override { flag_.stop(); }
  bool live() const noexcept override { return live_.load(); }
  std::uint64_t damaged() const noexcept override { return damaged_.load(); }

 private:
  // libav asks this many times a second while it waits for anything.
  static int interrupted(void* self) {
    const Libav* const source = static_cast<const Libav*>(self);
    return source->flag_.stopped() || (!source->file_ && Clock::now() > source->deadline_) ? 1 : 0;
  }

  void arm(int timeout_ms) { deadline_ = Clock::now() + std::chrono::milliseconds(timeout_ms); }

  // Opens the input and its decoder from the start.
  Status start() {
    quiet_libav();
    if (flag_.stopped()) {
      return Status(Code::kSource, "stopped");
    }
    input_.reset();
    ended_ = draining_ = last_damaged_ = false;
    pictures_ = 0;
    media_ms_ = -1.0;
    packet_.reset(av_packet_alloc());
    std::string url = options_.uri;
    if (file_) {
      const std::string path = path_of(options_.uri);
      struct stat info {};
      if (::stat(path.c_str(), &info) != 0) {
        return Status(Code::kSource, path + ": " + std::strerror(errno));
      }
      if (!S_ISREG(info.st_mode)) {
        return Status(Code::kSource, path + ": is not a regular file");
      }
      place_ = path;
      url = "file:" + path;  // a colon in the name would make it a protocol
    } else {
      url = scheme_of(url) + ":" + rest_of(url);  // libav compares it as written
      place_ = redacted(url);
    }
    AVFormatContext* const context = avformat_alloc_context();
    if (context == nullptr || !packet_) {
      return Status(Code::kBug, place_ + ": out of memory");
    }
    context->interrupt_callback = {interrupted, this};
    arm(options_.timeout_ms);
    AvOptions options;
    set(&options, scheme_of(options_.uri));
    AVFormatContext* opened = context;  // freed by the call when it fails
    int error = avformat_open_input(&opened, url.c_str(), nullptr, options.address());
    if (error < 0) {
      return unreadable(error);
    }
    input_.reset(opened);
    arm(options_.timeout_ms);
    error = avformat_find_stream_info(input_.get(), nullptr);
    if (error < 0) {
      return unreadable(error);
    }
    return start_decoder();
  }

  void set(AvOptions* options, const std::string& scheme) const {
    const bool rtsp = scheme == "rtsp" || scheme == "rtsps";
    const Kind& kind = file_ ? kFile : rtsp ? kRtsp : kHttp;
    options->set("protocol_whitelist", kind.protocols);
    options->set("format_whitelist", kind.demuxers);
    if (file_) {
      return;
    }
    // In microseconds. The interrupt callback is the real guard: libav restarts these for every
    // read.
    const std::string timeout = std::to_string(static_cast<long long>(options_.timeout_ms) * 1000);
    options->set("analyzeduration", "2000000");  // what is read meanwhile is not lost
    if (rtsp) {
      options->set("rtsp_transport", "tcp");  // UDP loses packets without saying so
      options->set("allowed_media_types", "video");
#if LIBAVFORMAT_VERSION_MAJOR < 59
      options->set("stimeout", timeout);  // "timeout" made it a server that waits for a client
#else
      options->set("timeout", timeout);
#endif
    } else {
      options->set("timeout", timeout);
      options->set("user_agent", "posewire");
    }
  }

  Status start_decoder() {
    const int index = av_find_best_stream(input_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (index < 0) {
      return unreadable(index);
    }
    for (unsigned int i = 0; i < input_->nb_streams; ++i) {
      input_->streams[i]->discard =
          static_cast<int>(i) == index ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    }
    stream_ = input_->streams[index];
    // A length means that it ends, and that nothing is lost by reading it slowly.
    const bool finite = input_->pb != nullptr && avio_size(input_->pb) > 0;
    live_.store(!file_ && !finite);
    const int error = decoder_.open(stream_, live_.load());
    return error < 0 ? unreadable(error) : Status();
  }

  // One packet of our stream, or the end, to the decoder. Only libav's input errors come back.
  int feed() {
    for (;;) {
      const int error = av_read_frame(input_.get(), packet_.get());
      if (error == AVERROR(EAGAIN) && interrupted(this) == 0) {
        continue;  // some demuxers say so between two parts
      }
      if (error == AVERROR_EOF && interrupted(this) == 0) {
        const int broken = input_->pb != nullptr ? input_->pb->error : 0;
        if (broken < 0 && broken != AVERROR_EOF) {
          return broken;  // the connection or the disk, not the end
        }
        draining_ = true;
        decoder_.send(nullptr);
        return 0;
      }
      if (error < 0) {
        return interrupted(this) != 0 ? AVERROR_EXIT : error;
      }
      if (packet_->stream_index == stream_->index) {
        break;
      }
      av_packet_unref(packet_.get());
    }
    arm(options_.timeout_ms);
    last_damaged_ = (packet_->flags & AV_PKT_FLAG_CORRUPT) != 0;
    if (decoder_.send(packet_.get()) < 0) {
      damage();
    }
    av_packet_unref(packet_.get());
    return 0;
  }

  Read deliver(Frame* frame, Status* status) {
    frame->t_arrival = Clock::now();
    frame->t_capture = std::chrono::system_clock::now();
    const bool damaged = decoder_.damaged();
    if (damaged) {
      damage();
    } else if (!draining_) {
      last_damaged_ = false;
    }
    const int error = decoder_.to_image(&frame->image);
    if (error < 0) {
      return fail(status, "a picture cannot be converted (" + av_reason(error) + ")");
    }
    ++pictures_;
    frame->t_media_ms.reset();
    if (live_.load()) {
      return Read::kFrame;
    }
    const AVRational rate = stream_->avg_frame_rate;
    const double step = rate.num > 0 && rate.den > 0 ? 1000.0 / av_q2d(rate) : 40.0;
    media_ms_ = decoder_.position_ms().value_or(pictures_ == 1 ? 0.0 : media_ms_ + step);
    frame->t_media_ms = media_ms_;
    if (!pacer_.wait(&flag_, media_ms_)) {
      return Read::kStopped;
    }
    if (options_.fps > 0.0 || options_.realtime) {  // it "arrives" when it is due
      frame->t_arrival = Clock::now();
      frame->t_capture = std::chrono::system_clock::now();
    }
    return Read::kFrame;
  }

  // All pictures are delivered. kFrame: a loop starts again.
  Read finish(Status* status) {
    if (live_.load()) {
      return fail(status, "the stream ended");  // a camera does not end; its server went away
    }
    if (pictures_ == 0) {
      return fail(status, "has no picture that can be decoded");
    }
    if (std::string cut = cut_off(); !cut.empty()) {
      return fail(status, cut + ", after " + std::to_string(pictures_) + " pictures");
    }
    if (last_damaged_) {
      return fail(status, "ends inside a picture: cut off after " + std::to_string(pictures_));
    }
    if (!options_.loop) {
      input_.reset();
      ended_ = true;
      return Read::kEnd;
    }
    if (Status again = start(); !again.ok()) {
      *status = Status(again.code(), sentence(where_, again.what()));
      return Read::kFailed;
    }
    return Read::kFrame;
  }

  // "is cut off: 300 of 900 bytes", or "" where nothing is known to be missing.
  std::string cut_off() const {
    struct stat info {};
    const auto stated = file_ ? stated_size(place_) : std::nullopt;
    if (!stated || ::stat(place_.c_str(), &info) != 0 ||
        *stated <= static_cast<std::uint64_t>(info.st_size)) {
      return "";
    }
    return "is cut off: " + std::to_string(info.st_size) + " of " + std::to_string(*stated) +
           " bytes";
  }

  void damage() {
    damaged_.fetch_add(1);
    last_damaged_ = true;
  }

  std::string reason(int error) const {
    if (flag_.stopped()) {
      return "stopped";
    }
    if (error == AVERROR_EXIT || (!file_ && Clock::now() > deadline_)) {
      return "nothing came for " + std::to_string(options_.timeout_ms) + " ms";
    }
    if (std::string cut = cut_off(); !cut.empty()) {
      return cut;
    }
    if (error == AVERROR_STREAM_NOT_FOUND) {
      return "has no video";
    }
    if (error == AVERROR(EIO) && !file_) {
      return "the connection broke off";
    }
    if (error == AVERROR_INVALIDDATA && file_) {
      return "is damaged, cut off or no video (" + av_reason(error) + ")";
    }
    if (error == AVERROR(EINVAL)) {
      return "is no video of a kind that is read here";  // FFmpeg's word for "not on the whitelist"
    }
    return av_reason(error);
  }

  Status unreadable(int error) const {
    return Status(Code::kSource, place_ + ": " + reason(error));
  }

  Read fail(Status* status, const std::string& what) {
    *status = Status(Code::kSource, sentence(where_, place_ + ": " + what));
    input_.reset();
    return Read::kFailed;
  }

  const SourceOptions options_;
  const bool file_;
  std::atomic<bool> live_;
  const std::string where_;  // the camera, where it has a name
  std::string place_;        // the path or the address without credentials
  Pacer pacer_;
  StopFlag flag_;
  Clock::time_point deadline_{};
  AvInput input_;
  AvPacket packet_;
  AVStream* stream_ = nullptr;
  VideoDecoder decoder_;
  std::atomic<std::uint64_t> damaged_{0};
  std::uint64_t pictures_ = 0;  // since start()
  double media_ms_ = -1.0;
  bool ended_ = false, draining_ = false, last_damaged_ = false;
};

}  // namespace

std::unique_ptr<Source> make_libav_file(const SourceOptions& options) {
  path_of(options.uri);  // throws where it names a host
  return std::make_unique<Libav>(options, true);
}

std::unique_ptr<Source> make_libav_stream(const SourceOptions& options) {
  return std::make_unique<Libav>(options, false);
}

}  // namespace posewire
