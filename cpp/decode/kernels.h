// SPDX-License-Identifier: Apache-2.0
// The inner loops, compiled once per instruction set and chosen at run time: a portable build uses
// the machine's vectors. Written branch-free over arrays so that the compiler vectorises them; all
// variants give the same bits (no contraction, no reordering of sums). None allocates or throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace posewire {

// Arrays that the kernels read and write are padded to this many elements.
constexpr int kLanes = 16;

// PAF planes of one limb: float32, column_stride 1. Sampled bilinearly, clamped to the map.
struct FieldView {
  const float* x = nullptr;
  const float* y = nullptr;
  int height = 0, width = 0;
  int row_stride = 0;  // elements
};

// Segments between candidate keypoints, one per index, in cells.
struct Segments {
  float* ax;
  float* ay;
  float* ux;  // unit vector from a to b
  float* uy;
  float* length;
  float* sum;   // in: of the two ends' dot products; out: of all samples
  float* hits;  // in: ends over the threshold; out: all samples over it
};

struct Kernels {
  const char* name;  // "avx512", "avx2", "portable" (SSE2 on x86-64, NEON on AArch64)

  // Element conversion; `step` in elements between two of them.
  void (*from_float32)(const float* from, std::ptrdiff_t step, int count, float* to);
  void (*from_float16)(const std::uint16_t* from, std::ptrdiff_t step, int count, float* to);
  void (*from_int8)(const std::int8_t* from, std::ptrdiff_t step, int count, float scale,
                    float zero_point, float* to);
  void (*from_uint8)(const std::uint8_t* from, std::ptrdiff_t step, int count, float scale,
                     float zero_point, float* to);

  // Copies a plane into the middle of one with a border of one cell, NaN as -Inf (comparisons of
  // neighbours then are an order); true where any cell is over the threshold.
  bool (*copy_plane)(const float* from, std::ptrdiff_t row_stride, int height, int width,
                     float threshold, float* bordered);

  // flags[i] = 1 where bordered[i] is over the threshold and a local maximum among its eight
  // neighbours, for i in [0, count), rows `stride` elements apart. Of equal neighbours the first in
  // memory wins, so that a plateau gives one peak. bordered points at the first inner row.
  void (*flag_peaks)(const float* bordered, int stride, int count, float threshold,
                     std::uint8_t* flags);

  // Sub-cell offset on one axis from three values in a row, by a parabola through their logarithms:
  // exact for a Gaussian of any width. In [-0.5, 0.5], never NaN.
  void (*refine)(const float* before, const float* peak, const float* after, int count,
                 float* offset);

  // Bilinear samples of a field at points (cells).
  void (*sample)(const FieldView& field, const float* x, const float* y, int count, float* fx,
                 float* fy);

  // One keypoint a against `count` candidates b: keep[j] = 1 where at least two of three samples
  // (both ends, whose field values are given, and the middle) agree with the direction a -> b.
  // Writes sum and hits of the two ends, and the segment, per candidate.
  void (*probe)(const FieldView& field, float ax, float ay, float afx, float afy, const float* bx,
                const float* by, const float* bfx, const float* bfy, int count, float threshold,
                const Segments& out, std::uint8_t* keep);

  // Adds the inner samples (all but the two ends) to each segment's sum and hits.
  void (*integrate)(const FieldView& field, const Segments& segments, int count, int samples,
                    float threshold);
};

const Kernels& best_kernels();                    // for this machine
std::vector<const Kernels*> available_kernels();  // all that this machine runs, best first

}  // namespace posewire
