// SPDX-License-Identifier: Apache-2.0
// One request: an execution context, a stream, and the memory of one batch on both sides. A batch
// is
//   upload (unless the device letterboxed) -> network -> peaks or half precision -> download,
// all put on the stream at once. What follows the upload repeats while the batch size does: from
// the third time on it is one captured graph. A graph belongs to its context's shapes, so another
// batch size drops it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "infer/tensorrt/cuda.h"
#include "infer/tensorrt/plan.h"

namespace posewire {

class TensorRtSlot {
 public:
  // number: of the request. Throws Error(kUnavailable).
  TensorRtSlot(Plan* plan, const PluginNetwork& network, int number);

  std::uint8_t* input() const noexcept { return pictures_.as<std::uint8_t>(); }
  Status letterbox(int index, const PluginFrame& frame);
  Status start(int batch);
  Status wait();

  const void* output(int index) const noexcept {
    return outputs_[static_cast<std::size_t>(index)].host.as<void>();
  }
  void peaks(int index, const std::int32_t** counts, const DevicePeak** peaks) const noexcept;
  void add_launches(std::int64_t* graphs, std::int64_t* plain) const noexcept {
    *graphs += graphs_;
    *plain += plain_;
  }

 private:
  struct Output {
    DeviceMemory device, half;  // as the network writes it; converted, if it is
    PinnedMemory host;          // none where the device finds its peaks
  };
  struct Frame {
    PinnedMemory host;
    DeviceMemory device;
  };

  void make_context(const Plan& plan, int number);
  void reserve(const Plan& plan, const PluginNetwork& network);
  void bind(const Plan& plan);
  Status set_shape(int batch);
  Status upload(int batch);
  Status enqueue(int batch);
  Status find_peaks(int batch);
  bool capture(int batch);
  Status stage(int index, const PluginFrame& frame, LetterboxJob* job);
  Status failed(const std::string& what) const;
  NetworkPicture picture(int index) const noexcept;
  std::size_t picture_bytes() const noexcept;

  Plan* const plan_;
  const int max_batch_;
  const PluginPeakQuery query_;
  // In the order in which they may go: memory last.
  PinnedMemory pictures_;        // uint8 NHWC, from the CPU
  DeviceMemory staged_, input_;  // the same on the device, if the network takes floats; its input
  std::vector<Output> outputs_;
  DeviceMemory counts_, peaks_;
  PinnedMemory host_counts_, host_peaks_;
  std::vector<Frame> frames_;
  std::vector<void*> bindings_;  // implicit batch only
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  CudaStream stream_;
  CudaGraph graph_;

  std::vector<char> prepared_;  // pictures that the device letterboxed since the last start()
  int shape_ = 0;               // the context's batch
  int repeats_ = 0;             // batches since the shape changed
  bool graphs_work_ = true;
  std::int64_t graphs_ = 0, plain_ = 0;
};

}  // namespace posewire
