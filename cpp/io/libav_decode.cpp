// SPDX-License-Identifier: Apache-2.0
#include "io/libav_decode.h"

#include <array>
#include <cstring>
#include <opencv2/core.hpp>
#include <utility>

#include "io/mat.h"

namespace posewire {
namespace {

// A display matrix reduced to what turns a picture by quarters: [x'; y'] = [a c; b d] [x; y].
struct Turn {
  bool transpose = false, flip_x = false, flip_y = false;
  bool any() const noexcept { return transpose || flip_x || flip_y; }
};

// Nine 16.16 numbers, a b u c d v x y w (libavutil/display.h). Other angles than quarters are left
// alone: phones write quarters only.
Turn turn_from(const std::uint8_t* bytes) {
  std::array<std::int32_t, 9> m{};
  std::memcpy(m.data(), bytes, sizeof m);
  const std::int32_t a = m[0], b = m[1], c = m[3], d = m[4];
  Turn turn;
  if (b == 0 && c == 0) {
    turn.flip_x = a < 0;
    turn.flip_y = d < 0;
  } else if (a == 0 && d == 0) {
    turn.transpose = true;
    turn.flip_x = c < 0;
    turn.flip_y = b < 0;
  }
  return turn;
}

Turn turn_of(const AVFrame& frame, const AVStream& stream) {
  constexpr std::size_t kBytes = 9 * sizeof(std::int32_t);
  const AVFrameSideData* of_frame = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  if (of_frame != nullptr && of_frame->size >= kBytes) {
    return turn_from(of_frame->data);
  }
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
  const AVPacketSideData* of_stream =
      av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  if (of_stream != nullptr && of_stream->size >= kBytes) {
    return turn_from(of_stream->data);
  }
#else
  for (int i = 0; i < stream.nb_side_data; ++i) {
    const AVPacketSideData& data = stream.side_data[i];
    if (data.type == AV_PKT_DATA_DISPLAYMATRIX && static_cast<std::size_t>(data.size) >= kBytes) {
      return turn_from(data.data);
    }
  }
#endif
  return Turn();
}

// The "J" formats are the plain ones with a full range; swscale warns about them at every frame.
std::pair<AVPixelFormat, bool> plain_format(const AVFrame& frame) {
  const bool full = frame.color_range == AVCOL_RANGE_JPEG;
  switch (frame.format) {
    case AV_PIX_FMT_YUVJ420P:
      return {AV_PIX_FMT_YUV420P, true};
    case AV_PIX_FMT_YUVJ422P:
      return {AV_PIX_FMT_YUV422P, true};
    case AV_PIX_FMT_YUVJ444P:
      return {AV_PIX_FMT_YUV444P, true};
    case AV_PIX_FMT_YUVJ440P:
      return {AV_PIX_FMT_YUV440P, true};
    default:
      return {static_cast<AVPixelFormat>(frame.format), full};
  }
}

int matrix_of(const AVFrame& frame) {
  switch (frame.colorspace) {
    case AVCOL_SPC_BT709:
      return SWS_CS_ITU709;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
      return SWS_CS_BT2020;
    case AVCOL_SPC_UNSPECIFIED:  // the usual guess
      return frame.height >= 720 && frame.format != AV_PIX_FMT_YUVJ420P ? SWS_CS_ITU709
                                                                        : SWS_CS_ITU601;
    default:
      return SWS_CS_ITU601;
  }
}

}  // namespace

int VideoDecoder::open(const AVStream* stream, bool low_delay) {
  stream_ = stream;
  const AVCodec* const codec = avcodec_find_decoder(stream->codecpar->codec_id);
  if (codec == nullptr) {
    return AVERROR_DECODER_NOT_FOUND;
  }
  codec_.reset(avcodec_alloc_context3(codec));
  frame_.reset(av_frame_alloc());
  if (!codec_ || !frame_) {
    return AVERROR(ENOMEM);
  }
  const int error = avcodec_parameters_to_context(codec_.get(), stream->codecpar);
  if (error < 0) {
    return error;
  }
  codec_->pkt_timebase = stream->time_base;
  codec_->thread_count = 2;  // the cores belong to the inference
  // Not FF_THREAD_FRAME: a picture then is handed out while its own thread may still be noting
  // damage (with FFmpeg 5.1, under load, 38 of 240 cuts went unnoticed).
  codec_->thread_type = FF_THREAD_SLICE;
  if (low_delay) {
    codec_->flags |= AV_CODEC_FLAG_LOW_DELAY;
  }
  codec_->err_recognition = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER;
  return avcodec_open2(codec_.get(), codec, nullptr);
}

int VideoDecoder::send(const AVPacket* packet) { return avcodec_send_packet(codec_.get(), packet); }

int VideoDecoder::receive() { return avcodec_receive_frame(codec_.get(), frame_.get()); }

bool VideoDecoder::damaged() const noexcept {
  return frame_->decode_error_flags != 0 || (frame_->flags & AV_FRAME_FLAG_CORRUPT) != 0;
}

std::optional<double> VideoDecoder::position_ms() const noexcept {
  if (frame_->best_effort_timestamp == AV_NOPTS_VALUE) {
    return std::nullopt;
  }
  const std::int64_t start = stream_->start_time == AV_NOPTS_VALUE ? 0 : stream_->start_time;
  return static_cast<double>(frame_->best_effort_timestamp - start) * av_q2d(stream_->time_base) *
         1000.0;
}

int VideoDecoder::to_image(Image* image) {
  const Turn turn = turn_of(*frame_, *stream_);
  const int error = convert(turn.any() ? &upright_ : image);
  if (error < 0 || !turn.any()) {
    return error;
  }
  const cv::Mat coded = mat_of(&upright_);
  image->resize(turn.transpose ? coded.rows : coded.cols, turn.transpose ? coded.cols : coded.rows);
  cv::Mat out = mat_of(image);
  if (turn.transpose) {
    cv::transpose(coded, out);
  } else {
    coded.copyTo(out);
  }
  if (turn.flip_x || turn.flip_y) {
    cv::flip(out, out, turn.flip_x && turn.flip_y ? -1 : turn.flip_x ? 1 : 0);
  }
  return 0;
}

int VideoDecoder::convert(Image* image) {
  const int width = frame_->width, height = frame_->height;
  const auto [format, full_range] = plain_format(*frame_);
  // Remade only when size or format change; the size of every frame is its own.
  sws_.reset(sws_getCachedContext(sws_.release(), width, height, format, width, height,
                                  AV_PIX_FMT_BGR24, SWS_BILINEAR, nullptr, nullptr, nullptr));
  if (!sws_) {
    return AVERROR(ENOSYS);
  }
  const int* const matrix = sws_getCoefficients(matrix_of(*frame_));
  sws_setColorspaceDetails(sws_.get(), matrix, full_range ? 1 : 0, matrix, 1, 0, 1 << 16, 1 << 16);
  image->resize(width, height);
  // swscale's vector code writes past the end of the last row when its bytes are no multiple of 16
  // (200 pixels: 600 bytes): it gets room, which is taken back without moving anything.
  const std::size_t bytes = image->bytes.size();
  image->bytes.resize(bytes + 128);
  std::uint8_t* const planes[4] = {image->bytes.data(), nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(image->stride_bytes), 0, 0, 0};
  const int rows =
      sws_scale(sws_.get(), frame_->data, frame_->linesize, 0, height, planes, strides);
  image->bytes.resize(bytes);
  return rows == height ? 0 : AVERROR_EXTERNAL;
}

}  // namespace posewire
