// SPDX-License-Identifier: Apache-2.0
// Sources: the table's contract, addresses, synthetic.
#include <gmock/gmock.h>

#include <thread>

#include "io/uri.h"
#include "io_clips.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;

// ---- the contract of every row ------------------------------------------------------------------

struct Row {
  std::string scheme, good, absent;  // addresses; empty: cannot run here
};

class EverySource : public ::testing::TestWithParam<std::string> {
 protected:
  // A row without an entry here fails the test: a new one must say how it is tested.
  Row row() {
    const std::string scheme = GetParam();
    make_clip(folder_ / "clip.mp4", 12);
    if (scheme == "file") {
      return {scheme, "file:" + (folder_ / "clip.mp4"), "file:" + (folder_ / "absent.mp4")};
    }
    if (scheme == "synthetic") {
      return {scheme, "synthetic:?frames=12&width=160&height=120", ""};
    }
    if (scheme == "v4l2") {
      return {scheme, "", "v4l2:/dev/video-absent"};
    }
    if (scheme == "rtsp" || scheme == "http" || scheme == "https" || scheme == "rtsps") {
      return {scheme, "", scheme + "://127.0.0.1:1/nobody"};
    }
    ADD_FAILURE() << scheme << ": has no row in this test";
    return {};
  }
  TempFolder folder_;
};

TEST_P(EverySource, AbsentIsOneLineAboutTheCamera) {
  const Row row = this->row();
  if (row.absent.empty()) {
    GTEST_SKIP() << row.scheme << " cannot be absent";
  }
  const std::string what = error_of(Code::kSource, [&] { opened(row.absent); });
  EXPECT_THAT(what, ::testing::StartsWith("camera door: "));
  EXPECT_EQ(what.find('\n'), std::string::npos);
}

TEST_P(EverySource, StoppedBeforeOpenStaysStopped) {
  const Row row = this->row();
  SourceOptions options;
  options.uri = row.good.empty() ? row.absent : row.good;
  const auto source = make_source(options);
  source->stop();
  EXPECT_THAT(error_of(Code::kSource, [&] { source->open(); }), HasSubstr("stopped"));
}

TEST_P(EverySource, FramesThenEndAndAgain) {
  const Row row = this->row();
  if (row.good.empty()) {
    GTEST_SKIP() << row.scheme << " has no device or server here (io_stream_test, io_v4l2_test)";
  }
  const auto source = opened(row.good);
  EXPECT_FALSE(source->live());
  for (int round = 0; round < 2; ++round) {
    const Drained got = drain(source.get());
    EXPECT_EQ(got.last, Read::kEnd) << got.status.what();
    ASSERT_EQ(got.images.size(), 12U);
    EXPECT_EQ(got.images[0].width, 160);
    EXPECT_EQ(got.images[0].height, 120);
    EXPECT_GT(mean_difference(got.images.front(), got.images.back()), 0.5);  // it moves
    for (std::size_t i = 1; i < got.media_ms.size(); ++i) {
      EXPECT_NEAR(got.media_ms[i] - got.media_ms[i - 1], 40.0, 0.1);
    }
    EXPECT_EQ(source->damaged(), 0U);
    source->open();
  }
}

TEST_P(EverySource, StopEndsAPacedRead) {
  const Row row = this->row();
  if (row.good.empty()) {
    GTEST_SKIP() << row.scheme << " has no device or server here";
  }
  SourceOptions options;
  options.fps = 0.05;  // twenty seconds a frame
  const auto source = opened(row.good, options);
  Frame frame;
  Status status;
  ASSERT_EQ(source->read(&frame, &status), Read::kFrame);
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    source->stop();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(source->read(&frame, &status), Read::kStopped);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  stopper.join();
}

INSTANTIATE_TEST_SUITE_P(Table, EverySource, ::testing::ValuesIn(source_schemes()),
                         [](const auto& info) { return info.param; });

// ---- addresses ----------------------------------------------------------------------------------

TEST(SourceAddress, UnknownSchemeListsTheKnown) {
  SourceOptions options;
  options.uri = "gopher://x";
  const std::string what = error_of(Code::kConfig, [&] { make_source(options); });
  EXPECT_THAT(what, HasSubstr("unknown source \"gopher:\""));
  for (const std::string& scheme : source_schemes()) {
    EXPECT_THAT(what, HasSubstr(scheme));
  }
}

TEST(SourceAddress, Paths) {
  EXPECT_EQ(path_of("clip.mp4"), "clip.mp4");
  EXPECT_EQ(path_of("./a:b.mp4"), "./a:b.mp4");
  EXPECT_EQ(path_of("file:a:b.mp4"), "a:b.mp4");
  EXPECT_EQ(path_of("file:///tmp/a.mp4"), "/tmp/a.mp4");
  EXPECT_EQ(scheme_of("RTSP://h/x"), "rtsp");
  error_of(Code::kConfig, [] { path_of("file://host/a.mp4"); });
}

TEST(SourceAddress, UnknownAndBadKeysAreNamed) {
  const auto message = [](const std::string& uri) {
    return error_of(Code::kConfig, [&] {
      SourceOptions options;
      options.uri = uri;
      make_source(options);
    });
  };
  EXPECT_THAT(message("synthetic:?peple=5"), HasSubstr("unknown key \"peple\" (known: people"));
  EXPECT_THAT(message("synthetic:?people=many"), HasSubstr("people=many"));
  EXPECT_THAT(message("synthetic:?people=2.5"), HasSubstr("people"));
  EXPECT_THAT(message("synthetic:?people=1&people=2"), HasSubstr("twice"));
  EXPECT_THAT(message("synthetic:people=1"), HasSubstr("people=1"));
  EXPECT_THAT(message("v4l2:?width=640"), HasSubstr("device"));
  EXPECT_THAT(message("v4l2:/dev/video0?width=640"), HasSubstr("together"));
}

// ---- synthetic ----------------------------------------------------------------------------------

TEST(Synthetic, TheSeedDecides) {
  const auto last = [](const std::string& more) {
    return drain(opened("synthetic:?frames=5&width=96&height=80" + more).get()).images.back();
  };
  EXPECT_EQ(last("&seed=3").bytes, last("&seed=3").bytes);
  EXPECT_NE(last("&seed=3").bytes, last("&seed=4").bytes);
}

TEST(Synthetic, PacesAndLoops) {
  SourceOptions options;
  options.loop = true;
  const auto source = opened("synthetic:?frames=3&fps=50&width=64&height=64", options);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(drain(source.get(), 11).images.size(), 11U);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(took.count(), 0.19);
  EXPECT_LT(took.count(), 1.0);
}

}  // namespace
}  // namespace posewire
