// SPDX-License-Identifier: Apache-2.0
// Joins several channels ("lanes", one per camera) into batches: takes what is waiting when the
// runtime is free, so batches grow only when inference is the bottleneck and a lone frame never
// waits for company.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "flow/channel.h"
#include "flow/doorbell.h"

namespace posewire {

// One consumer thread. The lanes ring `bell`, and both outlive the batcher.
template <class T>
class Batcher {
 public:
  Batcher(std::vector<Channel<T>*> lanes, Doorbell* bell) : lanes_(std::move(lanes)), bell_(bell) {}

  // Blocks until something waits in some lane, then takes at most `most` items, one lane after the
  // other, going on where the last batch ended: no camera starves another. `batch` is cleared
  // first and keeps its memory. False: every lane is closed and drained.
  [[nodiscard]] bool wait_take(std::size_t most, std::vector<T>* batch) {
    batch->clear();
    for (;;) {
      const std::uint64_t seen = bell_->rings();
      take_waiting(most, batch);
      if (!batch->empty()) {
        return true;
      }
      bool all_drained = true;
      for (const Channel<T>* lane : lanes_) {
        all_drained = all_drained && lane->drained();
      }
      if (all_drained) {
        return false;
      }
      bell_->wait_past(seen);
    }
  }

 private:
  void take_waiting(std::size_t most, std::vector<T>* batch) {
    std::size_t empty_in_a_row = 0;
    while (batch->size() < most && empty_in_a_row < lanes_.size()) {
      T item{};
      if (lanes_[next_]->try_pop(&item)) {
        batch->push_back(std::move(item));
        empty_in_a_row = 0;
      } else {
        ++empty_in_a_row;
      }
      next_ = (next_ + 1) % lanes_.size();
    }
  }

  std::vector<Channel<T>*> lanes_;
  Doorbell* bell_;
  std::size_t next_ = 0;
};

}  // namespace posewire
