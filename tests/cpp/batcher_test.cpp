// SPDX-License-Identifier: Apache-2.0
#include "flow/batcher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace posewire {
namespace {

struct Item {
  int lane = -1, number = -1;
};

struct Lanes {
  explicit Lanes(std::size_t count, std::size_t capacity, Policy policy = Policy::kBlock) {
    for (std::size_t i = 0; i < count; ++i) {
      lanes.push_back(std::make_unique<Channel<Item>>(capacity, policy, &bell));
    }
  }
  Batcher<Item> batcher() {
    std::vector<Channel<Item>*> pointers;
    for (const auto& lane : lanes) {
      pointers.push_back(lane.get());
    }
    return {pointers, &bell};
  }

  Doorbell bell;
  std::vector<std::unique_ptr<Channel<Item>>> lanes;
};

TEST(Batcher, TakesWhatWaitsUpToTheLimitFairly) {
  Lanes lanes(3, 8);
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(lanes.lanes[0]->try_push(Item{0, i}));
  }
  EXPECT_TRUE(lanes.lanes[2]->try_push(Item{2, 0}));
  Batcher<Item> batcher = lanes.batcher();
  std::vector<Item> batch;
  ASSERT_TRUE(batcher.wait_take(3, &batch));
  ASSERT_EQ(batch.size(), 3U);
  EXPECT_EQ(batch[0].lane, 0);
  EXPECT_EQ(batch[1].lane, 2);  // the busy lane does not fill the batch
  EXPECT_EQ(batch[2].lane, 0);
  EXPECT_EQ(batch[2].number, 1);
  ASSERT_TRUE(batcher.wait_take(8, &batch));
  ASSERT_EQ(batch.size(), 2U);
  EXPECT_EQ(batch[1].number, 3);
}

TEST(Batcher, ALoneFrameDoesNotWaitForCompany) {
  Lanes lanes(2, 8);
  Batcher<Item> batcher = lanes.batcher();
  std::vector<Item> batch;
  std::thread camera([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(lanes.lanes[1]->wait_push(Item{1, 7}));
  });
  ASSERT_TRUE(batcher.wait_take(8, &batch));  // returns although the lanes stay open
  camera.join();
  ASSERT_EQ(batch.size(), 1U);
  EXPECT_EQ(batch[0].number, 7);
}

TEST(Batcher, EndsWhenEveryLaneIsClosedAndDrained) {
  Lanes lanes(2, 8);
  EXPECT_TRUE(lanes.lanes[0]->try_push(Item{0, 0}));
  lanes.lanes[0]->close();
  Batcher<Item> batcher = lanes.batcher();
  std::vector<Item> batch;
  ASSERT_TRUE(batcher.wait_take(4, &batch));
  std::thread closing([&] { lanes.lanes[1]->close(); });
  EXPECT_FALSE(batcher.wait_take(4, &batch));
  EXPECT_TRUE(batch.empty());
  closing.join();
}

// Random producers: every item of a blocking lane comes out once, in its lane's order.
TEST(BatcherProperty, LosesNothingAndKeepsEachLanesOrder) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    std::mt19937 random(seed);
    const int count = 1 + static_cast<int>(random() % 4);
    const std::size_t most = 1 + random() % 8;
    Lanes lanes(static_cast<std::size_t>(count), 1 + random() % 4);
    std::vector<std::thread> cameras;
    for (int lane = 0; lane < count; ++lane) {
      cameras.emplace_back([&lanes, lane] {
        auto& channel = *lanes.lanes[static_cast<std::size_t>(lane)];
        for (int i = 0; i < 3000; ++i) {
          EXPECT_TRUE(channel.wait_push(Item{lane, i}));
        }
        channel.close();
      });
    }
    Batcher<Item> batcher = lanes.batcher();
    std::vector<Item> batch;
    std::vector<int> next(static_cast<std::size_t>(count), 0);
    while (batcher.wait_take(most, &batch)) {
      EXPECT_LE(batch.size(), most);
      for (const Item& item : batch) {
        EXPECT_EQ(item.number, next[static_cast<std::size_t>(item.lane)]++);
      }
    }
    for (std::thread& camera : cameras) {
      camera.join();
    }
    for (const int seen : next) {
      EXPECT_EQ(seen, 3000);
    }
  }
}

}  // namespace
}  // namespace posewire
