// SPDX-License-Identifier: Apache-2.0
// The fake TensorRT's network on a real device.
#include "tensorrt/fake_network.h"

namespace posewire::test {
namespace {

__global__ void cell_means(CellMeans job, int cells) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < cells) {
    cell_mean(job, i);
  }
}

}  // namespace

cudaError_t launch_cell_means(const CellMeans& job, cudaStream_t stream) {
  const int cells = job.batch * 3 * job.cells_high * job.cells_wide;
  cell_means<<<static_cast<unsigned>((cells + 127) / 128), 128, 0, stream>>>(job, cells);
  return cudaGetLastError();
}

}  // namespace posewire::test
