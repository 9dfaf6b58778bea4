// SPDX-License-Identifier: Apache-2.0
// RTSP and HTTP against servers in this process (scripted sockets on the loopback) and, for RTSP
// that really streams, GStreamer's server in tests/io/rtsp_server.py.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <thread>

#include "io/mat.h"
#include "io_clips.h"
#include "loopback_server.h"

namespace posewire {
namespace {

using Clock = std::chrono::steady_clock;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::string jpeg(int shade, int width = 64, int height = 48) {
  std::vector<unsigned char> bytes;
  cv::imencode(".jpg", cv::Mat(height, width, CV_8UC3, cv::Scalar::all(shade)), bytes);
  return std::string(bytes.begin(), bytes.end());
}

std::string mjpeg_part(const std::string& picture) {
  return "--cut\r\nContent-Type: image/jpeg\r\nContent-Length: " + std::to_string(picture.size()) +
         "\r\n\r\n" + picture + "\r\n";
}

const char kMjpegHead[] =
    "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n";

SourceOptions patient(int timeout_ms) {
  SourceOptions options;
  options.timeout_ms = timeout_ms;
  return options;
}

// ---- silence ------------------------------------------------------------------------------------

// For "rtsp", "rtsps", "http", "https": a peer that accepts and then says nothing.
class SilentPeer : public ::testing::TestWithParam<const char*> {
 protected:
  Server server_{[](Server* self, int fd) { self->hold(fd); }};
  std::string uri() const {
    return std::string(GetParam()) + "://u:secret@" + server_.host() + "/x";
  }
};

TEST_P(SilentPeer, TimesOut) {
  const auto begin = Clock::now();
  const std::string what = error_of(Code::kSource, [&] { opened(uri(), patient(600)); });
  EXPECT_LT(seconds_since(begin), 4.0);
  EXPECT_GT(seconds_since(begin), 0.4);
  EXPECT_THAT(what, HasSubstr("camera door"));
  EXPECT_THAT(what, HasSubstr("600 ms"));
  EXPECT_THAT(what, Not(HasSubstr("secret")));
}

TEST_P(SilentPeer, StopEndsOpen) {
  SourceOptions options = patient(60000);
  options.uri = uri();
  const auto source = make_source(options);
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    source->stop();
  });
  const auto begin = Clock::now();
  EXPECT_THAT(error_of(Code::kSource, [&] { source->open(); }), HasSubstr("stopped"));
  EXPECT_LT(seconds_since(begin), 4.0);
  stopper.join();
}

INSTANTIATE_TEST_SUITE_P(Schemes, SilentPeer, ::testing::Values("rtsp", "rtsps", "http", "https"),
                         [](const auto& info) { return std::string(info.param); });

// ---- HTTP ---------------------------------------------------------------------------------------

TEST(Http, MjpegStreams) {
  Server server([](Server* self, int fd) {
    self->hear(fd);
    bool on = Server::say(fd, kMjpegHead);
    for (int i = 0; on && !self->ended(); ++i) {
      // From the hundredth on another size: a camera that was set to another resolution.
      on = Server::say(fd, mjpeg_part(i < 100 ? jpeg(100) : jpeg(200, 96, 32)));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  const auto source = opened("http://" + server.host() + "/video", patient(3000));
  EXPECT_TRUE(source->live());
  Frame frame;
  Status status;
  int first = 0, second = 0;
  while (second < 5) {
    ASSERT_EQ(source->read(&frame, &status), Read::kFrame) << status.what();
    EXPECT_FALSE(frame.t_media_ms.has_value());
    const bool changed = frame.image.width == 96;
    EXPECT_EQ(frame.image.height, changed ? 32 : 48);
    EXPECT_NEAR(frame.image.row(10)[30], changed ? 200 : 100, 8);
    (changed ? second : first) += 1;
    EXPECT_LT(std::chrono::steady_clock::now() - frame.t_arrival, std::chrono::seconds(1));
  }
  EXPECT_GT(first, 10);
}

TEST(Http, ACameraThatFallsSilentIsAFailure) {
  Server server([](Server* self, int fd) {
    self->hear(fd);
    Server::say(fd, kMjpegHead);
    for (int i = 0; i < 100; ++i) {
      Server::say(fd, mjpeg_part(jpeg(100)));
    }
    self->hold(fd);
  });
  const auto source = opened("http://" + server.host() + "/video", patient(700));
  const auto begin = Clock::now();
  const Drained got = drain(source.get());
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_THAT(got.status.what(), HasSubstr("nothing came for 700 ms"));
  EXPECT_GT(got.images.size(), 50U);
  EXPECT_LT(seconds_since(begin), 5.0);
}

TEST(Http, StopEndsARead) {
  Server server([](Server* self, int fd) {
    self->hear(fd);
    Server::say(fd, kMjpegHead);
    for (int i = 0; i < 100; ++i) {
      Server::say(fd, mjpeg_part(jpeg(100)));
    }
    self->hold(fd);
  });
  const auto source = opened("http://" + server.host() + "/video", patient(60000));
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    source->stop();
  });
  const auto begin = Clock::now();
  EXPECT_EQ(drain(source.get()).last, Read::kStopped);
  EXPECT_LT(seconds_since(begin), 4.0);
  stopper.join();
}

TEST(Http, ACameraThatHangsUpIsAFailure) {
  Server server([](Server* self, int fd) {
    self->hear(fd);
    Server::say(fd, kMjpegHead);
    for (int i = 0; i < 60; ++i) {
      Server::say(fd, mjpeg_part(jpeg(100)));
    }
  });
  const auto source = opened("http://" + server.host() + "/video", patient(3000));
  const Drained got = drain(source.get());
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_THAT(got.status.what(), AnyOf(HasSubstr("stream ended"), HasSubstr("broke off")));
}

TEST(Http, AFileEndsOrIsCutOff) {
  TempFolder folder;
  make_clip(folder / "a.mp4", 20, 320, 240);
  const std::string whole = bytes_of_file(folder / "a.mp4");
  for (const double share : {1.0, 0.7}) {
    Server server([&](Server* self, int fd) {
      const std::string request = self->hear(fd);
      const std::size_t size = whole.size();
      std::size_t from = 0;
      if (const std::size_t range = request.find("bytes="); range != std::string::npos) {
        from = std::strtoul(request.c_str() + range + 6, nullptr, 10);
      }
      Server::say(fd,
                  "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nAccept-Ranges: bytes\r\n"
                  "Content-Type: video/mp4\r\nContent-Length: " +
                      std::to_string(size - from) + "\r\nContent-Range: bytes " +
                      std::to_string(from) + "-" + std::to_string(size - 1) + "/" +
                      std::to_string(size) + "\r\n\r\n");
      const auto end = static_cast<std::size_t>(share * static_cast<double>(size));
      Server::say(fd, from < end ? whole.substr(from, end - from) : "");
    });
    const auto source = opened("http://" + server.host() + "/a.mp4", patient(3000));
    EXPECT_FALSE(source->live());
    const Drained got = drain(source.get());
    EXPECT_EQ(got.last, share == 1.0 ? Read::kEnd : Read::kFailed) << got.status.what();
    EXPECT_EQ(got.images.size() == 20U, share == 1.0);
  }
}

TEST(Http, WhatTheServerSaysIsReported) {
  for (const char* line : {"401 Unauthorized", "404 Not Found"}) {
    Server server([&](Server* self, int fd) {
      self->hear(fd);
      Server::say(fd, std::string("HTTP/1.1 ") + line + "\r\nContent-Length: 0\r\n\r\n");
    });
    EXPECT_THAT(error_of(Code::kSource, [&] { opened("http://" + server.host() + "/v"); }),
                HasSubstr(std::string(line).substr(0, 3)));
  }
}

TEST(Http, APlaylistOpensNoLocalFile) {
  TempFolder folder;
  make_clip(folder / "secret.mp4", 5);
  remux(folder / "secret.mp4", folder / "secret.ts", "mpegts");
  Server server([&](Server* self, int fd) {
    self->hear(fd);
    const std::string list =
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://" +
        (folder / "secret.ts") + "\n#EXT-X-ENDLIST\n";
    Server::say(
        fd, "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\nContent-Length: " +
                std::to_string(list.size()) + "\r\n\r\n" + list);
  });
  error_of(Code::kSource, [&] { opened("http://" + server.host() + "/list.m3u8", patient(1500)); });
}

TEST(Http, GarbageIsRefusedInBoundedTime) {
  cv::RNG random(7);
  for (int seed = 0; seed < 8; ++seed) {
    Server server([&](Server* self, int fd) {
      self->hear(fd);
      Server::say(fd, seed % 2 == 0 ? kMjpegHead : "HTTP/1.0 200 OK\r\n\r\n");
      std::string noise(4096, '\0');
      for (int block = 0; block < 200 && !self->ended(); ++block) {
        for (char& c : noise) {
          c = static_cast<char>(random.uniform(0, 256));
        }
        if (!Server::say(fd, noise)) {
          return;
        }
      }
    });
    const auto begin = Clock::now();
    SourceOptions options = patient(1000);
    options.uri = "http://" + server.host() + "/x";
    const auto source = make_source(options);
    try {
      source->open();
      EXPECT_EQ(drain(source.get(), 1000).last, Read::kFailed);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(Code::kSource));
    }
    EXPECT_LT(seconds_since(begin), 15.0);
  }
}

// ---- RTSP ---------------------------------------------------------------------------------------

TEST(Rtsp, RefusedConnection) {
  const auto begin = Clock::now();
  EXPECT_THAT(error_of(Code::kSource, [] { opened("rtsp://u:secret@127.0.0.1:1/x"); }),
              testing::AllOf(HasSubstr("camera door: rtsp://***@127.0.0.1:1/x: "),
                             HasSubstr("onnection refused")));
  EXPECT_LT(seconds_since(begin), 3.0);
}

TEST(Rtsp, RefusedByTheServer) {
  for (const char* line : {"401 Unauthorized", "404 Not Found", "454 Session Not Found"}) {
    Server server([&](Server* self, int fd) {
      for (int sequence = 1;; ++sequence) {
        const std::string request = self->hear(fd);
        if (request.empty()) {
          return;
        }
        const bool options = request.compare(0, 7, "OPTIONS") == 0;
        Server::say(fd, std::string("RTSP/1.0 ") + (options ? "200 OK" : line) + "\r\nCSeq: " +
                            std::to_string(sequence) + "\r\nPublic: DESCRIBE\r\n\r\n");
      }
    });
    EXPECT_THAT(error_of(Code::kSource, [&] { opened("rtsp://" + server.host() + "/x"); }),
                AnyOf(HasSubstr("401"), HasSubstr("404"), HasSubstr("4XX")))
        << line;
  }
}

// GStreamer's server in a child of its own, serving an endless /cam and `clip` as /clip. Without it
// here uri() is empty and the tests are skipped.
class RtspChild {
 public:
  explicit RtspChild(const std::string& clip) {
    int in[2], out[2];
    EXPECT_EQ(::pipe(in), 0);
    EXPECT_EQ(::pipe(out), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      for (int fd = 3; fd < 64; ++fd) {
        ::close(fd);
      }
      ::execl("/usr/bin/python3", "python3", POSEWIRE_TESTS_DIR "/io/rtsp_server.py", clip.c_str(),
              nullptr);
      ::_exit(77);
    }
    ::close(in[0]);
    ::close(out[1]);
    input_ = in[1];
    std::FILE* const lines = ::fdopen(out[0], "r");
    int port = 0;
    if (std::fscanf(lines, "port %d", &port) == 1) {
      uri_ = "rtsp://127.0.0.1:" + std::to_string(port);
    }
    std::fclose(lines);
  }
  ~RtspChild() {
    send(SIGCONT);
    ::close(input_);
    ::waitpid(pid_, nullptr, 0);
  }
  void send(int signal) const { ::kill(pid_, signal); }
  const std::string& uri() const { return uri_; }

 private:
  pid_t pid_ = -1;
  int input_ = -1;
  std::string uri_;
};

class RtspReal : public ::testing::Test {
 protected:
  void SetUp() override {
    make_clip(folder_ / "clip.mp4", 50, 320, 240);
    server_ = std::make_unique<RtspChild>(folder_ / "clip.mp4");
    if (server_->uri().empty()) {
      GTEST_SKIP() << "needs /usr/bin/python3 with gir1.2-gst-rtsp-server-1.0 and python3-gi";
    }
  }
  TempFolder folder_;
  std::unique_ptr<RtspChild> server_;
};

TEST_F(RtspReal, H264IsWhatWasSentAndItsEndIsAFailure) {
  const auto source = opened(server_->uri() + "/clip", patient(4000));
  EXPECT_TRUE(source->live());
  const Drained got = drain(source.get());
  const Drained sent = drain(opened(folder_ / "clip.mp4").get());
  EXPECT_EQ(got.last, Read::kFailed) << "a camera does not end";
  ASSERT_GT(got.images.size(), 20U) << got.status.what();
  EXPECT_EQ(source->damaged(), 0U);
  // From the end, where both agree on what is which: in order, and not one bit lost on the way.
  for (std::size_t i = 1; i <= 20; ++i) {
    EXPECT_EQ(got.images[got.images.size() - i].bytes, sent.images[sent.images.size() - i].bytes)
        << i;
  }
}

TEST_F(RtspReal, StallAndDeathAreFailures) {
  const auto source = opened(server_->uri() + "/cam", patient(5000));
  Drained got = drain(source.get(), 30);
  ASSERT_EQ(got.images.size(), 30U) << got.status.what();
  EXPECT_EQ(got.images[0].width, 320);
  EXPECT_EQ(got.images[0].height, 240);
  EXPECT_NE(got.images[0].bytes, got.images[20].bytes);
  const auto stalled = opened(server_->uri() + "/cam", patient(1200));
  ASSERT_EQ(drain(stalled.get(), 3).images.size(), 3U);
  server_->send(SIGSTOP);
  const auto begin = Clock::now();
  got = drain(stalled.get());
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_THAT(got.status.what(), HasSubstr("nothing came for 1200 ms"));
  EXPECT_LT(seconds_since(begin), 6.0);
  server_->send(SIGKILL);
  EXPECT_EQ(drain(source.get()).last, Read::kFailed);
}

}  // namespace
}  // namespace posewire
