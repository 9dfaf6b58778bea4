// SPDX-License-Identifier: Apache-2.0
// The inner loops, compiled once per instruction set and chosen at run time: a portable build uses
// the machine's vectors. Written branch-free over arrays so that the compiler vectorises them; all
// variants give the same bits (no contraction, no reordering of sums). None allocates or throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace posewire {

// Arrays that the kernels read and write are padded to a multiple of this many elements: they
// compute whole vectors. What stands in the padding does not matter.
constexpr int kLanes = 16;

constexpr int kDarkTaps = 11;              // weights of DARK's Gaussian, one axis
constexpr int kDarkCells = kDarkTaps + 2;  // cells that a blurred 3 x 3 needs, one axis

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

  // One keypoint a against `count` candidates b of a limb: keep[j] = 1 where the limb's field
  // points from a towards b at both of them (af and bf are its values there). A field is a limb's
  // only near the limb, so most pairs of different people fail one of the two.
  void (*probe)(float ax, float ay, float afx, float afy, const float* bx, const float* by,
                const float* bfx, const float* bfy, int count, std::uint8_t* keep);

  // Index of the largest of `count` values, the first of equal ones; NaN never wins. *value is the
  // largest itself: -Inf, with index 0, where there is nothing above it. Reads `count` values, no
  // padding.
  int (*maximum)(const float* row, int count, float* value);

  // to[y][x] = (a[y][x] + b[y][width - 1 - x]) / 2: two planes of which the second is mirrored, its
  // columns moved right by `shift` after mirroring (the first `shift` ones stay). `to` is dense; no
  // padding.
  void (*mean_mirrored)(const float* a, std::ptrdiff_t a_stride, const float* b,
                        std::ptrdiff_t b_stride, int height, int width, int shift, float* to);

  // DARK's modulation and logarithm around a maximum: logs[3 r + c] = log2 of `window` convolved
  // with down x across (kDarkTaps weights each) at row r and column c of the 3 x 3 in its middle.
  // `window`: kDarkCells rows of kLanes, columns from kDarkCells on finite. Values below 0.001 of
  // the middle one's, and NaN, count as that. `logs` has kLanes elements.
  void (*blur_log)(const float* window, const float* down, const float* across, float* logs);

  // The sum of exp(beta * (row[i] - top)) over `count` values; beta >= 0. Values over `top` count
  // as `top`'s, NaN and what is below exp(-87) as next to nothing. No padding.
  float (*sum_exp)(const float* row, int count, float top, float beta);
};

const Kernels& best_kernels();                    // for this machine
std::vector<const Kernels*> available_kernels();  // all that this machine runs, best first

}  // namespace posewire
