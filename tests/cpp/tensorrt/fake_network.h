// SPDX-License-Identifier: Apache-2.0
// What the fake TensorRT's plans compute: each cell of an output is the mean of the input's pixels
// in its square, of the same channel, times a factor. On the CPU for the fake CUDA, in
// tests/gpu/fake_network.cu for the real one.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "infer/tensorrt/cell.h"

namespace posewire::test {

struct CellMeans {
  const void* input = nullptr;
  bool input_float = false, input_planar = false;
  int width = 0, height = 0;
  void* output = nullptr;
  bool half = false;
  int cells_wide = 0, cells_high = 0;
  float times = 1.0F;
  int batch = 0;
};
cudaError_t launch_cell_means(const CellMeans& job, cudaStream_t stream);

// Cell number i of all that the job has: [batch, 3, cells_high, cells_wide].
POSEWIRE_BOTH void cell_mean(const CellMeans& job, int i) {
  const int x = i % job.cells_wide, y = i / job.cells_wide % job.cells_high;
  const int c = i / (job.cells_wide * job.cells_high) % 3;
  const int picture = i / (job.cells_wide * job.cells_high * 3);
  const int step_x = job.width / job.cells_wide, step_y = job.height / job.cells_high;
  float sum = 0.0F;
  for (int v = 0; v < step_y; ++v) {
    for (int u = 0; u < step_x; ++u) {
      const int row = y * step_y + v, column = x * step_x + u;
      const int at = job.input_planar ? ((picture * 3 + c) * job.height + row) * job.width + column
                                      : ((picture * job.height + row) * job.width + column) * 3 + c;
      sum += job.input_float ? static_cast<const float*>(job.input)[at]
                             : static_cast<float>(static_cast<const std::uint8_t*>(job.input)[at]);
    }
  }
  const float mean = sum / static_cast<float>(step_x * step_y) * job.times;
  if (job.half) {
    static_cast<std::uint16_t*>(job.output)[i] = to_half_bits(mean);
  } else {
    static_cast<float*>(job.output)[i] = mean;
  }
}

}  // namespace posewire::test
