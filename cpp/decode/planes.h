// SPDX-License-Identifier: Apache-2.0
// Network outputs of any element type and layout as float32 planes.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

// The first `channels` channels of `view` as dense float32 planes (column_stride 1, row_stride the
// width): the view itself where it is so already, else a copy in `buffer` (grown when too small and
// then kept). Any element type, layout and scale; a value stands for (value - zero_point) * scale.
MapView float_planes(const MapView& view, int channels, const Kernels& kernels,
                     std::vector<float>* buffer);

}  // namespace posewire
