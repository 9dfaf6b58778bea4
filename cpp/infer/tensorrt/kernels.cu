// SPDX-License-Identifier: Apache-2.0
// The kernels. One thread makes one pixel or tests one cell; what a pixel is stands in pixel.h and
// cell.h, the same for the CPU. Compiled with -fmad=false: the letterbox must give the CPU's bytes.
#include <cuda_fp16.h>

#include "infer/tensorrt/cell.h"
#include "infer/tensorrt/kernels.h"
#include "infer/tensorrt/pixel.h"

namespace posewire {
namespace {

constexpr int kTileWidth = 32, kTileHeight = 8;  // threads of a block that makes pixels
constexpr int kBlock = 256;                      // threads of every other block
constexpr int kWarps = kBlock / 32;

__global__ void letterbox_kernel(LetterboxJob job) {
  const int x = static_cast<int>(blockIdx.x * kTileWidth + threadIdx.x);
  const int y = static_cast<int>(blockIdx.y * kTileHeight + threadIdx.y);
  if (x < job.to.width && y < job.to.height) {
    letterbox_pixel(job, x, y);
  }
}

__global__ void normalise_kernel(const std::uint8_t* pictures, NetworkPicture to) {
  const int x = static_cast<int>(blockIdx.x * kTileWidth + threadIdx.x);
  const int y = static_cast<int>(blockIdx.y * kTileHeight + threadIdx.y);
  if (x >= to.width || y >= to.height) {
    return;
  }
  const std::size_t picture =
      static_cast<std::size_t>(to.width) * static_cast<std::size_t>(to.height) * 3;
  const std::uint8_t* from =
      pictures + blockIdx.z * picture + (static_cast<std::size_t>(y) * to.width + x) * 3;
  const std::size_t bytes = to.element == Element::kUint8 ? 1 : sizeof(float);
  to.data = static_cast<std::uint8_t*>(to.data) + blockIdx.z * picture * bytes;
  store_pixel(to, x, y, from[0], from[1], from[2]);
}

// Two numbers a thread where both arrays are aligned for it.
__global__ void to_half_kernel(const float* from, std::uint16_t* to, std::size_t count) {
  const std::size_t i = (static_cast<std::size_t>(blockIdx.x) * kBlock + threadIdx.x) * 2;
  if (i + 1 < count) {
    const float2 pair = *reinterpret_cast<const float2*>(from + i);
    *reinterpret_cast<__half2*>(to + i) = __floats2half2_rn(pair.x, pair.y);
  } else if (i < count) {
    to[i] = __half_as_ushort(__float2half_rn(from[i]));
  }
}

// A block walks over one plane, kBlock cells at a time, and keeps the cells' order: each warp's
// peaks are numbered by its ballot, each block's warps by their counts.
__global__ void peaks_kernel(PeakJob job) {
  __shared__ int in_warp[kWarps];
  const int cells = job.height * job.width;
  const std::size_t plane = static_cast<std::size_t>(blockIdx.x) * cells;
  DevicePeak* peaks = job.peaks + static_cast<std::size_t>(blockIdx.x) * job.max_peaks;
  const unsigned lane = threadIdx.x & 31U, warp = threadIdx.x >> 5U;
  int found = 0;
  for (int first = 0; first < cells; first += kBlock) {
    const int cell = first + static_cast<int>(threadIdx.x);
    DevicePeak peak{};
    const bool is = cell < cells && peak_at(job, plane, cell % job.width, cell / job.width, &peak);
    const unsigned ballot = __ballot_sync(0xFFFFFFFFU, is);
    if (lane == 0) {
      in_warp[warp] = __popc(ballot);
    }
    __syncthreads();
    int before = found, all = 0;
    for (unsigned w = 0; w < kWarps; ++w) {
      before += w < warp ? in_warp[w] : 0;
      all += in_warp[w];
    }
    before += __popc(ballot & ((1U << lane) - 1U));
    if (is && before < job.max_peaks) {
      peaks[before] = peak;
    }
    found += all;
    __syncthreads();  // in_warp is written again
  }
  if (threadIdx.x == 0) {
    job.counts[blockIdx.x] = found;
  }
}

unsigned blocks_for(std::size_t count, std::size_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

dim3 tiles(int width, int height, int pictures) {
  return dim3(blocks_for(static_cast<std::size_t>(width), kTileWidth),
              blocks_for(static_cast<std::size_t>(height), kTileHeight),
              static_cast<unsigned>(pictures));
}

}  // namespace

cudaError_t kernels_run_here() {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, letterbox_kernel);
  cudaGetLastError();  // the next call must not report it again
  return error;
}

cudaError_t launch_letterbox(const LetterboxJob& job, cudaStream_t stream) {
  letterbox_kernel<<<tiles(job.to.width, job.to.height, 1), dim3(kTileWidth, kTileHeight), 0,
                     stream>>>(job);
  return cudaGetLastError();
}

cudaError_t launch_normalise(const std::uint8_t* pictures, int count, const NetworkPicture& to,
                             cudaStream_t stream) {
  normalise_kernel<<<tiles(to.width, to.height, count), dim3(kTileWidth, kTileHeight), 0, stream>>>(
      pictures, to);
  return cudaGetLastError();
}

cudaError_t launch_to_half(const float* from, std::uint16_t* to, std::size_t count,
                           cudaStream_t stream) {
  to_half_kernel<<<blocks_for(count, 2 * kBlock), kBlock, 0, stream>>>(from, to, count);
  return cudaGetLastError();
}

cudaError_t launch_peaks(const PeakJob& job, cudaStream_t stream) {
  peaks_kernel<<<static_cast<unsigned>(job.planes), kBlock, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace posewire
