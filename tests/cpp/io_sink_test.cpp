// SPDX-License-Identifier: Apache-2.0
// Sinks: the table's contract, files written aside, the video's times and sizes, what is drawn.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <opencv2/imgproc.hpp>

#include "io/aside_file.h"
#include "io/draw.h"
#include "io/mat.h"
#include "io/memory_sink.h"
#include "io_clips.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

SinkOptions options_of(const std::string& kind, const std::string& path = "") {
  SinkOptions options;
  options.kind = kind;
  options.path = path;
  return options;
}

Frame grey_frame(int width, int height, std::uint64_t seq = 0) {
  Frame frame;
  frame.image.resize(width, height);
  std::fill(frame.image.bytes.begin(), frame.image.bytes.end(), std::uint8_t{90});
  frame.seq = seq;
  frame.t_arrival = std::chrono::steady_clock::now();
  return frame;
}

Status put(Sink* sink, const Frame& frame, const std::string& payload = "{\"seq\":0}",
           const Poses& poses = one_pose(40, 20, 60)) {
  return sink->write({&frame, &poses, &payload});
}

// A limit on file sizes is a disk that is full (EFBIG in place of ENOSPC), for this process alone.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

// ---- the contract of every row ------------------------------------------------------------------

class EverySink : public ::testing::TestWithParam<std::string> {
 protected:
  bool writes_file() const { return GetParam() == "ndjson" || GetParam() == "video"; }
  std::string path() const { return folder_ / "out.file"; }
  TempFolder folder_;
};

TEST_P(EverySink, WritesClosesAndLeavesNothingHalf) {
  const auto sink = make_sink(options_of(GetParam(), path()));
  try {
    sink->open(stick());
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(Code::kUnavailable));
    GTEST_SKIP() << error.what();
  }
  for (std::uint64_t seq = 0; seq < 5; ++seq) {
    const Status status = put(sink.get(), grey_frame(160, 120, seq));
    ASSERT_TRUE(status.ok()) << status.what();
  }
  if (writes_file()) {
    EXPECT_THAT(folder_.names(), UnorderedElementsAre("out.file.part"));
  }
  const Status closed = sink->close();
  EXPECT_TRUE(closed.ok()) << closed.what();
  if (writes_file()) {
    EXPECT_THAT(folder_.names(), UnorderedElementsAre("out.file"));
  } else {
    EXPECT_THAT(folder_.names(), IsEmpty());
  }
}

TEST_P(EverySink, CannotWriteIsSaidAtOpen) {
  if (!writes_file()) {
    GTEST_SKIP() << GetParam() << " writes no file";
  }
  const auto message = [&](const std::string& path) {
    return error_of(Code::kCannotWrite,
                    [&] { make_sink(options_of(GetParam(), path))->open(stick()); });
  };
  EXPECT_THAT(message(folder_ / "no/such/folder/x"), HasSubstr("No such file"));
  EXPECT_THAT(message(folder_.path()), HasSubstr("not a regular file"));
  EXPECT_THAT(message("/dev/null"), HasSubstr("not a regular file"));
  EXPECT_THAT(message("/proc/x"), HasSubstr("/proc/x"));
  EXPECT_THAT(message(""), HasSubstr("file name"));
}

TEST_P(EverySink, TwoWritersOfOneFile) {
  if (!writes_file()) {
    GTEST_SKIP() << GetParam() << " writes no file";
  }
  const auto first = make_sink(options_of(GetParam(), path()));
  const auto second = make_sink(options_of(GetParam(), path()));
  first->open(stick());
  EXPECT_THAT(error_of(Code::kCannotWrite, [&] { second->open(stick()); }),
              HasSubstr("another process"));
  ASSERT_TRUE(put(first.get(), grey_frame(64, 64)).ok());
  EXPECT_TRUE(first->close().ok());
}

TEST_P(EverySink, AFullDiskLosesNoGoodFile) {
  if (!writes_file()) {
    GTEST_SKIP() << GetParam() << " writes no file";
  }
  write_file(path(), "the good one");
  const auto sink = make_sink(options_of(GetParam(), path()));
  sink->open(stick());
  Status status, closed;
  {
    const FullDisk disk(20000);
    Frame frame = grey_frame(640, 480);
    for (std::uint64_t seq = 0; status.ok() && seq < 400; ++seq) {
      frame.seq = seq;
      frame.t_media_ms = 40.0 * static_cast<double>(seq);
      cv::Mat picture = mat_of(&frame.image);
      cv::randu(picture, 0, 255);
      status = put(sink.get(), frame, std::string(200, 'x'));
    }
    closed = sink->close();
  }
  EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(Code::kCannotWrite));
  EXPECT_THAT(status.what(), HasSubstr(path() + ": File too large"));
  EXPECT_FALSE(closed.ok());
  EXPECT_EQ(bytes_of_file(path()), "the good one");
}

INSTANTIATE_TEST_SUITE_P(Table, EverySink, ::testing::ValuesIn(sink_kinds()),
                         [](const auto& info) { return info.param; });

TEST(SinkTable, UnknownKindListsTheKnown) {
  EXPECT_THAT(error_of(Code::kConfig, [] { make_sink(options_of("paper")); }),
              HasSubstr("unknown kind \"paper\" (known: ndjson, video, show, memory)"));
}

// ---- ndjson, memory -----------------------------------------------------------------------------

class SinkFiles : public ::testing::Test {
 protected:
  TempFolder folder_;
};

TEST_F(SinkFiles, NdjsonHasEveryLineAsItWas) {
  const auto sink = make_sink(options_of("ndjson", folder_ / "a.jsonl"));
  sink->open(stick());
  EXPECT_FALSE(sink->wants_picture());
  std::string expected;
  for (std::uint64_t seq = 0; seq < 1000; ++seq) {
    const std::string payload = "{\"seq\":" + std::to_string(seq) + "}";
    expected += payload + "\n";
    ASSERT_TRUE(put(sink.get(), grey_frame(8, 8, seq), payload).ok());
  }
  // Already with the kernel: a crash loses no line.
  EXPECT_EQ(bytes_of_file(folder_ / "a.jsonl.part"), expected);
  ASSERT_TRUE(sink->close().ok());
  EXPECT_EQ(bytes_of_file(folder_ / "a.jsonl"), expected);
}

TEST_F(SinkFiles, APartLeftByACrashIsReplaced) {
  write_file(folder_ / "a.jsonl.part", "old and long, from a run that was killed\n");
  const auto sink = make_sink(options_of("ndjson", folder_ / "a.jsonl"));
  sink->open(stick());
  ASSERT_TRUE(put(sink.get(), grey_frame(8, 8), "{}").ok());
  ASSERT_TRUE(sink->close().ok());
  EXPECT_EQ(bytes_of_file(folder_ / "a.jsonl"), "{}\n");
}

TEST_F(SinkFiles, OnlyItsCamera) {
  SinkOptions options = options_of("ndjson", folder_ / "a.jsonl");
  options.camera_index = 1;
  const auto sink = make_sink(options);
  sink->open(stick());
  for (int camera = 0; camera < 3; ++camera) {
    Frame frame = grey_frame(8, 8);
    frame.camera = camera;
    ASSERT_TRUE(put(sink.get(), frame, std::to_string(camera)).ok());
  }
  ASSERT_TRUE(sink->close().ok());
  EXPECT_EQ(bytes_of_file(folder_ / "a.jsonl"), "1\n");
}

TEST(Memory, KeepsWhatItGets) {
  MemorySink sink(true);
  EXPECT_FALSE(put(&sink, grey_frame(8, 8)).ok());  // not open
  sink.open(stick());
  ASSERT_TRUE(put(&sink, grey_frame(8, 6, 7), "{}").ok());
  ASSERT_TRUE(sink.close().ok());
  const auto items = sink.items();
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(items[0].seq, 7U);
  EXPECT_EQ(items[0].height, 6);
  EXPECT_EQ(items[0].poses.size(), 1);
  EXPECT_EQ(sink.pictures().size(), 1U);
  EXPECT_TRUE(sink.closed());
}

// ---- video --------------------------------------------------------------------------------------

TEST_F(SinkFiles, VideoKeepsTheStreamsTimes) {
  const auto sink = make_sink(options_of("video", folder_ / "a.mp4"));
  sink->open(stick());
  EXPECT_TRUE(sink->wants_picture());
  const std::vector<double> times = {0, 100, 200, 450, 500, 600};
  for (std::size_t i = 0; i < times.size(); ++i) {
    Frame frame = grey_frame(161, 121, i);  // odd sizes: the last column and row are cut off
    frame.t_media_ms = 5000.0 + times[i];
    ASSERT_TRUE(put(sink.get(), frame).ok());
  }
  ASSERT_TRUE(sink->close().ok());
  const Drained got = drain(opened(folder_ / "a.mp4").get());
  EXPECT_EQ(got.last, Read::kEnd) << got.status.what();
  ASSERT_EQ(got.images.size(), times.size());
  EXPECT_EQ(got.images[0].width, 160);
  EXPECT_EQ(got.images[0].height, 120);
  for (std::size_t i = 0; i < times.size(); ++i) {
    EXPECT_NEAR(got.media_ms[i], times[i], 0.1) << i;
  }
}

TEST_F(SinkFiles, VideoOfALoopGoesOn) {
  const auto sink = make_sink(options_of("video", folder_ / "a.mp4"));
  sink->open(stick());
  for (const double time : {0, 40, 80, 0, 40, 80}) {
    Frame frame = grey_frame(64, 64);
    frame.t_media_ms = time;
    ASSERT_TRUE(put(sink.get(), frame).ok());
  }
  ASSERT_TRUE(sink->close().ok());
  const Drained got = drain(opened(folder_ / "a.mp4").get());
  ASSERT_EQ(got.images.size(), 6U);
  EXPECT_NEAR(got.media_ms[5], 200.0, 0.1);
}

TEST_F(SinkFiles, VideoOfOnePicture) {
  const auto sink = make_sink(options_of("video", folder_ / "a.mp4"));
  sink->open(stick());
  ASSERT_TRUE(put(sink.get(), grey_frame(64, 64)).ok());
  ASSERT_TRUE(sink->close().ok());
  EXPECT_EQ(drain(opened(folder_ / "a.mp4").get()).images.size(), 1U);
}

TEST_F(SinkFiles, VideoOfNothingReplacesNothing) {
  write_file(folder_ / "a.mp4", "the good one");
  const auto sink = make_sink(options_of("video", folder_ / "a.mp4"));
  sink->open(stick());
  EXPECT_TRUE(sink->close().ok());
  EXPECT_EQ(bytes_of_file(folder_ / "a.mp4"), "the good one");
  EXPECT_THAT(folder_.names(), UnorderedElementsAre("a.mp4"));
}

TEST_F(SinkFiles, VideoLetterboxesAnotherSize) {
  const auto sink = make_sink(options_of("video", folder_ / "a.mp4"));
  sink->open(stick());
  for (const auto& [width, height] : {std::pair<int, int>{200, 100}, {100, 100}}) {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(put(sink.get(), grey_frame(width, height), "{}", Poses()).ok());
    }
  }
  ASSERT_TRUE(sink->close().ok());
  const Drained got = drain(opened(folder_ / "a.mp4").get());
  ASSERT_EQ(got.images.size(), 6U);
  const Image& last = got.images[5];
  EXPECT_EQ(last.width, 200);
  EXPECT_LT(last.row(50)[3 * 20], 20);  // black beside it
  EXPECT_NEAR(last.row(50)[3 * 100], 90, 12);
  EXPECT_LT(last.row(50)[3 * 180], 20);
}

TEST_F(SinkFiles, OneVideoForEachCamera) {
  SinkOptions options = options_of("video", folder_ / "out.v1.mp4");
  options.camera = "door";
  const auto sink = make_sink(options);
  sink->open(stick());
  ASSERT_TRUE(put(sink.get(), grey_frame(64, 64)).ok());
  ASSERT_TRUE(sink->close().ok());
  EXPECT_THAT(folder_.names(), UnorderedElementsAre("out.v1-door.mp4"));
}

TEST_F(SinkFiles, VideoStartsWithItsIndex) {
  make_clip(folder_ / "a.mp4", 5);
  const std::string bytes = bytes_of_file(folder_ / "a.mp4");
  EXPECT_LT(bytes.find("moov"), bytes.find("mdat"));  // a browser plays it while it loads
}

TEST(Show, SaysInOneLineWhatIsMissing) {
  ::unsetenv("DISPLAY");
  ::unsetenv("WAYLAND_DISPLAY");
  const std::string what =
      error_of(Code::kUnavailable, [] { make_sink(options_of("show"))->open(stick()); });
  EXPECT_THAT(what, ::testing::AnyOf(HasSubstr("libopencv-highgui-dev"), HasSubstr("DISPLAY")));
  EXPECT_EQ(what.find('\n'), std::string::npos);
}

// ---- drawing ------------------------------------------------------------------------------------

int changed(const Image& image, const cv::Rect& where) {
  const cv::Mat part = mat_of(image)(where);
  return cv::countNonZero(cv::Mat(cv::abs(part.reshape(1) - 90.0)) > 8);
}

TEST(Draw, WhereThePersonIsAndNowhereElse) {
  Frame frame = grey_frame(400, 300);
  draw_poses(&frame.image, one_pose(200, 100, 120), stick());
  EXPECT_GT(changed(frame.image, cv::Rect(196, 96, 9, 9)), 100);    // the head
  EXPECT_GT(changed(frame.image, cv::Rect(205, 150, 15, 15)), 60);  // the left leg
  EXPECT_EQ(changed(frame.image, cv::Rect(0, 0, 120, 300)), 0);
  EXPECT_EQ(changed(frame.image, cv::Rect(280, 0, 120, 300)), 0);
}

TEST(Draw, ALowScoreIsFaint) {
  const auto strength = [](float score) {
    Frame frame = grey_frame(400, 300);
    Poses poses = one_pose(200, 100, 120);
    poses.keypoints_of(0)[2].score = score;
    draw_poses(&frame.image, poses, stick());
    const cv::Mat part = mat_of(frame.image)(cv::Rect(180, 150, 20, 30)).reshape(1);
    return cv::mean(cv::abs(part - 90.0))[0];
  };
  EXPECT_GT(strength(0.9F), 1.5 * strength(0.1F));
  EXPECT_GT(strength(0.1F), 1.2 * strength(0.0F) + 0.1);  // faint, but there
}

TEST(Draw, PeopleHaveTheirOwnColours) {
  const auto color = [](int number) {
    Frame frame = grey_frame(400, 300);
    draw_poses(&frame.image, one_pose(200, 100, 120), stick(), {number});
    return std::vector<int>{frame.image.row(160)[3 * 212], frame.image.row(160)[3 * 212 + 1],
                            frame.image.row(160)[3 * 212 + 2]};
  };
  EXPECT_NE(color(0), color(1));
  EXPECT_EQ(color(0), color(10));  // ten of them
  EXPECT_EQ(color(-10), color(0));
}

TEST(Draw, AnythingGoes) {
  // Outside, at the edge, huge, absent, no numbers, without skeleton, tiny pictures: no crash.
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const int size : {1, 2, 17, 300}) {
    for (const float x : {-1e9F, -50.0F, 0.0F, 299.0F, 1e5F, 1e9F, kNan, kInf}) {
      for (const float height : {0.0F, 1.0F, 500.0F, 1e6F}) {
        Frame frame = grey_frame(size, size);
        Poses poses = one_pose(x, x, height);
        poses.add(kNan);
        draw_poses(&frame.image, poses, stick());
        draw_poses(&frame.image, poses, Skeleton());
        draw_captions(&frame.image, {"door", "1 person", "a very long text that has no room"});
        PersonColors().assign(poses);
      }
    }
  }
}

TEST(Draw, ColoursFollowPeople) {
  PersonColors colors;
  const auto two = [](float first, float second) {
    Poses poses = one_pose(first, 100, 80);
    Keypoint* const keypoints = poses.add(0.5F);
    for (int k = 0; k < 3; ++k) {
      keypoints[k] = {second, 100.0F + 40.0F * static_cast<float>(k), 0.5F};
    }
    return poses;
  };
  const std::vector<int> first = colors.assign(two(50, 300));
  EXPECT_NE(first[0], first[1]);
  EXPECT_EQ(colors.assign(two(55, 295)), first);
  EXPECT_EQ(colors.assign(two(290, 60)), (std::vector<int>{first[1], first[0]}));  // order changed
  EXPECT_EQ(colors.assign(Poses()).size(), 0U);
  EXPECT_EQ(colors.assign(two(285, 65)), (std::vector<int>{first[1], first[0]}));  // one frame lost
}

TEST(Draw, CaptionsHaveARoomOrAreLeftOut) {
  Frame frame = grey_frame(400, 300);
  draw_captions(&frame.image, {"door", "3 people"});
  EXPECT_GT(changed(frame.image, cv::Rect(0, 0, 200, 40)), 500);
  EXPECT_EQ(changed(frame.image, cv::Rect(0, 60, 400, 240)), 0);
}

}  // namespace
}  // namespace posewire
