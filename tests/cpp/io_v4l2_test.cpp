// SPDX-License-Identifier: Apache-2.0
// The camera source against a played kernel: formats, damaged buffers, unplugging, silence, stop().
#include <gmock/gmock.h>
#include <linux/videodev2.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <thread>

#include "io/v4l2.h"
#include "io_clips.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;

// What a test sets up and looks at; it outlives the device, which belongs to the source.
struct Camera {
  int open_error = 0;
  std::uint32_t capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
  std::vector<std::uint32_t> formats{V4L2_PIX_FMT_YUYV};
  std::uint32_t width = 64, height = 48, padding = 0;  // padding: bytes behind each row
  int busy = 0;                                        // error of REQBUFS
  struct Picture {
    std::string bytes;
    std::uint32_t flags = 0;
  };
  std::deque<Picture> pictures;  // what comes; then silence, or `after`
  int after = 0;                 // error of DQBUF when all have come

  std::uint32_t chosen = 0;
  double rate = 0.0;
  int opened = 0, closed = 0, maps = 0, unmaps = 0;
  std::deque<std::uint32_t> queued;
  std::atomic<bool> streaming{false};
};

class PlayedDevice final : public V4l2Device {
 public:
  explicit PlayedDevice(Camera* camera) : camera_(camera) {}

  int open(const char*) override {
    ++camera_->opened;
    return -camera_->open_error;
  }
  int control(unsigned long request, void* argument) override {
    switch (request) {
      case VIDIOC_QUERYCAP:
        static_cast<v4l2_capability*>(argument)->capabilities = camera_->capabilities;
        return 0;
      case VIDIOC_ENUM_FMT: {
        auto* const entry = static_cast<v4l2_fmtdesc*>(argument);
        if (entry->index >= camera_->formats.size()) {
          return -EINVAL;
        }
        entry->pixelformat = camera_->formats[entry->index];
        return 0;
      }
      case VIDIOC_G_FMT:
      case VIDIOC_S_FMT:
        return format(request == VIDIOC_S_FMT, &static_cast<v4l2_format*>(argument)->fmt.pix);
      case VIDIOC_S_PARM: {
        const auto& frame = static_cast<v4l2_streamparm*>(argument)->parm.capture.timeperframe;
        camera_->rate = static_cast<double>(frame.denominator) / frame.numerator;
        return 0;
      }
      case VIDIOC_REQBUFS:
        static_cast<v4l2_requestbuffers*>(argument)->count = 3;  // fewer than asked for
        return -camera_->busy;
      case VIDIOC_QUERYBUF:
        static_cast<v4l2_buffer*>(argument)->length = sizeof memory_[0];
        static_cast<v4l2_buffer*>(argument)->m.offset = static_cast<v4l2_buffer*>(argument)->index;
        return 0;
      case VIDIOC_QBUF:
        camera_->queued.push_back(static_cast<v4l2_buffer*>(argument)->index);
        return 0;
      case VIDIOC_DQBUF:
        return dequeue(static_cast<v4l2_buffer*>(argument));
      case VIDIOC_STREAMON:
        camera_->streaming = true;
        return 0;
      case VIDIOC_STREAMOFF:
        camera_->streaming = false;
        return 0;
      default:
        ADD_FAILURE() << "unexpected call " << request;
        return -ENOTTY;
    }
  }
  void* map(std::size_t, std::size_t offset) override {
    ++camera_->maps;
    return memory_[offset];
  }
  void unmap(void*, std::size_t) override { ++camera_->unmaps; }
  int wait(int timeout_ms) override {
    if (camera_->pictures.empty() && camera_->after == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(timeout_ms));
      return 0;
    }
    return 1;
  }
  void close() override { ++camera_->closed; }

 private:
  int format(bool set, v4l2_pix_format* pix) {
    if (set) {
      camera_->chosen = pix->pixelformat;
      camera_->width = pix->width / 16 * 16;  // a driver rounds
      camera_->height = pix->height;
    }
    pix->width = camera_->width;
    pix->height = camera_->height;
    pix->bytesperline = camera_->chosen == V4L2_PIX_FMT_YUYV ? camera_->width * 2 + camera_->padding
                                                             : camera_->padding;
    return 0;
  }

  int dequeue(v4l2_buffer* buffer) {
    if (camera_->pictures.empty()) {
      return -(camera_->after == 0 ? EAGAIN : camera_->after);
    }
    if (camera_->queued.empty()) {
      ADD_FAILURE() << "the source kept the buffers";
      return -EIO;
    }
    const Camera::Picture picture = camera_->pictures.front();
    camera_->pictures.pop_front();
    buffer->index = camera_->queued.front();
    camera_->queued.pop_front();
    buffer->flags = picture.flags | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    const auto taken = std::chrono::duration_cast<std::chrono::microseconds>(
        (std::chrono::steady_clock::now() - std::chrono::milliseconds(30)).time_since_epoch());
    buffer->timestamp.tv_sec = taken.count() / 1000000;
    buffer->timestamp.tv_usec = taken.count() % 1000000;
    buffer->bytesused = static_cast<std::uint32_t>(picture.bytes.size());
    std::memcpy(memory_[buffer->index], picture.bytes.data(), picture.bytes.size());
    return 0;
  }

  Camera* const camera_;
  char memory_[3][1 << 20];
};

std::unique_ptr<Source> source_on(Camera* camera, const std::string& query = "",
                                  int timeout_ms = 1000) {
  SourceOptions options;
  options.camera = "door";
  options.uri = "v4l2:/dev/video0" + query;
  options.timeout_ms = timeout_ms;
  return make_v4l2_on(options, std::make_unique<PlayedDevice>(camera));
}

// Y from left to right, neutral chroma.
std::string yuyv(int width, int height, int padding = 0) {
  std::string bytes;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      bytes += static_cast<char>(16 + x);
      bytes += static_cast<char>(128);
    }
    bytes.append(static_cast<std::size_t>(padding), '\x7f');
  }
  return bytes;
}

std::string jpeg(int width, int height) {
  std::vector<unsigned char> bytes;
  cv::imencode(".jpg", cv::Mat(height, width, CV_8UC3, cv::Scalar(200, 100, 50)), bytes);
  return std::string(bytes.begin(), bytes.end());
}

TEST(V4l2, PicturesWithTheirTimeOfCapture) {
  Camera camera;
  camera.padding = 64;
  for (int i = 0; i < 10; ++i) {
    camera.pictures.push_back({yuyv(64, 48, 64)});
  }
  {
    const auto source = source_on(&camera, "?fps=15");
    source->open();
    EXPECT_TRUE(source->live());
    EXPECT_NEAR(camera.rate, 15.0, 0.01);
    Frame frame;
    Status status;
    for (int i = 0; i < 10; ++i) {
      ASSERT_EQ(source->read(&frame, &status), Read::kFrame) << status.what();
      EXPECT_EQ(frame.image.width, 64);
      EXPECT_EQ(frame.image.height, 48);
      EXPECT_NEAR(frame.image.row(47)[3 * 60], 1.164 * 60, 2);
      const auto age = std::chrono::steady_clock::now() - frame.t_arrival;
      EXPECT_GE(age, std::chrono::milliseconds(30));
      EXPECT_GE(std::chrono::system_clock::now() - frame.t_capture, std::chrono::milliseconds(29));
    }
  }
  EXPECT_FALSE(camera.streaming);
  EXPECT_EQ(camera.maps, 3);
  EXPECT_EQ(camera.unmaps, 3);
  EXPECT_EQ(camera.closed, 1);
}

TEST(V4l2, MjpgForLargePicturesRawForSmall) {
  Camera camera;
  camera.formats = {V4L2_PIX_FMT_H264, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};
  auto source = source_on(&camera, "?width=1280&height=720");
  source->open();
  EXPECT_EQ(camera.chosen, V4L2_PIX_FMT_MJPEG);
  camera.pictures.push_back({jpeg(1280, 720)});
  Frame frame;
  Status status;
  ASSERT_EQ(source->read(&frame, &status), Read::kFrame) << status.what();
  EXPECT_EQ(frame.image.width, 1280);
  EXPECT_NEAR(frame.image.row(5)[15], 200, 4);
  source = source_on(&camera, "?width=650&height=470");
  source->open();
  EXPECT_EQ(camera.chosen, V4L2_PIX_FMT_YUYV);
  EXPECT_EQ(camera.width, 640U);  // what the driver made of it
}

TEST(V4l2, DamagedBuffersArePassedOverAndCounted) {
  Camera camera;
  const std::string good = yuyv(64, 48);
  for (int i = 0; i < 50; ++i) {
    camera.pictures.push_back({good, i % 2 == 0 ? V4L2_BUF_FLAG_ERROR : 0U});
    camera.pictures.push_back({good.substr(0, 100)});
    camera.pictures.push_back({""});
  }
  camera.after = EIO;
  const auto source = source_on(&camera);
  source->open();
  const Drained got = drain(source.get());
  EXPECT_EQ(got.images.size(), 25U);
  EXPECT_EQ(source->damaged(), 125U);
  EXPECT_EQ(got.last, Read::kFailed);
}

TEST(V4l2, ACutOffJpegIsDamaged) {
  Camera camera;
  camera.formats = {V4L2_PIX_FMT_MJPEG};
  const std::string whole = jpeg(64, 48);
  camera.pictures = {{whole}, {whole.substr(0, whole.size() - 20)}, {"no JPEG"}, {whole}};
  camera.after = EIO;
  const auto source = source_on(&camera);
  source->open();
  EXPECT_EQ(drain(source.get()).images.size(), 2U);
  EXPECT_EQ(source->damaged(), 2U);
}

TEST(V4l2, UnpluggedAndBackAgain) {
  Camera camera;
  camera.pictures.push_back({yuyv(64, 48)});
  camera.after = ENODEV;
  const auto source = source_on(&camera);
  source->open();
  const Drained got = drain(source.get());
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_EQ(got.status.what(), "camera door: /dev/video0: was unplugged");
  EXPECT_EQ(camera.closed, 1);
  camera.queued.clear();
  camera.pictures.push_back({yuyv(64, 48)});
  source->open();
  EXPECT_EQ(drain(source.get()).images.size(), 1U);
}

TEST(V4l2, SilenceTimesOut) {
  Camera camera;
  const auto source = source_on(&camera, "", 300);
  source->open();
  const Drained got = drain(source.get());
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_THAT(got.status.what(), HasSubstr("no picture for 300 ms"));
}

TEST(V4l2, StopEndsARead) {
  Camera camera;
  const auto source = source_on(&camera, "", 60000);
  source->open();
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    source->stop();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(drain(source.get()).last, Read::kStopped);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  stopper.join();
}

TEST(V4l2, WhatCannotBeOpenedIsSaid) {
  const auto message = [](auto&& change) {
    Camera camera;
    change(&camera);
    const std::string what = error_of(Code::kSource, [&] { source_on(&camera)->open(); });
    EXPECT_EQ(camera.maps, camera.unmaps);
    EXPECT_EQ(camera.closed, camera.open_error == 0 ? 1 : 0);
    return what;
  };
  EXPECT_EQ(message([](Camera* c) { c->open_error = ENOENT; }),
            "camera door: /dev/video0: no such device");
  EXPECT_THAT(message([](Camera* c) { c->open_error = EACCES; }), HasSubstr("group video"));
  EXPECT_THAT(message([](Camera* c) { c->capabilities = V4L2_CAP_META_CAPTURE; }),
              HasSubstr("does not deliver video"));
  EXPECT_THAT(message([](Camera* c) { c->formats = {V4L2_PIX_FMT_H264}; }),
              HasSubstr("no pixel format"));
  EXPECT_THAT(message([](Camera* c) { c->busy = EBUSY; }), HasSubstr("another program"));
}

TEST(V4l2, AFileIsNoCamera) {
  EXPECT_THAT(error_of(Code::kSource, [] { opened("v4l2:/dev/null"); }),
              HasSubstr("/dev/null: is not a camera"));
}

}  // namespace
}  // namespace posewire
