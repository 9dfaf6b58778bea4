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

  // flags[i] = 1 where values[i] is over the threshold.
  void (*flag_over)(const float* values, int count, float threshold, std::uint8_t* flags);

  // sums[i] = what `discs` discs add up to at each of `count` points: weight * (1 - fall * d²)^8,
  // about weight * exp(-d² / 2 sigma²) for fall = 1 / (16 sigma²), and nothing beyond d = sigma.
  void (*sum_discs)(const float* x, const float* y, const float* fall, const float* weight,
                    int discs, const float* at_x, const float* at_y, int count, float* sums);

  // weighted[i] = score[i] * exp(-d² / 2 reach²) within the square |dx|, |dy| <= reach around the
  // point, else 0; reach > 0.
  void (*weigh_near)(const float* x, const float* y, const float* score, int count, float at_x,
                     float at_y, float reach, float* weighted);

  // Whether the point is in any of the squares |dx|, |dy| <= reach; those of the padding have a
  // negative reach.
  bool (*in_any_square)(const float* x, const float* y, const float* reach, int count, float at_x,
                        float at_y);
};

const Kernels& best_kernels();                    // for this machine
std::vector<const Kernels*> available_kernels();  // all that this machine runs, best first

}  // namespace posewire
