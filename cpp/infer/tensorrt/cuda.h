// SPDX-License-Identifier: Apache-2.0
// The CUDA runtime's objects with owners. Making one throws Error(kUnavailable); none is made while
// frames run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

#include "core/error.h"

namespace posewire {

inline std::string cuda_text(const char* call, cudaError_t error) {
  return std::string(call) + ": " + cudaGetErrorString(error);
}

inline void cuda_check(const char* call, cudaError_t error) {
  if (error != cudaSuccess) {
    cudaGetLastError();  // the next call must not report it again
    throw Error(Code::kUnavailable, "CUDA", cuda_text(call, error));
  }
}

// Memory on the device, or page-locked memory of the CPU: copies to and from it are asynchronous.
enum class Memory { kDevice, kPinned };

template <Memory kind>
class CudaMemory {
 public:
  CudaMemory() = default;
  explicit CudaMemory(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) {
      return;
    }
    if (kind == Memory::kDevice) {
      cuda_check("cudaMalloc", cudaMalloc(&data_, bytes));
    } else {
      cuda_check("cudaHostAlloc", cudaHostAlloc(&data_, bytes, cudaHostAllocDefault));
    }
  }
  ~CudaMemory() {
    if (data_ != nullptr) {
      kind == Memory::kDevice ? cudaFree(data_) : cudaFreeHost(data_);
    }
  }
  CudaMemory(CudaMemory&& other) noexcept { *this = std::move(other); }
  CudaMemory& operator=(CudaMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  template <typename T>
  T* as() const noexcept {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};
using DeviceMemory = CudaMemory<Memory::kDevice>;
using PinnedMemory = CudaMemory<Memory::kPinned>;

// A stream and the event that ends its batch. Waiting sleeps: the core is the decoder's.
class CudaStream {
 public:
  CudaStream() {
    cuda_check("cudaStreamCreateWithFlags",
               cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    const cudaError_t error =
        cudaEventCreateWithFlags(&done_, cudaEventBlockingSync | cudaEventDisableTiming);
    if (error != cudaSuccess) {
      cudaStreamDestroy(stream_);
      cuda_check("cudaEventCreateWithFlags", error);
    }
  }
  ~CudaStream() {
    cudaStreamSynchronize(stream_);  // its memory may go then
    cudaEventDestroy(done_);
    cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  cudaStream_t get() const noexcept { return stream_; }
  cudaEvent_t done() const noexcept { return done_; }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

class CudaGraph {
 public:
  CudaGraph() = default;
  ~CudaGraph() { drop(); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  // Takes what a capture made. False: it cannot be instantiated.
  bool take(cudaGraph_t graph) noexcept {
    drop();
    const bool made = cudaGraphInstantiateWithFlags(&exec_, graph, 0) == cudaSuccess;
    cudaGraphDestroy(graph);
    if (!made) {
      exec_ = nullptr;
    }
    return made;
  }
  void drop() noexcept {
    if (exec_ != nullptr) {
      cudaGraphExecDestroy(exec_);
      exec_ = nullptr;
    }
  }
  cudaGraphExec_t get() const noexcept { return exec_; }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

}  // namespace posewire
