// SPDX-License-Identifier: Apache-2.0
// The bounded FIFO between two operators. It holds its items in a ring that is allocated once.
// Every item that went in comes out or is counted as dropped: pushed = popped + dropped + depth.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "flow/doorbell.h"

namespace posewire {

enum class Policy : std::uint8_t {
  kBlock,      // a full channel makes the producer wait: nothing is lost
  kDropOldest  // a full channel loses its oldest item, which is counted: the producer never waits
};

struct ChannelCounts {
  std::uint64_t pushed = 0, popped = 0, dropped = 0;
  std::size_t depth = 0;
};

// What a graph needs to know of a channel, whatever it carries. Every method: any thread.
class AnyChannel {
 public:
  virtual ~AnyChannel() = default;
  virtual void close() = 0;  // no more pushes; what is inside can still be popped
  virtual void abort() = 0;  // close, and drop what is inside
  virtual ChannelCounts counts() const = 0;
};

// Several producers and several consumers. T is moved, never copied; a dropped T is destroyed
// (outside the lock), which gives pooled memory back to its pool.
template <class T>
class Channel final : public AnyChannel {
  static_assert(std::is_nothrow_move_assignable<T>::value, "an item may not get lost on its way");

 public:
  // `bell`, when given, is rung after each push and close: a consumer of several channels waits on
  // it. It must outlive the channel.
  Channel(std::size_t capacity, Policy policy, Doorbell* bell = nullptr)
      : policy_(policy), bell_(bell), ring_(capacity == 0 ? 1 : capacity) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Any producer. Blocks while a kBlock channel is full. False: closed, and `item` is untouched.
  [[nodiscard]] bool wait_push(T&& item) {
    T displaced{};
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (policy_ == Policy::kBlock) {
        not_full_.wait(lock, [&] { return closed_ || counts_.depth < ring_.size(); });
      }
      if (closed_) {
        return false;
      }
      if (counts_.depth == ring_.size()) {
        displaced = take_oldest();
        ++counts_.dropped;
      }
      put(std::move(item));
    }
    announce();
    return true;
  }

  // Any producer; never blocks. False: closed or (kBlock) full, and `item` is untouched.
  [[nodiscard]] bool try_push(T&& item) {
    T displaced{};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const bool full = counts_.depth == ring_.size();
      if (closed_ || (full && policy_ == Policy::kBlock)) {
        return false;
      }
      if (full) {
        displaced = take_oldest();
        ++counts_.dropped;
      }
      put(std::move(item));
    }
    announce();
    return true;
  }

  // Any consumer. Blocks while the channel is empty and open. False: closed and drained.
  [[nodiscard]] bool wait_pop(T* item) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      not_empty_.wait(lock, [&] { return closed_ || counts_.depth > 0; });
      if (counts_.depth == 0) {
        return false;
      }
      *item = take_oldest();
      ++counts_.popped;
    }
    not_full_.notify_one();
    return true;
  }

  // Any consumer; as wait_pop, but gives up after `timeout`: false, and *closed says whether more
  // may come.
  template <class Duration>
  [[nodiscard]] bool wait_pop_timed(T* item, Duration timeout, bool* closed) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      not_empty_.wait_for(lock, timeout, [&] { return closed_ || counts_.depth > 0; });
      *closed = closed_ && counts_.depth == 0;
      if (counts_.depth == 0) {
        return false;
      }
      *item = take_oldest();
      ++counts_.popped;
    }
    not_full_.notify_one();
    return true;
  }

  // Any consumer; never blocks. False: nothing is waiting.
  [[nodiscard]] bool try_pop(T* item) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (counts_.depth == 0) {
        return false;
      }
      *item = take_oldest();
      ++counts_.popped;
    }
    not_full_.notify_one();
    return true;
  }

  void close() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    wake_everybody();
  }

  void abort() override {
    for (;;) {  // one by one: an item's destructor may take other locks
      T dropped{};
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      if (counts_.depth == 0) {
        break;
      }
      dropped = take_oldest();
      ++counts_.dropped;
    }
    wake_everybody();
  }

  ChannelCounts counts() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }

  // Any thread: closed and empty, so that no pop will ever succeed again.
  bool drained() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return closed_ && counts_.depth == 0;
  }

 private:
  // Both under the lock, with room respectively something there.
  void put(T&& item) noexcept {
    ring_[(oldest_ + counts_.depth) % ring_.size()] = std::move(item);
    ++counts_.depth;
    ++counts_.pushed;
  }
  T take_oldest() noexcept {
    T item = std::move(ring_[oldest_]);
    oldest_ = (oldest_ + 1) % ring_.size();
    --counts_.depth;
    return item;
  }

  void announce() {
    not_empty_.notify_one();
    if (bell_ != nullptr) {
      bell_->ring();
    }
  }
  void wake_everybody() {
    not_empty_.notify_all();
    not_full_.notify_all();
    if (bell_ != nullptr) {
      bell_->ring();
    }
  }

  const Policy policy_;
  Doorbell* const bell_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable not_empty_, not_full_;
  std::vector<T> ring_;
  std::size_t oldest_ = 0;
  ChannelCounts counts_;
  bool closed_ = false;
};

}  // namespace posewire
