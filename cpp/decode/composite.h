// SPDX-License-Identifier: Apache-2.0
// Composite fields (Kreiss et al., CVPR 2019): per field a plane of confidences and, cell by cell,
// positions and scales that only matter where the confidence is high. The confidences are read as
// planes; of everything else only the active cells' elements are read, from where they stand, and
// asked for one field ahead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "decode/buckets.h"
#include "decode/kernels.h"

namespace posewire {

// The channels of one field, from its first: a confidence, `ends` points x, y and `ends` scales.
struct CompositeOrder {
  int channels = 0, ends = 0;
  int confidence = 0, first_point = 0, first_scale = 0;
  bool relative = false;  // points are offsets from their cell, not cells of the map
};

// Which cells are active.
struct CellRules {
  float threshold;  // lowest confidence
  int max_cells;    // per field, the highest confidences (equal ones: first in memory)
};

// Active cells, field by field; the arrays have a size once and for all. A field's are in blocks of
// kLanes, a block's all in one bucket; blocks are filled up with copies of confidence 0.
struct CompositeCells {
  static constexpr std::size_t kBoxes = 32;  // floats of eight boxes

  // `room`: cells of a field at most, copies included.
  CompositeCells(int ends, std::size_t fields, std::size_t room);
  static std::size_t room(const Buckets& buckets, int max_cells);

  int count(std::size_t field) const noexcept {
    return static_cast<int>(first[field + 1] - first[field]);
  }
  // Where the boxes of a field begin whose cells begin at `first`: the last eight may not be whole.
  static std::size_t box_of(int field, std::size_t first) noexcept {
    return first / 2 + kBoxes * static_cast<std::size_t>(field);
  }
  std::size_t box_of(std::size_t field) const noexcept {
    return box_of(static_cast<int>(field), first[field]);
  }

  std::vector<std::size_t> first;           // cell of a field, and the end
  std::vector<float> confidence;            // 0 … 1
  std::vector<float> x[2], y[2], scale[2];  // per end; cells of the map
  std::vector<float> boxes[2];              // per end, of every block: Kernels::bound_blocks
};

class CompositeFields {
 private:
  struct Active {
    std::size_t found = 0;
    std::vector<int> places;              // row * width + column, ascending
    std::vector<std::ptrdiff_t> offsets;  // … in elements of the view
  };

 public:
  // Working memory, sized once for a map size.
  struct Scratch {
    Scratch(int height, int width, int max_cells);

    Buckets buckets;
    Active active[2];                                     // of a field and of the one after it
    std::vector<int> counts, bucket_of, used;             // counting sort
    std::vector<int> order;                               // of the active cells
    std::vector<std::ptrdiff_t> asked;                    // bytes from a plane's first
    std::vector<float> confidence, x[2], y[2], scale[2];  // in the order of the map
    std::vector<float> zeros;                             // reaches of points
    std::vector<float> planes;  // confidences that are not float32 planes already
  };

  // The view and the scratch outlive this.
  CompositeFields(const MapView& view, const CompositeOrder& order, const CellRules& rules,
                  const Kernels& kernels, Scratch* scratch);

  // Appends a field's active cells; the fields in their order, from 0. Without those that say no
  // position in the map: NaN, or further than half a cell outside. Scales are clamped to 0 … 16
  // (NaN: 0). O(height * width).
  void append(int field, CompositeCells* cells) const;

 private:
  void find(int field) const;
  void prefetch(int field) const;
  void gather(int channel, const std::ptrdiff_t* offsets, std::size_t count, float* to) const;
  void locate(int field) const;
  std::size_t sort(std::size_t found) const;

  MapView view_, planes_;
  CompositeOrder order_;
  CellRules rules_;
  const Kernels& kernels_;
  Scratch* scratch_;
};

}  // namespace posewire
