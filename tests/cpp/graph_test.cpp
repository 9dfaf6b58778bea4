// SPDX-License-Identifier: Apache-2.0
#include "flow/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <thread>

#include "flow/channel.h"

namespace posewire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AnyOf;

// An operator from functions.
class Step : public Operator {
 public:
  Step(std::string name, std::function<Status()> work, std::function<void()> stop = {})
      : Operator(std::move(name)), work_(std::move(work)), stop_(std::move(stop)) {}
  Status run() override { return work_(); }
  void stop() noexcept override {
    if (stop_) {
      stop_();
    }
  }

 private:
  std::function<Status()> work_;
  std::function<void()> stop_;
};

Step producer(Channel<int>* out, int count) {
  return Step("source", [=] {
    for (int i = 0; i < count && out->wait_push(int{i}); ++i) {
    }
    return Status();
  });
}

Step forward(Channel<int>* in, Channel<int>* out) {
  return Step("middle", [=] {
    int item = 0;
    while (in->wait_pop(&item) && out->wait_push(int{item})) {
    }
    return Status();
  });
}

TEST(Graph, EndsByItselfWhenSourcesEnd) {
  Channel<int> a(2, Policy::kBlock), b(2, Policy::kBlock);
  int sum = 0;
  Step source = producer(&a, 1000), middle = forward(&a, &b);
  Step sink("sink", [&] {
    int item = 0;
    while (b.wait_pop(&item)) {
      sum += item;
    }
    return Status();
  });
  Graph graph;
  graph.add(&source, {&a});
  graph.add(&middle, {&b});
  graph.add(&sink, {});
  graph.start();
  EXPECT_TRUE(graph.wait_for(seconds(30)));
  EXPECT_TRUE(graph.wait().ok());
  EXPECT_EQ(sum, 499500);
}

TEST(Graph, ClosesAChannelWhenItsLastWriterEnds) {
  Channel<int> a(1, Policy::kBlock);
  Step one = producer(&a, 100), two = producer(&a, 200), three = producer(&a, 0);
  int count = 0;
  Step sink("sink", [&] {
    int item = 0;
    while (a.wait_pop(&item)) {
      ++count;
    }
    return Status();
  });
  Graph graph;
  for (Step* step : {&one, &two, &three}) {
    graph.add(step, {&a});
  }
  graph.add(&sink, {});
  graph.start();
  EXPECT_TRUE(graph.wait().ok());
  EXPECT_EQ(count, 300);
}

// The first failure ends everybody, wherever they wait, and is reported with its operator's name.
TEST(Graph, FirstFailureEndsEverybody) {
  for (int round = 0; round < 30; ++round) {
    Channel<int> a(1, Policy::kBlock), b(1, Policy::kBlock), idle(1, Policy::kBlock);
    Step source = producer(&a, 1 << 30);
    Step waiting("waiting", [&] {
      int item = 0;
      EXPECT_FALSE(idle.wait_pop(&item));
      return Status(Code::kBug, "came second");
    });
    Step failing("infer", [&] {
      int item = 0;
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(a.wait_pop(&item));
      }
      return Status(Code::kUnavailable, "the device is gone");
    });
    Graph graph;
    graph.add(&source, {&a, &idle});
    graph.add(&waiting, {});
    graph.add(&failing, {&b});
    graph.start();
    const Status status = graph.wait();
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_EQ(status.what(), "infer: the device is gone");
  }
}

TEST(Graph, AnExceptionIsABugAndAnErrorKeepsItsCode) {
  Step throws("decode", []() -> Status { throw std::runtime_error("index 7"); });
  Graph graph;
  graph.add(&throws, {});
  graph.start();
  const Status status = graph.wait();
  EXPECT_EQ(status.code(), Code::kBug);
  EXPECT_EQ(status.what(), "decode: index 7");

  Step error("sink", []() -> Status { throw Error(Code::kCannotWrite, "out.mp4", "disk full"); });
  Graph other;
  other.add(&error, {});
  other.start();
  EXPECT_EQ(other.wait().code(), Code::kCannotWrite);
}

TEST(Graph, StopDrainsWhatIsUnderWay) {
  Channel<int> a(4, Policy::kBlock);
  std::atomic<bool> stopped{false};
  int pushed = 0, popped = 0;
  Step source(
      "source",
      [&] {
        while (!stopped && a.wait_push(int{pushed})) {
          ++pushed;
        }
        return Status();
      },
      [&] { stopped = true; });
  Step sink("sink", [&] {
    int item = 0;
    while (a.wait_pop(&item)) {
      ++popped;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return Status();
  });
  Graph graph;
  graph.add(&source, {&a});
  graph.add(&sink, {});
  graph.start();
  EXPECT_FALSE(graph.wait_for(milliseconds(20)));
  graph.stop();
  EXPECT_TRUE(graph.wait().ok());
  EXPECT_EQ(pushed, popped);
}

TEST(Graph, ItsEndDoesNotHangOnAWaitingOperator) {
  Channel<int> a(1, Policy::kBlock);
  Step waiting("waiting", [&] {
    int item = 0;
    EXPECT_FALSE(a.wait_pop(&item));
    return Status();
  });
  Step forgetful("forgetful", [&] {
    int item = 0;
    EXPECT_FALSE(a.wait_pop(&item));
    return Status();
  });
  Graph graph;
  graph.add(&waiting, {&a});
  graph.add(&forgetful, {});
  graph.start();
}

}  // namespace
}  // namespace posewire
