// SPDX-License-Identifier: Apache-2.0
// Composite fields (Kreiss et al., CVPR 2019): per field a plane of confidences and, cell by cell,
// positions and scales that only matter where the confidence is high. The confidences are read as
// planes, everything else one element at a time from where it stands: of a few thousand active
// cells against half a million elements.
#pragma once

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

// A cell's content: cells of the map; scales in cells.
struct CompositeCell {
  float confidence = 0.0F;  // 0 … 1
  float x[2] = {}, y[2] = {}, scale[2] = {};
};

// Working memory of find_cells, sized once for a map size.
struct CellSearch {
  CellSearch(int height, int width);

  std::vector<std::uint8_t> flags;
  std::vector<int> places;    // row * width + column of the cells found, in this order
  std::vector<float> values;  // their values
};

class CompositeFields {
 public:
  CompositeFields(const MapView& view, const CompositeOrder& order, const Kernels& kernels)
      : view_(view), order_(order), kernels_(kernels) {}

  // One plane a field, float32; a copy in `buffer` unless they are that already.
  MapView confidences(std::vector<float>* buffer) const;

  // The cell at `place`. False where no position in the map is said: NaN, or further than half a
  // cell outside. Scales come clamped to 0 … kMaxScale (NaN: 0).
  bool read(int field, int place, float confidence, CompositeCell* cell) const;

  static constexpr float kMaxScale = 16.0F;

 private:
  float element(int channel, int row, int column) const;

  MapView view_;
  CompositeOrder order_;
  const Kernels& kernels_;
};

// Cells of a plane over `threshold`: the `max_cells` highest (equal ones: first in memory).
// O(height * width).
void find_cells(const MapView& planes, int plane, float threshold, int max_cells,
                const Kernels& kernels, CellSearch* search);

}  // namespace posewire
