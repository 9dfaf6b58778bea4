// SPDX-License-Identifier: Apache-2.0
// The plug-in's kernels on the fake device.
#include <cstring>

#include "tensorrt/fake_cuda.h"
#include "tensorrt/host_kernels.h"

namespace posewire {
namespace {

template <typename Arguments, void (*run)(const Arguments&)>
cudaError_t put(const Arguments& arguments, cudaStream_t stream) {
  return test::put(
      stream,
      [](const void* bytes) {
        Arguments copy;
        std::memcpy(static_cast<void*>(&copy), bytes, sizeof(copy));
        run(copy);
      },
      &arguments, sizeof(arguments));
}

struct Normalise {
  const std::uint8_t* pictures = nullptr;
  int count = 0;
  NetworkPicture to;
};
void run(const Normalise& job) { test::host_normalise(job.pictures, job.count, job.to); }

struct ToHalf {
  const float* from = nullptr;
  std::uint16_t* to = nullptr;
  std::size_t count = 0;
};
void run(const ToHalf& job) { test::host_to_half(job.from, job.to, job.count); }

}  // namespace

cudaError_t kernels_run_here() {
  return test::fake_cuda().kernels ? cudaSuccess : cudaErrorUnknown;
}
cudaError_t launch_letterbox(const LetterboxJob& job, cudaStream_t stream) {
  return put<LetterboxJob, test::host_letterbox>(job, stream);
}
cudaError_t launch_normalise(const std::uint8_t* pictures, int count, const NetworkPicture& to,
                             cudaStream_t stream) {
  return put<Normalise, run>({pictures, count, to}, stream);
}
cudaError_t launch_to_half(const float* from, std::uint16_t* to, std::size_t count,
                           cudaStream_t stream) {
  return put<ToHalf, run>({from, to, count}, stream);
}
cudaError_t launch_peaks(const PeakJob& job, cudaStream_t stream) {
  return put<PeakJob, test::host_peaks>(job, stream);
}

}  // namespace posewire
