// SPDX-License-Identifier: Apache-2.0
// Files and folders as sources: what was written comes back, and damage does not look like an end.
#include <gmock/gmock.h>

#include <algorithm>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "io/mat.h"
#include "io_clips.h"

namespace posewire {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// ---- files --------------------------------------------------------------------------------------

class Files : public ::testing::Test {
 protected:
  TempFolder folder_;
};

TEST_F(Files, PicturesAreWhatWasWritten) {
  make_clip(folder_ / "a.mp4", 6, 320, 240);
  const Drained drawn = drain(opened("synthetic:?people=2&frames=6&width=320&height=240").get());
  const Drained read = drain(opened(folder_ / "a.mp4").get());
  ASSERT_EQ(read.images.size(), drawn.images.size());
  for (std::size_t i = 0; i < read.images.size(); ++i) {
    // The caption plate "0 people" is in it, the rest is the codec's loss.
    EXPECT_LT(mean_difference(read.images[i], drawn.images[i]), 4.0) << i;
  }
}

TEST_F(Files, EveryContainer) {
  make_clip(folder_ / "a.mp4", 10);
  for (const char* format : {"avi", "matroska", "mpegts", "h264"}) {
    const std::string path = folder_ / (std::string("b.") + format);
    remux(folder_ / "a.mp4", path, format);
    const Drained got = drain(opened(path).get());
    EXPECT_EQ(got.last, Read::kEnd) << format << got.status.what();
    EXPECT_EQ(got.images.size(), 10U) << format;
  }
}

TEST_F(Files, Loops) {
  make_clip(folder_ / "a.mp4", 4);
  SourceOptions options;
  options.loop = true;
  const Drained got = drain(opened(folder_ / "a.mp4", options).get(), 11);
  ASSERT_EQ(got.images.size(), 11U);
  EXPECT_EQ(got.images[0].bytes, got.images[8].bytes);
  EXPECT_NEAR(got.media_ms[7], 120.0, 0.1);
  EXPECT_NEAR(got.media_ms[8], 0.0, 0.1);
}

TEST_F(Files, RealtimeFollowsTheTimeStamps) {
  make_clip(folder_ / "a.mp4", 8);
  SourceOptions options;
  options.realtime = true;
  const auto source = opened(folder_ / "a.mp4", options);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(drain(source.get()).images.size(), 8U);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_GT(took.count(), 0.26);
  EXPECT_LT(took.count(), 1.5);
}

TEST_F(Files, ASizeThatChangesIsNeverSquashed) {
  make_clip(folder_ / "a.mp4", 5, 160, 120);
  make_clip(folder_ / "b.mp4", 5, 96, 128);
  remux(folder_ / "a.mp4", folder_ / "a.h264", "h264");
  remux(folder_ / "b.mp4", folder_ / "b.h264", "h264");
  write_file(folder_ / "ab.h264",
             bytes_of_file(folder_ / "a.h264") + bytes_of_file(folder_ / "b.h264"));
  const Drained got = drain(opened(folder_ / "ab.h264").get());
  EXPECT_EQ(got.last, Read::kEnd) << got.status.what();
  ASSERT_EQ(got.images.size(), 10U);
  EXPECT_EQ(got.images[4].width, 160);
  EXPECT_EQ(got.images[5].width, 96);
  EXPECT_EQ(got.images[5].height, 128);
  const Drained alone = drain(opened(folder_ / "b.mp4").get());
  EXPECT_LT(mean_difference(got.images[9], alone.images[4]), 1.0);
}

// The display matrix of the track header, as telephones write it: found by "tkhd" in the file.
void turn_mp4(const std::string& from, const std::string& to, int a, int b, int c, int d) {
  std::string bytes = bytes_of_file(from);
  const std::size_t tkhd = bytes.find("tkhd");
  ASSERT_NE(tkhd, std::string::npos);
  const std::size_t matrix = tkhd + 4 + 40;  // version 0: 4 + 20 + 8 + 8 bytes before it
  const int values[] = {a, b, 0, c, d, 0};
  for (int i = 0; i < 6; ++i) {
    for (int byte = 0; byte < 4; ++byte) {
      const auto value = static_cast<std::uint32_t>(values[i] * 65536);
      bytes[matrix + static_cast<std::size_t>(4 * i + byte)] =
          static_cast<char>(value >> (24 - 8 * byte) & 0xff);
    }
  }
  write_file(to, bytes);
}

TEST_F(Files, TurnedByTheirDisplayMatrix) {
  make_clip(folder_ / "a.mp4", 3, 160, 120);
  const Image plain = drain(opened(folder_ / "a.mp4").get()).images[2];
  struct Case {
    int a, b, c, d, rotate;
  };
  for (const Case& turn :
       {Case{0, 1, -1, 0, cv::ROTATE_90_CLOCKWISE}, Case{-1, 0, 0, -1, cv::ROTATE_180},
        Case{0, -1, 1, 0, cv::ROTATE_90_COUNTERCLOCKWISE}}) {
    turn_mp4(folder_ / "a.mp4", folder_ / "t.mp4", turn.a, turn.b, turn.c, turn.d);
    Image got = drain(opened(folder_ / "t.mp4").get()).images[2];
    cv::Mat expected;
    cv::rotate(mat_of(plain), expected, turn.rotate);
    ASSERT_EQ(got.width, expected.cols);
    ASSERT_EQ(got.height, expected.rows);
    EXPECT_EQ(cv::norm(mat_of(got), expected, cv::NORM_INF), 0.0) << turn.rotate;
  }
}

TEST_F(Files, CutOffIsAFailureNotAnEnd) {
  make_clip(folder_ / "a.mp4", 40, 320, 240);
  for (const char* format : {"avi", "matroska"}) {
    remux(folder_ / "a.mp4", folder_ / (std::string("a.") + format), format);
  }
  for (const char* name : {"a.mp4", "a.avi", "a.matroska"}) {
    const std::string whole = bytes_of_file(folder_ / name);
    for (const double share : {0.5, 0.8, 0.99}) {
      const std::string cut = folder_ / (std::string("cut-") + name);
      write_file(cut, whole.substr(
                          0, static_cast<std::size_t>(share * static_cast<double>(whole.size()))));
      const auto source = opened(cut);
      const Drained got = drain(source.get());
      EXPECT_EQ(got.last, Read::kFailed) << name << " " << share;
      EXPECT_EQ(static_cast<int>(got.status.code()), static_cast<int>(Code::kSource));
      EXPECT_THAT(got.status.what(), HasSubstr("cut-")) << name;
      EXPECT_THAT(got.status.what(), HasSubstr("cut off")) << name;
      EXPECT_GT(got.images.size(), 5U) << name;  // what is there is delivered
      EXPECT_LT(got.images.size(), 41U) << name;
    }
  }
}

TEST_F(Files, AnIndexThatIsMissingFailsToOpen) {
  make_clip(folder_ / "a.mp4", 10);
  const std::string whole = bytes_of_file(folder_ / "a.mp4");
  write_file(folder_ / "cut.mp4", whole.substr(0, 300));  // inside the index, which stands in front
  EXPECT_THAT(error_of(Code::kSource, [&] { opened(folder_ / "cut.mp4"); }),
              HasSubstr("is cut off: 300 of "));
}

TEST_F(Files, RawStreamCutInsideAPictureIsDamaged) {
  make_clip(folder_ / "a.mp4", 20, 320, 240);
  remux(folder_ / "a.mp4", folder_ / "a.h264", "h264");
  const std::string whole = bytes_of_file(folder_ / "a.h264");
  // In the middle of the largest unit between two start codes, the first picture's slice: where a
  // fixed share of the file lies depends on the encoder's mood.
  const std::string start_code("\0\0\1", 3);
  std::size_t middle = 0, longest = 0;
  for (std::size_t at = whole.find(start_code), next = 0; at != std::string::npos; at = next) {
    next = whole.find(start_code, at + 3);
    const std::size_t length = std::min(next, whole.size()) - at;
    if (length > longest) {
      longest = length;
      middle = at + length / 2;
    }
  }
  ASSERT_GT(longest, 500U);
  write_file(folder_ / "cut.h264", whole.substr(0, middle));
  const auto source = opened(folder_ / "cut.h264");
  const Drained got = drain(source.get());
  EXPECT_TRUE(got.last == Read::kFailed || source->damaged() > 0) << "a cut went unnoticed";
}

TEST_F(Files, DamageIsCounted) {
  make_clip(folder_ / "a.mp4", 60, 320, 240);
  std::string bytes = bytes_of_file(folder_ / "a.mp4");
  const std::size_t data = bytes.find("mdat");
  ASSERT_NE(data, std::string::npos);
  for (std::size_t i = data + 2000; i < bytes.size(); i += 997) {
    bytes[i] = static_cast<char>(bytes[i] ^ 0x55);
  }
  write_file(folder_ / "noise.mp4", bytes);
  const auto source = opened(folder_ / "noise.mp4");
  const Drained got = drain(source.get());
  EXPECT_GT(source->damaged(), 3U);
  EXPECT_GT(got.images.size(), 20U);  // concealed pictures are delivered
}

TEST_F(Files, WhatIsNoVideo) {
  write_file(folder_ / "notes.txt", std::string(5000, 'x'));
  write_file(folder_ / "empty.mp4", "");
  write_file(folder_ / "list.m3u8", "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n");
  write_file(folder_ / "list.ffconcat", "ffconcat version 1.0\nfile /etc/passwd\n");
  for (const char* name : {"notes.txt", "empty.mp4", "list.m3u8", "list.ffconcat"}) {
    EXPECT_THAT(error_of(Code::kSource, [&] { opened(folder_ / name); }),
                AnyOf(HasSubstr("no video"), HasSubstr("nd of file")))
        << name;
  }
  ASSERT_EQ(::mkfifo((folder_ / "pipe.mp4").c_str(), 0600), 0);
  EXPECT_THAT(error_of(Code::kSource, [&] { opened(folder_ / "pipe.mp4"); }),
              HasSubstr("not a regular file"));  // and does not wait for a writer
}

TEST_F(Files, RealClips) {
  const char* const data = std::getenv("POSEWIRE_DATA");
  if (data == nullptr) {
    GTEST_SKIP() << "POSEWIRE_DATA is not set";
  }
  const std::string clip = std::string(data) + "/video/vtest.avi";
  if (::access(clip.c_str(), R_OK) != 0) {
    GTEST_SKIP() << clip << " is not there";
  }
  const auto source = opened(clip);
  const Drained got = drain(source.get(), 100);
  ASSERT_EQ(got.images.size(), 100U);
  EXPECT_EQ(got.images[0].width, 768);
  EXPECT_NEAR(got.media_ms[99], 9900.0, 0.5);
  write_file(folder_ / "cut.avi", bytes_of_file(clip).substr(0, 1000000));
  const auto cut = opened(folder_ / "cut.avi");
  EXPECT_EQ(drain(cut.get()).last, Read::kFailed);
}

// ---- folders ------------------------------------------------------------------------------------

class Folders : public ::testing::Test {
 protected:
  void picture(const std::string& name, int width, int height) {
    cv::imwrite(folder_ / name, cv::Mat(height, width, CV_8UC3, cv::Scalar(10, 20, 30)));
  }
  TempFolder folder_;
};

TEST_F(Folders, NaturalOrderAndEachItsSize) {
  for (const int i : {10, 2, 1, 21}) {
    picture("a" + std::to_string(i) + ".png", 10 + i, 20);
  }
  write_file(folder_ / "notes.txt", "no picture");
  const Drained got = drain(opened(folder_.path()).get());
  EXPECT_EQ(got.last, Read::kEnd);
  std::vector<int> widths;
  for (const Image& image : got.images) {
    widths.push_back(image.width);
  }
  EXPECT_EQ(widths, (std::vector<int>{11, 12, 20, 31}));
  EXPECT_EQ(got.images[0].row(3)[2], 30);
}

TEST_F(Folders, OnePictureIsAFolderOfOne) {
  picture("a.png", 31, 20);
  EXPECT_EQ(drain(opened("file:" + (folder_ / "a.png")).get()).images.size(), 1U);
  EXPECT_THAT(error_of(Code::kSource, [&] { opened(folder_ / "b.png"); }), HasSubstr("b.png"));
}

TEST_F(Folders, WithoutPictures) {
  write_file(folder_ / "notes.txt", "no picture");
  EXPECT_THAT(error_of(Code::kSource, [&] { opened(folder_.path()); }), HasSubstr("no pictures"));
}

TEST_F(Folders, AnUnreadablePictureIsNamed) {
  picture("a.png", 31, 20);
  write_file(folder_ / "b.jpg", "this is no JPEG");
  const Drained got = drain(opened(folder_.path()).get());
  EXPECT_EQ(got.images.size(), 1U);
  EXPECT_EQ(got.last, Read::kFailed);
  EXPECT_THAT(got.status.what(), HasSubstr("b.jpg: is not a picture"));
}

TEST_F(Folders, ACutOffPictureIsNamed) {
  for (const char* name : {"a.jpg", "a.png"}) {
    cv::Mat noise(200, 300, CV_8UC3);
    cv::randu(noise, 0, 255);
    cv::imwrite(folder_ / name, noise);
    const std::string whole = bytes_of_file(folder_ / name);
    write_file(folder_ / name, whole.substr(0, whole.size() * 2 / 3));
    const Drained got = drain(opened(folder_ / name).get());
    EXPECT_EQ(got.last, Read::kFailed) << name;
    EXPECT_THAT(got.status.what(), HasSubstr(name));
  }
}

TEST_F(Folders, TurnedByExif) {
  picture("plain.jpg", 40, 24);
  std::string bytes = bytes_of_file(folder_ / "plain.jpg");
  // APP1: Exif, little-endian TIFF, one entry: orientation (0x0112, SHORT) = 6, a quarter turn.
  const char exif[] =
      "\xff\xe1\x00\x22"
      "Exif\0\0"
      "II*\0\x08\0\0\0"
      "\x01\0"
      "\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
      "\0\0\0\0";
  bytes.insert(2, std::string(exif, sizeof exif - 1));
  write_file(folder_ / "turned.jpg", bytes);
  const Drained got = drain(opened(folder_ / "turned.jpg").get());
  ASSERT_EQ(got.images.size(), 1U);
  EXPECT_EQ(got.images[0].width, 24);
  EXPECT_EQ(got.images[0].height, 40);
}

}  // namespace
}  // namespace posewire
