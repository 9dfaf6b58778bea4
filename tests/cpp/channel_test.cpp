// SPDX-License-Identifier: Apache-2.0
// The properties that everything above relies on: in = out + dropped + depth, FIFO per producer,
// nothing lost when blocking, nobody left waiting after close. Clean under ThreadSanitizer.
#include "flow/channel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "allocations.h"
#include "flow/pool.h"
#include "flow/stats.h"

namespace posewire {
namespace {

using std::chrono::milliseconds;

struct Item {
  int producer = -1, number = -1;
};

TEST(Channel, KeepsOrderAndCounts) {
  Channel<int> channel(3, Policy::kBlock);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(channel.try_push(int{i}));
  }
  EXPECT_FALSE(channel.try_push(3));
  int item = -1;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(channel.try_pop(&item));
    EXPECT_EQ(item, i);
  }
  EXPECT_FALSE(channel.try_pop(&item));
  const ChannelCounts counts = channel.counts();
  EXPECT_EQ(counts.pushed, 3U);
  EXPECT_EQ(counts.popped, 3U);
  EXPECT_EQ(counts.dropped, 0U);
}

// The predecessor's queue moved its argument before it found out that there was no room.
TEST(Channel, LeavesARefusedItemUntouched) {
  Channel<std::unique_ptr<int>> channel(1, Policy::kBlock);
  EXPECT_TRUE(channel.try_push(std::make_unique<int>(1)));
  auto item = std::make_unique<int>(2);
  EXPECT_FALSE(channel.try_push(std::move(item)));
  ASSERT_NE(item, nullptr);
  channel.close();
  EXPECT_FALSE(channel.wait_push(std::move(item)));
  ASSERT_NE(item, nullptr);
  EXPECT_EQ(*item, 2);
}

TEST(Channel, DropOldestKeepsTheNewestAndCounts) {
  Channel<int> channel(2, Policy::kDropOldest);
  for (int i = 0; i < 7; ++i) {
    EXPECT_TRUE(channel.wait_push(int{i}));
  }
  int item = -1;
  ASSERT_TRUE(channel.wait_pop(&item));
  EXPECT_EQ(item, 5);
  ASSERT_TRUE(channel.wait_pop(&item));
  EXPECT_EQ(item, 6);
  EXPECT_EQ(channel.counts().dropped, 5U);
}

TEST(Channel, CloseDrainsAndAbortDrops) {
  Channel<int> closed(4, Policy::kBlock), aborted(4, Policy::kBlock);
  for (Channel<int>* channel : {&closed, &aborted}) {
    EXPECT_TRUE(channel->try_push(1));
    EXPECT_TRUE(channel->try_push(2));
  }
  closed.close();
  aborted.abort();
  int item = 0;
  EXPECT_FALSE(closed.drained());
  EXPECT_TRUE(closed.wait_pop(&item));
  EXPECT_TRUE(closed.wait_pop(&item));
  EXPECT_EQ(item, 2);
  EXPECT_FALSE(closed.wait_pop(&item));
  EXPECT_TRUE(closed.drained());
  EXPECT_FALSE(aborted.wait_pop(&item));
  EXPECT_EQ(aborted.counts().dropped, 2U);
  EXPECT_FALSE(aborted.wait_push(3));
}

TEST(Channel, CloseWakesWhoeverWaits) {
  for (int round = 0; round < 50; ++round) {
    Channel<int> full(1, Policy::kBlock), empty(1, Policy::kBlock);
    EXPECT_TRUE(full.try_push(1));
    std::atomic<int> refused{0};
    std::vector<std::thread> waiting;
    for (int i = 0; i < 2; ++i) {
      waiting.emplace_back([&] { refused += full.wait_push(2) ? 0 : 1; });
      waiting.emplace_back([&] {
        int item = 0;
        refused += empty.wait_pop(&item) ? 0 : 1;
      });
    }
    if (round % 2 == 0) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    full.close();
    empty.abort();
    for (std::thread& thread : waiting) {
      thread.join();
    }
    EXPECT_EQ(refused, 4);
  }
}

TEST(Channel, TimedPopGivesUp) {
  Channel<int> channel(1, Policy::kBlock);
  int item = 0;
  EXPECT_FALSE(channel.wait_pop_timed(&item, milliseconds(1)));
  EXPECT_FALSE(channel.drained());
  channel.close();
  EXPECT_FALSE(channel.wait_pop_timed(&item, std::chrono::hours(1)));
  EXPECT_TRUE(channel.drained());
}

// Many producers, many consumers, every policy: what goes in comes out once or is counted.
void run_many(Policy policy, unsigned seed) {
  std::mt19937 random(seed);
  const int producers = 1 + static_cast<int>(random() % 4);
  const int consumers = 1 + static_cast<int>(random() % 3);
  const int each = 2000;
  Channel<Item> channel(1 + random() % 8, policy);
  std::vector<std::vector<Item>> got(static_cast<std::size_t>(consumers));
  std::vector<std::thread> writing, reading;
  for (int p = 0; p < producers; ++p) {
    writing.emplace_back([&channel, p] {
      for (int i = 0; i < each; ++i) {
        EXPECT_TRUE(channel.wait_push(Item{p, i}));
      }
    });
  }
  for (auto& mine : got) {
    reading.emplace_back([&channel, &mine] {
      Item item;
      while (channel.wait_pop(&item)) {
        mine.push_back(item);
      }
    });
  }
  for (std::thread& thread : writing) {
    thread.join();
  }
  channel.close();
  for (std::thread& thread : reading) {
    thread.join();
  }
  std::size_t out = 0;
  std::vector<std::vector<int>> seen(static_cast<std::size_t>(producers));
  for (const auto& mine : got) {
    out += mine.size();
    std::vector<int> last(static_cast<std::size_t>(producers), -1);
    for (const Item& item : mine) {  // each consumer sees each producer's items in order
      int& before = last[static_cast<std::size_t>(item.producer)];
      EXPECT_LT(before, item.number);
      before = item.number;
    }
  }
  const ChannelCounts counts = channel.counts();
  EXPECT_EQ(counts.pushed, static_cast<std::uint64_t>(producers) * each);
  EXPECT_EQ(counts.pushed, counts.popped + counts.dropped);
  EXPECT_EQ(counts.popped, out);
  EXPECT_EQ(counts.depth, 0U);
  if (policy == Policy::kBlock) {
    EXPECT_EQ(counts.dropped, 0U);
  }
}

TEST(ChannelProperty, BlockLosesNothing) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    run_many(Policy::kBlock, seed);
  }
}

TEST(ChannelProperty, DropOldestCountsEveryLoss) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    run_many(Policy::kDropOldest, seed);
  }
}

// Producers, consumers and close() at a random moment: a refused push still holds its item, so the
// books balance to the last one.
TEST(ChannelProperty, ClosingInTheMiddleBalances) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    Channel<std::unique_ptr<int>> channel(1 + random() % 4,
                                          seed % 2 == 0 ? Policy::kBlock : Policy::kDropOldest);
    std::atomic<std::uint64_t> accepted{0}, popped{0};
    std::vector<std::thread> threads;
    for (int p = 0; p < 3; ++p) {
      threads.emplace_back([&] {
        for (;;) {
          auto item = std::make_unique<int>(1);
          if (!channel.wait_push(std::move(item))) {
            EXPECT_NE(item, nullptr);
            return;
          }
          ++accepted;
        }
      });
    }
    threads.emplace_back([&] {
      std::unique_ptr<int> item;
      while (channel.wait_pop(&item)) {
        EXPECT_NE(item, nullptr);
        ++popped;
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    seed % 3 == 0 ? channel.abort() : channel.close();
    for (std::thread& thread : threads) {
      thread.join();
    }
    const ChannelCounts counts = channel.counts();
    EXPECT_EQ(counts.pushed, accepted);
    EXPECT_EQ(counts.popped, popped);
    EXPECT_EQ(counts.pushed, counts.popped + counts.dropped + counts.depth);
  }
}

TEST(Channel, DoesNotAllocateAfterConstruction) {
  Channel<std::unique_ptr<int>> channel(4, Policy::kDropOldest);
  std::vector<std::unique_ptr<int>> items(64);
  for (auto& item : items) {
    item = std::make_unique<int>(1);
  }
  const long before = test::allocations();
  std::unique_ptr<int> out;
  for (auto& item : items) {
    EXPECT_TRUE(channel.wait_push(std::move(item)));
    if (channel.counts().depth > 2) {
      EXPECT_TRUE(channel.try_pop(&out));
    }
  }
  EXPECT_EQ(test::allocations(), before);
}

TEST(Channel, GivesDroppedItemsBackToTheirPool) {
  Pool<int> pool(4);
  Channel<Pool<int>::Ptr> channel(2, Policy::kDropOldest);
  for (int i = 0; i < 100; ++i) {
    auto item = pool.try_take();
    ASSERT_NE(item, nullptr) << "a dropped item did not come back";
    EXPECT_TRUE(channel.wait_push(std::move(item)));
  }
  EXPECT_EQ(pool.available(), 2U);
  channel.abort();
  EXPECT_EQ(pool.available(), 4U);
}

TEST(Pool, BlocksWhenEmptyAndWakesOnReturnAndClose) {
  Pool<int> pool(1);
  auto first = pool.wait_take();
  EXPECT_EQ(pool.try_take(), nullptr);
  std::thread waiting([&] {
    auto second = pool.wait_take();
    EXPECT_NE(second, nullptr);
    second.reset();
    EXPECT_NE(pool.try_take(), nullptr);
  });
  first.reset();
  waiting.join();
  first = pool.wait_take();
  std::thread closed([&] { EXPECT_EQ(pool.wait_take(), nullptr); });
  pool.close();
  closed.join();
}

TEST(LatencyHistogram, PercentilesAreWithinItsBuckets) {
  LatencyHistogram histogram;
  EXPECT_EQ(percentile_ms(histogram.counts(), 0.5), 0.0);
  for (int us = 1; us <= 100000; ++us) {
    histogram.add(std::chrono::microseconds(us));
  }
  EXPECT_NEAR(percentile_ms(histogram.counts(), 0.5), 50.0, 1.6);
  EXPECT_NEAR(percentile_ms(histogram.counts(), 0.99), 99.0, 3.1);
  const auto before = histogram.counts();
  histogram.add(std::chrono::milliseconds(7));
  EXPECT_NEAR(percentile_ms(histogram.counts() - before, 0.5), 7.0, 0.22);
  histogram.add(std::chrono::hours(24 * 365));
  histogram.add(-std::chrono::hours(1));  // a clock that went back is no crash
  EXPECT_EQ((percentile_ms(histogram.counts() - before, 0.0)), 0.0005);
}

}  // namespace
}  // namespace posewire
