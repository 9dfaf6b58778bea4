// SPDX-License-Identifier: Apache-2.0
#include "tensorrt/fake_cuda.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace {

using posewire::test::fails_now;
using posewire::test::fake_cuda;
using posewire::test::FakeWork;

struct Work {
  FakeWork run;
  cudaEvent_t event;  // or this event happens
  std::array<unsigned char, 512> arguments;
};

std::recursive_mutex& everything() {
  static std::recursive_mutex mutex;
  return mutex;
}
using Lock = std::lock_guard<std::recursive_mutex>;

struct Block {
  std::size_t bytes;
  bool device;
};
std::map<const char*, Block>& blocks() {
  static std::map<const char*, Block> all;
  return all;
}

// Whether all of it lies in one block of that kind.
bool lies_in(const void* memory, std::size_t bytes, bool device) {
  const char* const at = static_cast<const char*>(memory);
  auto block = blocks().upper_bound(at);
  if (block == blocks().begin()) {
    return false;
  }
  --block;
  return block->second.device == device && at + bytes <= block->first + block->second.bytes;
}

cudaError_t allocate(const char* call, void** memory, std::size_t bytes, bool device) {
  const Lock lock(everything());
  if (fails_now(call)) {
    return cudaErrorMemoryAllocation;
  }
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xA5, bytes);
  blocks()[static_cast<char*>(*memory)] = {bytes, device};
  ++fake_cuda().allocations;
  ++fake_cuda().alive;
  return cudaSuccess;
}

cudaError_t release(void* memory, bool device) {
  const Lock lock(everything());
  if (memory == nullptr) {
    return cudaSuccess;
  }
  const auto block = blocks().find(static_cast<char*>(memory));
  if (block == blocks().end() || block->second.device != device) {
    std::abort();
  }
  blocks().erase(block);
  std::free(memory);
  --fake_cuda().alive;
  return cudaSuccess;
}

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};
void run_copy(const void* arguments) {
  Copy copy{};
  std::memcpy(&copy, arguments, sizeof(copy));
  std::memcpy(copy.to, copy.from, copy.bytes);
}

struct Fill {
  void* to;
  int value;
  std::size_t bytes;
};
void run_fill(const void* arguments) {
  Fill fill{};
  std::memcpy(&fill, arguments, sizeof(fill));
  std::memset(fill.to, fill.value, fill.bytes);
}

}  // namespace

struct CUgraph_st {
  std::vector<Work> works;
};
struct CUgraphExec_st {
  std::vector<Work> works;
};
struct CUstream_st {
  std::vector<Work> works;
  CUgraph_st* capture = nullptr;
  bool broken = false;  // the capture
};
struct CUevent_st {
  CUstream_st* stream = nullptr;  // where it was recorded and has not happened
};

namespace {

void run_all(CUstream_st* stream) {
  for (const Work& work : stream->works) {
    if (work.event != nullptr) {
      work.event->stream = nullptr;
    } else {
      work.run(work.arguments.data());
    }
  }
  stream->works.clear();  // keeps its room: a steady stream allocates nothing
}

}  // namespace

namespace posewire::test {

FakeCuda& fake_cuda() {
  static FakeCuda state;
  return state;
}

bool fails_now(const char* call) {
  const Lock lock(everything());
  if (fake_cuda().fail != call) {
    return false;
  }
  fake_cuda().fail.clear();
  return true;
}

bool is_capturing(cudaStream_t stream) { return stream->capture != nullptr; }

cudaError_t put(cudaStream_t stream, FakeWork work, const void* arguments, std::size_t bytes) {
  const Lock lock(everything());
  Work entry{work, nullptr, {}};
  if (bytes > entry.arguments.size()) {
    std::abort();
  }
  std::memcpy(entry.arguments.data(), arguments, bytes);
  (stream->capture != nullptr ? stream->capture->works : stream->works).push_back(entry);
  return cudaSuccess;
}

}  // namespace posewire::test

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = fake_cuda().devices;
  return fake_cuda().driver == 0    ? cudaErrorInsufficientDriver
         : fake_cuda().devices == 0 ? cudaErrorNoDevice
                                    : cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "Fake GPU");
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = fake_cuda().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory"
         : error == cudaErrorNoDevice       ? "no CUDA-capable device is detected"
                                            : "injected error";
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  return allocate("cudaMalloc", memory, bytes, true);
}
cudaError_t cudaFree(void* memory) { return release(memory, true); }
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  return allocate("cudaHostAlloc", memory, bytes, false);
}
cudaError_t cudaFreeHost(void* memory) { return release(memory, false); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(everything());
  if (fails_now("cudaMemcpyAsync")) {
    return cudaErrorUnknown;
  }
  ++fake_cuda().copies;
  const bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
  const void* const host = up ? from : to;
  const void* const device = up ? to : from;
  if ((!up && !down) || !lies_in(device, bytes, true)) {
    ++fake_cuda().bad_copies;
    return cudaErrorInvalidValue;
  }
  if (!lies_in(host, bytes, false)) {
    ++fake_cuda().pageable_copies;
  }
  const Copy copy{to, from, bytes};
  return posewire::test::put(stream, run_copy, &copy, sizeof(copy));
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  const Fill fill{memory, value, bytes};
  return posewire::test::put(stream, run_fill, &fill, sizeof(fill));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  (*stream)->works.reserve(64);
  ++fake_cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  --fake_cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(everything());
  run_all(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(everything());
  if (mode != cudaStreamCaptureModeThreadLocal || stream->capture != nullptr) {
    return cudaErrorInvalidValue;
  }
  stream->capture = new CUgraph_st;
  stream->broken = fails_now("capture");
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(everything());
  *graph = stream->capture;
  stream->capture = nullptr;
  if (stream->broken) {
    delete *graph;
    *graph = nullptr;
    return cudaErrorStreamCaptureInvalidated;
  }
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (flags != (cudaEventBlockingSync | cudaEventDisableTiming)) {
    return cudaErrorInvalidValue;
  }
  *event = new CUevent_st;
  ++fake_cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --fake_cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(everything());
  stream->works.push_back({nullptr, event, {}});
  event->stream = stream;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(everything());
  if (fails_now("cudaEventSynchronize")) {
    return cudaErrorUnknown;
  }
  if (event->stream != nullptr) {
    run_all(event->stream);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long) {
  const Lock lock(everything());
  if (fails_now("cudaGraphInstantiateWithFlags")) {
    return cudaErrorUnknown;
  }
  *exec = new CUgraphExec_st{graph->works};
  ++fake_cuda().captured;
  ++fake_cuda().graphs_alive;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(everything());
  if (fails_now("cudaGraphLaunch")) {
    return cudaErrorUnknown;
  }
  ++fake_cuda().graph_launches;
  stream->works.insert(stream->works.end(), exec->works.begin(), exec->works.end());
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Lock lock(everything());
  delete exec;
  --fake_cuda().graphs_alive;
  return cudaSuccess;
}

}  // extern "C"
