// SPDX-License-Identifier: Apache-2.0
// Clips and folders that the io tests make for themselves.
#pragma once

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

extern "C" {
#include <libavcodec/bsf.h>
}

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "io/libav.h"
#include "io/mat.h"
#include "io/sink.h"
#include "io/source.h"

namespace posewire {

class TempFolder {
 public:
  TempFolder() {
    char name[] = "/tmp/posewire-io-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    for (const std::string& name : names()) {
      ::unlink((*this / name).c_str());
      ::rmdir((*this / name).c_str());
    }
    ::rmdir(path_.c_str());
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    DIR* const folder = ::opendir(path_.c_str());
    while (const dirent* entry = ::readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") {
        found.push_back(name);
      }
    }
    ::closedir(folder);
    return found;
  }

 private:
  std::string path_;
};

inline std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline Skeleton stick() {
  return Skeleton{"stick",
                  {"head", "left_foot", "right_foot"},
                  {{0, 1}, {0, 2}},
                  {0, 2, 1},
                  {0.1F, 0.1F, 0.1F}};
}

inline Poses one_pose(float x, float y, float height) {
  Poses poses;
  poses.clear(3);
  Keypoint* const keypoints = poses.add(0.9F);
  keypoints[0] = {x, y, 0.9F};
  keypoints[1] = {x + 0.2F * height, y + height, 0.8F};
  keypoints[2] = {x - 0.2F * height, y + height, 0.1F};
  return poses;
}

// Everything that a source gives, or the failure.
struct Drained {
  std::vector<Image> images;
  std::vector<double> media_ms;
  Read last = Read::kFrame;
  Status status;
};

inline Drained drain(Source* source, std::size_t limit = 100000) {
  Drained result;
  Frame frame;
  while (result.images.size() < limit) {
    result.last = source->read(&frame, &result.status);
    if (result.last != Read::kFrame) {
      break;
    }
    result.images.push_back(frame.image);
    result.media_ms.push_back(frame.t_media_ms.value_or(-1.0));
  }
  return result;
}

inline std::unique_ptr<Source> opened(const std::string& uri, SourceOptions options = {}) {
  options.uri = uri;
  options.camera = "door";
  auto source = make_source(options);
  source->open();
  return source;
}

// A small moving clip by our own sink: what it writes, the source reads.
inline void make_clip(const std::string& path, int frames, int width = 160, int height = 120) {
  auto source = opened("synthetic:?people=2&frames=" + std::to_string(frames) +
                       "&width=" + std::to_string(width) + "&height=" + std::to_string(height));
  SinkOptions options;
  options.kind = "video";
  options.path = path;
  options.fps = 25.0;
  auto sink = make_sink(options);
  sink->open(stick());
  Frame frame;
  Status status;
  const Poses nobody;
  const std::string payload = "{}";
  while (source->read(&frame, &status) == Read::kFrame) {
    ASSERT_TRUE(sink->write({&frame, &nobody, &payload}).ok());
  }
  status = sink->close();
  ASSERT_TRUE(status.ok()) << status.what();
}

// The same coded pictures in another container: "avi", "h264", "matroska", "mpegts".
inline void remux(const std::string& from, const std::string& to, const char* format) {
  AVFormatContext* raw = nullptr;
  ASSERT_GE(avformat_open_input(&raw, from.c_str(), nullptr, nullptr), 0);
  const AvInput input(raw);
  ASSERT_GE(avformat_find_stream_info(raw, nullptr), 0);
  AVFormatContext* output = nullptr;
  ASSERT_GE(avformat_alloc_output_context2(&output, nullptr, format, to.c_str()), 0);
  AVStream* const stream = avformat_new_stream(output, nullptr);
  avcodec_parameters_copy(stream->codecpar, raw->streams[0]->codecpar);
  stream->codecpar->codec_tag = 0;
  stream->time_base = raw->streams[0]->time_base;
  stream->avg_frame_rate = stream->r_frame_rate = raw->streams[0]->avg_frame_rate;
  ASSERT_GE(avio_open(&output->pb, to.c_str(), AVIO_FLAG_WRITE), 0);
  ASSERT_GE(avformat_write_header(output, nullptr), 0);
  // AVI wants start codes, which MP4 does not have; the other muxers see to it themselves.
  AVBSFContext* filter = nullptr;
  ASSERT_GE(
      av_bsf_alloc(av_bsf_get_by_name(std::string(format) == "avi" ? "h264_mp4toannexb" : "null"),
                   &filter),
      0);
  avcodec_parameters_copy(filter->par_in, raw->streams[0]->codecpar);
  filter->time_base_in = raw->streams[0]->time_base;
  ASSERT_GE(av_bsf_init(filter), 0);
  const AvPacket packet(av_packet_alloc());
  while (av_read_frame(raw, packet.get()) >= 0) {
    ASSERT_GE(av_bsf_send_packet(filter, packet.get()), 0);
    ASSERT_GE(av_bsf_receive_packet(filter, packet.get()), 0);
    av_packet_rescale_ts(packet.get(), raw->streams[0]->time_base, stream->time_base);
    packet->stream_index = 0;
    packet->pos = -1;
    ASSERT_GE(av_interleaved_write_frame(output, packet.get()), 0);
  }
  av_bsf_free(&filter);
  ASSERT_GE(av_write_trailer(output), 0);
  avio_closep(&output->pb);
  avformat_free_context(output);
}

// Mean absolute difference of the green values.
inline double mean_difference(const Image& a, const Image& b) {
  return cv::mean(cv::abs(cv::Mat_<cv::Vec3s>(mat_of(a)) - cv::Mat_<cv::Vec3s>(mat_of(b))))[1];
}

// The message of the Error that a call throws; fails the test when it throws none or another code.
template <typename Call>
std::string error_of(Code code, Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

}  // namespace posewire
