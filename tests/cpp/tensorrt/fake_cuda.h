// SPDX-License-Identifier: Apache-2.0
// A CUDA runtime on the CPU for the tests of the TensorRT plug-in. Nothing runs when it is put on a
// stream: it runs when somebody waits, as late as the real one might, so that a test sees whoever
// reads too early or writes too soon. Copies are checked against what was allocated.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

namespace posewire::test {

struct FakeCuda {
  // What the machine is.
  int devices = 1;
  int driver = 13000;         // 0: none is installed
  std::int32_t tensorrt = 0;  // getInferLibVersion(); 0: that of the declarations
  bool kernels = true;        // the plug-in's kernels run on this device

  // The next call of this name fails ("" none): a CUDA function, enqueue, capture.
  std::string fail;

  // What happened.
  long allocations = 0, copies = 0, pageable_copies = 0, bad_copies = 0;
  long enqueues = 0, captured = 0, graph_launches = 0, graphs_alive = 0, alive = 0;
};
FakeCuda& fake_cuda();

// True once for the call that is to fail.
bool fails_now(const char* call);

bool is_capturing(cudaStream_t stream);

// Puts work on a stream; `arguments` are copied.
using FakeWork = void (*)(const void* arguments);
cudaError_t put(cudaStream_t stream, FakeWork work, const void* arguments, std::size_t bytes);

}  // namespace posewire::test
