// SPDX-License-Identifier: Apache-2.0
#include "io/mp4_writer.h"

#include <algorithm>
#include <cmath>

#include "core/log.h"

namespace posewire {
namespace {

constexpr int kTicks = 90000;  // a second

// H.264 first; MPEG-4 part 2, which every FFmpeg can write, plays in players but not in browsers.
const AVCodec* find_encoder() {
  for (const char* name : {"libx264", "libopenh264", "mpeg4"}) {
    if (const AVCodec* codec = avcodec_find_encoder_by_name(name)) {
      return codec;
    }
  }
  return nullptr;
}

}  // namespace

void Mp4Writer::open(const std::string& path) {
  quiet_libav();
  path_ = path;
  encoder_ = find_encoder();
  if (encoder_ == nullptr) {
    throw Error(Code::kUnavailable, path, "this FFmpeg has no H.264 or MPEG-4 encoder");
  }
  if (encoder_->id != AV_CODEC_ID_H264) {
    log(Level::kWarning, path,
        "no H.264 encoder (libx264) in this FFmpeg: MPEG-4 is written, which "
        "browsers do not play");
  }
  file_.open(path);
}

Status Mp4Writer::write(const Image& image, double position_ms, double fps) {
  if (!file_.is_open()) {
    return Status(Code::kCannotWrite, path_ + ": is not open for writing");
  }
  if (!codec_) {
    Status status = start(image, fps);
    if (!status.ok()) {
      return status;
    }
  }
  if (image.width / 2 * 2 != codec_->width || image.height / 2 * 2 != codec_->height) {
    return Status(Code::kBug, path_ + ": a picture of another size than the first");
  }
  const int error = av_frame_make_writable(frame_.get());
  if (error < 0) {
    return failure("frame", error);
  }
  // The encoder's size: an odd last column or row is cut off, no pixel is interpolated.
  const std::uint8_t* const planes[4] = {image.bytes.data(), nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(image.stride_bytes), 0, 0, 0};
  sws_scale(sws_.get(), planes, strides, 0, codec_->height, frame_->data, frame_->linesize);
  const auto pts = static_cast<std::int64_t>(std::llround(position_ms * kTicks / 1000.0));
  frame_->pts = std::max(pts, last_pts_ + 1);
  last_pts_ = frame_->pts;
  frame_->pict_type = AV_PICTURE_TYPE_NONE;
  return encode(frame_.get());
}

Status Mp4Writer::start(const Image& image, double fps) {
  const int width = image.width / 2 * 2, height = image.height / 2 * 2;
  if (width < 2 || height < 2) {
    return Status(Code::kCannotWrite, path_ + ": a picture too small for a video");
  }
  codec_.reset(avcodec_alloc_context3(encoder_));
  frame_.reset(av_frame_alloc());
  packet_.reset(av_packet_alloc());
  codec_->width = width;
  codec_->height = height;
  codec_->pix_fmt = AV_PIX_FMT_YUV420P;
  // MPEG-4 part 2 cannot count finer than 1/65535 s.
  codec_->time_base = AVRational{1, encoder_->id == AV_CODEC_ID_MPEG4 ? 60000 : kTicks};
  codec_->framerate = av_d2q(fps > 0.0 ? fps : 25.0, 1000);
  codec_->gop_size = std::max(10, static_cast<int>(std::lround(2.0 * (fps > 0.0 ? fps : 25.0))));
  codec_->thread_count = 2;  // the cores belong to the inference
  codec_->color_range = AVCOL_RANGE_MPEG;
  codec_->colorspace = AVCOL_SPC_BT709;
  codec_->color_primaries = AVCOL_PRI_BT709;
  codec_->color_trc = AVCOL_TRC_BT709;
  step_ = std::llround(kTicks / (fps > 0.0 ? fps : 25.0));
  AvOptions options;
  if (encoder_->id == AV_CODEC_ID_H264) {
    options.set("preset", "veryfast");
    options.set("crf", "21");
  } else {
    codec_->flags |= AV_CODEC_FLAG_QSCALE;
    codec_->global_quality = 4 * FF_QP2LAMBDA;
  }
  AVFormatContext* output = nullptr;
  const std::string url = "file:" + file_.part();
  int error = avformat_alloc_output_context2(&output, nullptr, "mp4", url.c_str());
  output_.reset(output);
  if (error < 0) {
    return failure("mp4", error);
  }
  if ((output->oformat->flags & AVFMT_GLOBALHEADER) != 0) {
    codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  }
  error = avcodec_open2(codec_.get(), encoder_, options.address());
  if (error < 0) {
    return failure(encoder_->name, error);
  }
  stream_ = avformat_new_stream(output, nullptr);
  stream_->time_base = AVRational{1, kTicks};
  stream_->avg_frame_rate = codec_->framerate;
  avcodec_parameters_from_context(stream_->codecpar, codec_.get());
  frame_->format = codec_->pix_fmt;
  frame_->width = width;
  frame_->height = height;
  frame_->colorspace = codec_->colorspace;
  frame_->color_range = codec_->color_range;
  error = av_frame_get_buffer(frame_.get(), 0);
  sws_.reset(sws_getContext(width, height, AV_PIX_FMT_BGR24, width, height, AV_PIX_FMT_YUV420P,
                            SWS_BILINEAR, nullptr, nullptr, nullptr));
  if (error < 0 || !sws_) {
    return failure("frame", error < 0 ? error : AVERROR(ENOSYS));
  }
  const int* const matrix = sws_getCoefficients(SWS_CS_ITU709);
  sws_setColorspaceDetails(sws_.get(), matrix, 1, matrix, 0, 0, 1 << 16, 1 << 16);
  error = avio_open(&output->pb, url.c_str(), AVIO_FLAG_WRITE);
  if (error < 0) {
    return failure("open", error);
  }
  AvOptions container;
  container.set("movflags", "+faststart");
  error = avformat_write_header(output, container.address());
  return error < 0 ? failure("header", error) : Status();
}

Status Mp4Writer::encode(const AVFrame* frame) {
  AVRational ticks{1, kTicks};
  if (frame != nullptr) {
    frame_->pts = av_rescale_q(frame_->pts, ticks, codec_->time_base);
  }
  int error = avcodec_send_frame(codec_.get(), frame);
  if (error < 0) {
    return failure("encoder", error);
  }
  for (;;) {
    error = avcodec_receive_packet(codec_.get(), packet_.get());
    if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) {
      return Status();
    }
    if (error < 0) {
      return failure("encoder", error);
    }
    packet_->stream_index = stream_->index;
    av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
    // The muxer takes a picture's duration from its successor; this is the last one's.
    packet_->duration = av_rescale_q(step_, ticks, stream_->time_base);
    error = av_interleaved_write_frame(output_.get(), packet_.get());
    if (error >= 0 && output_->pb->error < 0) {
      error = output_->pb->error;  // buffered writes fail later than they are asked for
    }
    if (error < 0) {
      return failure("write", error);
    }
  }
}

Status Mp4Writer::finish(bool whole) {
  if (!file_.is_open()) {
    return Status();
  }
  Status status;
  if (codec_ && output_ && output_->pb != nullptr) {
    status = encode(nullptr);
    if (status.ok()) {
      avio_flush(output_->pb);
      int error = av_write_trailer(output_.get());
      error = error < 0 ? error : output_->pb->error;
      const int closed = avio_closep(&output_->pb);
      error = error < 0 ? error : closed;
      status = error < 0 ? failure("index", error) : Status();
    }
  }
  const bool any = last_pts_ >= 0;
  output_.reset();
  codec_.reset();
  if (status.ok() && any && whole) {
    return file_.commit();
  }
  if (status.ok() && any) {
    status =
        Status(Code::kSource, path_ + ": is incomplete; what was written is in " + file_.part());
  }
  if (!any) {
    file_.discard();
  }
  file_.close();
  return status;
}

Status Mp4Writer::failure(const char* doing, int error) const {
  return Status(Code::kCannotWrite, path_ + ": " + av_reason(error) + " (" + doing +
                                        "); what was written is in " + file_.part());
}

}  // namespace posewire
