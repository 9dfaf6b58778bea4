// SPDX-License-Identifier: Apache-2.0
// The bounded FIFO between operators: several producers, several consumers, a ring allocated once.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include "flow/any_channel.h"
#include "flow/doorbell.h"

namespace posewire {

// T is moved, never copied. A dropped T is destroyed outside the lock, which gives pooled memory
// back to its pool.
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
  [[nodiscard]] bool wait_push(T&& item) { return push(std::move(item), true); }

  // Any producer; never blocks. False: closed or (kBlock) full, and `item` is untouched.
  [[nodiscard]] bool try_push(T&& item) { return push(std::move(item), false); }

  // Any consumer. Blocks while the channel is empty and open. False: closed and drained.
  [[nodiscard]] bool wait_pop(T* item) {
    return pop(item, [this](auto& lock, auto ready) { not_empty_.wait(lock, ready); });
  }

  // Any consumer; as wait_pop, but also false when nothing came within `timeout`: see drained().
  template <class Duration>
  [[nodiscard]] bool wait_pop_timed(T* item, Duration timeout) {
    return pop(item, [this, timeout](auto& lock, auto ready) {
      not_empty_.wait_for(lock, timeout, ready);
    });
  }

  // Any consumer; never blocks. False: nothing is waiting.
  [[nodiscard]] bool try_pop(T* item) {
    return pop(item, [](auto& /*lock*/, auto /*ready*/) {});
  }

  // Any thread: closed and empty, so that no pop will ever succeed again.
  bool drained() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return closed_ && counts_.depth == 0;
  }

  void close() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    not_empty_.notify_all();
    not_full_.notify_all();
    ring_bell();
  }
  void abort() override {
    close();
    for (bool more = true; more;) {
      [[maybe_unused]] T dropped{};  // destroyed after the lock is gone
      const std::lock_guard<std::mutex> lock(mutex_);
      more = counts_.depth > 0;
      if (more) {
        dropped = take_oldest();
        ++counts_.dropped;
      }
    }
  }
  ChannelCounts counts() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return counts_;
  }

 private:
  bool push(T&& item, bool wait) {
    [[maybe_unused]] T displaced{};
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (wait && policy_ == Policy::kBlock) {
        not_full_.wait(lock, [this] { return closed_ || counts_.depth < ring_.size(); });
      }
      const bool full = counts_.depth == ring_.size();
      if (closed_ || (full && policy_ == Policy::kBlock)) {
        return false;
      }
      if (full) {
        displaced = take_oldest();
        ++counts_.dropped;
      }
      ring_[(oldest_ + counts_.depth) % ring_.size()] = std::move(item);
      ++counts_.depth;
      ++counts_.pushed;
    }
    not_empty_.notify_one();
    ring_bell();
    return true;
  }

  template <class Wait>
  bool pop(T* item, Wait wait) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wait(lock, [this] { return closed_ || counts_.depth > 0; });
      if (counts_.depth == 0) {
        return false;
      }
      *item = take_oldest();
      ++counts_.popped;
    }
    not_full_.notify_one();
    return true;
  }

  T take_oldest() noexcept {  // under the lock, with something inside
    T item = std::move(ring_[oldest_]);
    oldest_ = (oldest_ + 1) % ring_.size();
    --counts_.depth;
    return item;
  }

  void ring_bell() {
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
