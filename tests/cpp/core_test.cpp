// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/image.h"
#include "core/log.h"
#include "core/pose.h"
#include "core/strict_json.h"
#include "core/tensor.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(StrictJson, NamesFileAndKey) {
  const std::string file = "x.json";
  const auto json = parse_json(R"({"a": [{"b": 0}]})", file, Code::kConfig);
  const At at(json, file, Code::kConfig);
  at["a"].items(1, 2);
  EXPECT_EQ(error_of([&] { at["a"].item(0)["b"].positive(8); }),
            "x.json: a[0].b: must be a positive integer");
  EXPECT_EQ(error_of([&] { at["a"].item(0).object({"b", "c"}); }), "x.json: a[0].c: is missing");
  EXPECT_EQ(error_of([&] { at.object({"b"}, {"c"}); }), "x.json: a: unknown key; known are b, c");
}

TEST(StrictJson, RefusesWhatJsonAllowsOrExtends) {
  const auto parse = [](const std::string& text) {
    return error_of([&] { parse_json(text, "f", Code::kBundle); });
  };
  EXPECT_THAT(parse(R"({"a": 1, "a": 2})"), HasSubstr("a appears twice in one object"));
  EXPECT_EQ(parse(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"), "");
  EXPECT_THAT(parse(std::string(40, '[') + std::string(40, ']')), HasSubstr("nested deeper"));
  EXPECT_THAT(parse(std::string(4000000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(parse("{\"a\": NaN}"), HasSubstr("not JSON"));
  EXPECT_THAT(parse("{\"a\": 1e999}"), HasSubstr("not JSON"));
  EXPECT_THAT(parse("{\"a\": \"\xff\"}"), HasSubstr("not JSON"));
  EXPECT_THAT(parse("{} {}"), HasSubstr("not JSON"));
  EXPECT_THAT(parse(""), HasSubstr("not JSON"));
}

TEST(StrictJson, IntegersKeepTheirRange) {
  const std::string file = "f";
  for (const char* text : {"18446744073709551615", "-1", "1.0", "true", "\"1\"", "null", "9"}) {
    const auto json = parse_json(text, file, Code::kConfig);
    EXPECT_THROW(At(json, file, Code::kConfig).integer(0, 8, "an integer"), Error) << text;
  }
  const auto json = parse_json("8", file, Code::kConfig);
  EXPECT_EQ(At(json, file, Code::kConfig).integer(0, 8, "an integer"), 8);
}

TEST(Log, RedactsCredentials) {
  EXPECT_EQ(redacted("open rtsp://user:se@cret@host/x failed"), "open rtsp://***@host/x failed");
  EXPECT_EQ(redacted("http://host/a@b"), "http://host/a@b");
  EXPECT_EQ(redacted("a rtsp://u:p@h/1 b rtsp://q@h/2"), "a rtsp://***@h/1 b rtsp://***@h/2");
  EXPECT_EQ(redacted("file:clip.mp4"), "file:clip.mp4");
}

TEST(Poses, KeepIfCompactsInOrder) {
  Poses poses;
  poses.clear(2);
  for (int p = 0; p < 5; ++p) {
    Keypoint* keypoints = poses.add(static_cast<float>(p));
    keypoints[0].x = static_cast<float>(p);
    keypoints[1].y = static_cast<float>(10 * p);
  }
  poses.keep_if([](int p) { return p % 2 == 1; });
  ASSERT_EQ(poses.size(), 2);
  for (int i = 0; i < 2; ++i) {
    const auto p = static_cast<float>(2 * i + 1);
    EXPECT_EQ(poses.score(i), p);
    EXPECT_EQ(poses.keypoints_of(i)[0].x, p);
    EXPECT_EQ(poses.keypoints_of(i)[1].y, 10 * p);
  }
  poses.keep_if([](int) { return false; });
  EXPECT_EQ(poses.size(), 0);
}

TEST(Tensor, LayoutsAreStridesOnly) {
  const MapView nchw = dense_map(nullptr, DType::kFloat32, Layout::kNCHW, 3, 4, 5);
  const MapView nhwc = dense_map(nullptr, DType::kFloat32, Layout::kNHWC, 3, 4, 5);
  EXPECT_EQ(nchw.channel_stride * 2 + nchw.row_stride * 3 + nchw.column_stride * 4, 59);
  EXPECT_EQ(nhwc.channel_stride * 2 + nhwc.row_stride * 3 + nhwc.column_stride * 4, 59);
  EXPECT_EQ(nhwc.channel_stride, 1);
  EXPECT_EQ(nchw.column_stride, 1);
}

TEST(Image, ShrinkingKeepsItsMemory) {
  Image image;
  image.resize(64, 48);
  const auto* before = image.row(0);
  image.resize(32, 48);
  EXPECT_EQ(image.row(0), before);
  EXPECT_EQ(image.row(1) - image.row(0), 96);
}

}  // namespace
}  // namespace posewire
