// SPDX-License-Identifier: Apache-2.0
// Around the runtime: one thread fills its input slots, one waits for them and decodes. Slots come
// back in the order in which they were started, which keeps every camera's frames in order.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "decode/decoder.h"
#include "flow/batcher.h"
#include "flow/channel.h"
#include "flow/operator.h"
#include "infer/device.h"
#include "infer/runtime.h"
#include "pipeline/work.h"

namespace posewire {

// The runtime's slots, on their way around.
class Slots {
 public:
  explicit Slots(Runtime* runtime);
  // Waits for what is still in the runtime, so that its memory may go.
  ~Slots();
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;

  struct Slot {
    std::vector<WorkPtr> works;  // the pictures of its batch
    std::chrono::steady_clock::time_point started;
    bool in_runtime = false;
  };

  Runtime* runtime;
  std::vector<Slot> slots;  // a slot belongs to whoever holds its number
  Channel<int> free, busy;  // numbers of slots
};

// Takes what waits when a slot is free, letterboxes it straight into the slot's input (here, or on
// the runtime's device where it can), starts it.
class PreprocessStage final : public Operator {
 public:
  // keep_pictures: some sink wants them.
  PreprocessStage(const Manifest& manifest, Slots* slots, Batcher<FramePtr>* batcher,
                  Pool<Work>* works, bool keep_pictures);
  Status run() override;

 private:
  Status prepare(FramePtr frame, Work* work, int slot, int index);
  Status letterbox_into(const Image& image, const Letterbox& geometry, int slot, int index);

  const int width_, height_;
  const Channels channels_;
  const bool keep_pictures_;
  Slots* const slots_;
  DeviceLetterbox* const device_;  // null: the CPU letterboxes
  Batcher<FramePtr>* const batcher_;
  Pool<Work>* const works_;
};

// Waits for the oldest slot, decodes its pictures, frees it, hands the poses on.
class DecodeStage final : public Operator {
 public:
  DecodeStage(const Decoder* decoder, double min_score, Slots* slots, Channel<WorkPtr>* results);
  Status run() override;

  OperatorStats& infer_stats() noexcept { return infer_stats_; }  // from start to done, per slot
  // Poses that were not finite and are not reported. Any thread.
  std::uint64_t poses_refused() const noexcept { return poses_refused_; }

 private:
  void decode(int slot);
  void refuse_what_is_not_finite(Poses* poses);

  const Decoder* const decoder_;
  const std::unique_ptr<Decoder::Scratch> scratch_;
  const float min_score_;
  Slots* const slots_;
  Channel<WorkPtr>* const results_;
  std::vector<MapView> views_;
  std::vector<WorkPtr> done_;
  OperatorStats infer_stats_;
  std::atomic<std::uint64_t> poses_refused_{0};
};

}  // namespace posewire
