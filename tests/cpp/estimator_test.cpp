// SPDX-License-Identifier: Apache-2.0
#include "pipeline/estimator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <opencv2/imgcodecs.hpp>
#include <thread>

#include "fake_bundle.h"
#include "pipeline/ceiling.h"

namespace posewire {
namespace {

using ::testing::HasSubstr;

Image grey(int width, int height) {
  Image image;
  image.resize(width, height);
  std::fill(image.bytes.begin(), image.bytes.end(), std::uint8_t{90});
  return image;
}

TEST(Estimator, ReturnsPosesInPixelsOfThePicture) {
  const TempFolder folder;
  const auto estimator = Estimator::open(write_fake_bundle(folder), {});
  // 640 x 480 into 64 x 48: ten frame pixels per network pixel, no padding.
  const Poses poses = estimator->estimate(grey(640, 480));
  ASSERT_EQ(poses.size(), 1);
  ASSERT_EQ(poses.keypoints_per_person(), 3);
  EXPECT_GT(poses.score(0), 0.3F);
  for (int k = 0; k < 3; ++k) {
    EXPECT_NEAR(poses.keypoints_of(0)[k].x, (27.5 + 0.5) * 10 - 0.5, 6.0);
    EXPECT_NEAR(poses.keypoints_of(0)[k].y, (8 * (1 + 2 * k) + 4.0) * 10 - 0.5, 20.0);
  }
  // 64 x 96: half the size, 16 pixels of padding left and right.
  const Poses tall = estimator->estimate(grey(64, 96));
  ASSERT_EQ(tall.size(), 1);
  EXPECT_NEAR(tall.keypoints_of(0)[0].x, (27.5 - 16 + 0.5) * 2 - 0.5, 1.2);
}

TEST(Estimator, GivesTheRawMaps) {
  const TempFolder folder;
  const auto estimator = Estimator::open(write_fake_bundle(folder), {});
  const std::vector<RawMap> maps = estimator->network(grey(64, 48));
  ASSERT_EQ(maps.size(), 2U);
  EXPECT_EQ(maps[0].name, "heatmaps");
  EXPECT_EQ(maps[1].channels, 4);
  std::string bytes;
  for (const RawMap& map : maps) {
    bytes.append(reinterpret_cast<const char*>(map.values.data()),
                 map.values.size() * sizeof(float));
  }
  EXPECT_EQ(bytes, one_person());
}

TEST(Estimator, ManyThreadsShareItsSlots) {
  const TempFolder folder;
  RuntimeOptions options;
  options.requests = 2;
  const auto estimator =
      Estimator::open(write_fake_bundle(folder, {{"schema", 1}, {"infer_ms", 1}}), options);
  std::vector<std::thread> threads;
  std::atomic<int> people{0};
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        people += estimator->estimate(grey(100, 50)).size();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(people, 60);
}

TEST(Estimator, ReadsFilesInOrderAndNamesTheBadOne) {
  const TempFolder folder;
  const auto estimator = Estimator::open(write_fake_bundle(folder), {});
  std::vector<std::string> paths;
  for (int i = 1; i <= 7; ++i) {
    paths.push_back(folder.file(std::to_string(i) + ".png"));
    ASSERT_TRUE(cv::imwrite(paths.back(), cv::Mat(48 * i, 64 * i, CV_8UC3, cv::Scalar(1, 2, 3))));
  }
  const std::vector<Poses> results = estimator->estimate_files(paths);
  ASSERT_EQ(results.size(), 7U);
  for (int i = 1; i <= 7; ++i) {
    ASSERT_EQ(results[static_cast<std::size_t>(i) - 1].size(), 1);
    EXPECT_NEAR(results[static_cast<std::size_t>(i) - 1].keypoints_of(0)[0].x, 28.0 * i - 0.5,
                0.6 * i);
  }
  paths[3] = folder.write("4.png", "no picture");
  try {
    estimator->estimate_files(paths);
    FAIL() << "a damaged picture was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kSource);
    EXPECT_THAT(error.what(), HasSubstr("4.png"));
  }
  EXPECT_EQ(estimator->estimate_files({}).size(), 0U);
}

TEST(Estimator, AFailingDeviceIsAnErrorAndGivesItsSlotBack) {
  const TempFolder folder;
  RuntimeOptions options;
  options.requests = 1;
  const auto estimator =
      Estimator::open(write_fake_bundle(folder, {{"schema", 1}, {"fail_at", 1}}), options);
  EXPECT_EQ(estimator->estimate(grey(64, 48)).size(), 1);
  for (int i = 0; i < 3; ++i) {  // the only slot: a lost one would block for ever
    try {
      estimator->estimate(grey(64, 48));
      FAIL() << "the injected failure was swallowed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUnavailable);
    }
  }
  EXPECT_THROW(estimator->estimate(Image{}), Error);
}

TEST(Estimator, NanFindsNobody) {
  const TempFolder folder;
  const auto estimator =
      Estimator::open(write_fake_bundle(folder, {{"schema", 1}, {"nan_every", 1}}), {});
  EXPECT_EQ(estimator->estimate(grey(64, 48)).size(), 0);
}

TEST(Ceiling, KeepsEveryRequestBusy) {
  const TempFolder folder;
  const std::string bundle =
      write_fake_bundle(folder, {{"schema", 1}, {"infer_ms", 5}, {"requests", 3}}, 2);
  const Ceiling ceiling = measure_ceiling(bundle, {}, 0.2, {grey(64, 48), grey(30, 40)});
  EXPECT_EQ(ceiling.requests, 3);
  EXPECT_EQ(ceiling.max_batch, 2);
  EXPECT_LE(ceiling.fps, 201.0);  // 5 ms a picture
  EXPECT_GT(ceiling.fps, 30.0);   // a busy machine may be late
  EXPECT_GE(ceiling.seconds, 0.2);
}

}  // namespace
}  // namespace posewire
