// SPDX-License-Identifier: Apache-2.0
// Network outputs of any element type and layout as float32 planes.
#pragma once

#include <cstddef>
#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

// The first `channels` channels of `view` as dense float32 planes (column_stride 1, row_stride the
// width): the view itself where it is so already, else a copy in `buffer` (grown when too small and
// then kept). Any element type, layout and scale; a value stands for (value - zero_point) * scale.
MapView float_planes(const MapView& view, int channels, const Kernels& kernels,
                     std::vector<float>* buffer);

// `count` values of `view`, the first `index` elements after the view's first and `step` apart: for
// rows that look at few cells and need no plane.
void read_values(const MapView& view, std::ptrdiff_t index, std::ptrdiff_t step, int count,
                 const Kernels& kernels, float* to);

// One of them; of float32 a plain load.
inline float read_value(const MapView& view, std::ptrdiff_t index, const Kernels& kernels) {
  if (view.dtype == DType::kFloat32) {
    return static_cast<const float*>(view.data)[index];
  }
  float value = 0.0F;
  read_values(view, index, 1, 1, kernels, &value);
  return value;
}

}  // namespace posewire
