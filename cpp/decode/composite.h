// SPDX-License-Identifier: Apache-2.0
// Composite fields (Kreiss et al., CVPR 2019): per field a plane of confidences and, cell by cell,
// positions and scales that only matter where the confidence is high. The confidences are read as
// planes; of everything else only the active cells' elements are read, from where they stand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

// The channels of one field, from its first: a confidence, `ends` points x, y and `ends` scales.
struct CompositeOrder {
  int channels = 0, ends = 0;
  int confidence = 0, first_point = 0, first_scale = 0;
  bool relative = false;  // points are offsets from their cell, not cells of the map
};

// Active cells, one after the other; the arrays have a size once and for all.
struct CompositeCells {
  CompositeCells(int ends, std::size_t room);

  std::size_t count = 0;
  std::vector<float> confidence;            // 0 … 1
  std::vector<float> x[2], y[2], scale[2];  // per end; cells of the map
};

class CompositeFields {
 public:
  // Working memory, sized once for a map size.
  struct Scratch {
    Scratch(int height, int width, int max_cells);

    std::vector<std::uint8_t> flags;
    std::size_t found = 0;
    std::vector<int> places;              // row * width + column of the active cells, ascending
    std::vector<std::ptrdiff_t> offsets;  // … in elements of the view
    std::vector<std::uint8_t> inside;     // whether they say a position in the map
    std::vector<float> planes;            // confidences that are not float32 planes already
  };

  // The view and the scratch outlive this.
  CompositeFields(const MapView& view, const CompositeOrder& order, const Kernels& kernels,
                  Scratch* scratch);

  // Appends a field's cells over `threshold`, the `max_cells` highest (equal ones: first in
  // memory), without those that say no position in the map: NaN, or further than half a cell
  // outside. Scales are clamped to 0 … 16 (NaN: 0). O(height * width).
  void append(int field, float threshold, int max_cells, CompositeCells* cells) const;

 private:
  void find(int field, float threshold, int max_cells) const;
  void prefetch(int first) const;
  void gather(int channel, float* to) const;

  MapView view_, planes_;
  CompositeOrder order_;
  const Kernels& kernels_;
  Scratch* scratch_;
};

}  // namespace posewire
