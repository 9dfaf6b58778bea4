// SPDX-License-Identifier: Apache-2.0
// The same map in another layout and element type, with the memory that holds it.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace posewire::test {

struct StoredMap {
  std::vector<unsigned char> bytes;
  MapView view;
};

// `map` is float32. Integers are scaled to the map's own range, with a zero point that is not 0.
StoredMap store_map(const MapView& map, DType dtype, Layout layout);

}  // namespace posewire::test
