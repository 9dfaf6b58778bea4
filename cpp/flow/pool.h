// SPDX-License-Identifier: Apache-2.0
// A bounded set of recycled objects. What was given back last is handed out first: it is still in
// the cache. Objects keep the memory they own, so the steady state does not allocate.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace posewire {

template <class T>
class Pool {
 public:
  struct GiveBack {
    Pool* pool = nullptr;
    void operator()(T* object) const noexcept { pool->give_back(object); }
  };
  using Ptr = std::unique_ptr<T, GiveBack>;  // must not outlive its pool

  explicit Pool(std::size_t size) {
    objects_.reserve(size);
    free_.reserve(size);  // so that giving back never allocates
    for (std::size_t i = 0; i < size; ++i) {
      objects_.push_back(std::make_unique<T>());
      free_.push_back(objects_.back().get());
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Any thread. Blocks while all are out. Null: closed.
  Ptr wait_take() {
    std::unique_lock<std::mutex> lock(mutex_);
    returned_.wait(lock, [&] { return closed_ || !free_.empty(); });
    return closed_ ? Ptr() : take();
  }

  // Any thread; never blocks. Null: all are out, or closed.
  Ptr try_take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return closed_ || free_.empty() ? Ptr() : take();
  }

  // Any thread: nobody waits any more.
  void close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    returned_.notify_all();
  }

  std::size_t size() const noexcept { return objects_.size(); }
  std::size_t available() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return free_.size();
  }

 private:
  Ptr take() {
    T* const object = free_.back();
    free_.pop_back();
    return Ptr(object, GiveBack{this});
  }
  void give_back(T* object) noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      free_.push_back(object);
    }
    returned_.notify_one();
  }

  std::vector<std::unique_ptr<T>> objects_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable returned_;
  std::vector<T*> free_;
  bool closed_ = false;
};

}  // namespace posewire
