// SPDX-License-Identifier: Apache-2.0
// The inner loops, compiled once per instruction set and chosen at run time: a portable build uses
// the machine's vectors. Written with the compilers' vectors of eight or as branch-free loops; all
// variants give the same bits (no contraction, no reordering of sums). None allocates or throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace posewire {

// Arrays that the kernels read and write are padded to a multiple of this many elements: they
// compute whole vectors. What stands in the padding does not matter.
constexpr int kLanes = 8;

// Cells of a heatmap that are looked at together.
constexpr int kBlock = 16;
constexpr std::uint32_t kAllOfBlock = 0xFFFFU;

// One limb's field: two dense planes of at least 2 x 2 and at most 4096 x 4096 cells.
struct FieldView {
  const float* x;
  const float* y;
  int height, width;
};

// Keypoint candidates of one type as ends of a limb: cells, and the limb's field there.
struct LimbEnds {
  float *x, *y, *field_x, *field_y;
};

// What makes a pair of candidates a limb.
struct LimbRules {
  float threshold;      // lowest component of the field along the limb that is a hit
  int least_hits;       // among all samples
  float samples;        // both ends included
  int inner;            // samples between the ends
  const float* shares;  // their places, 0 … 1 from end to end; padded with 1
  float free_length;    // cells; longer limbs lose score
};

// A limb between candidates a and b of its two types.
struct LimbPair {
  float score;
  std::uint16_t a, b;
};

// The two highest of some scores over 0, and where; score 0: none.
struct TwoBest {
  float first, second;
  int first_at, second_at;
};

constexpr int kDarkTaps = 11;              // weights of DARK's Gaussian, one axis
constexpr int kDarkCells = kDarkTaps + 2;  // cells that a blurred 3 x 3 needs, one axis
constexpr int kDarkRow = 16;               // floats from row to row of such a window

// Cells of a row that copy_blocks and find_supported look at together.
constexpr int kBlockCells = 16;

// In a sum of shares of a peak, what is far below the peak, or negative, counts as this.
constexpr float kLowShare = 0.02F;

struct Kernels {
  const char* name;  // "avx512", "avx2", "portable" (SSE2 on x86-64, NEON on AArch64)

  // Element conversion; `step` in elements between two of them.
  void (*from_float32)(const float* from, std::ptrdiff_t step, int count, float* to);
  void (*from_float16)(const std::uint16_t* from, std::ptrdiff_t step, int count, float* to);
  void (*from_int8)(const std::int8_t* from, std::ptrdiff_t step, int count, float scale,
                    float zero_point, float* to);
  void (*from_uint8)(const std::uint8_t* from, std::ptrdiff_t step, int count, float scale,
                     float zero_point, float* to);

  // Blocks of kBlock cells of a dense plane with any value over the threshold (the last one may not
  // be whole): their numbers in order, and how many; `blocks` has room for all and two more.
  // Returns the sum of the squares of the negative values (at most 1 each) among the first eight
  // of every 32 cells.
  float (*scan)(const float* plane, int cells, float threshold, std::uint32_t* blocks, int* found);

  // Places (y * width + x) in those blocks, in order, that are over the threshold and higher than
  // their eight neighbours; of equal ones the first in memory, so that a plateau gives one peak;
  // NaN is lower than any number. Bit i of border[b]: cell i of block b lacks a neighbour;
  // kAllOfBlock where the rows above and below the block are not whole. Returns how many.
  int (*maxima)(const float* plane, int height, int width, float threshold,
                const std::uint32_t* blocks, int count, const std::uint32_t* border, int* places);

  // Sub-cell offset on one axis from three values in a row, by a parabola through their logarithms:
  // exact for a Gaussian of any width. In [-0.5, 0.5], never NaN.
  void (*refine)(const float* before, const float* peak, const float* after, int count,
                 float* offset);

  // The field at `count` candidates, bilinearly, clamped to the map.
  void (*limb_ends)(const FieldView& field, const float* x, const float* y, int count,
                    LimbEnds ends);

  // The pairs of candidates that are limbs by `rules`, by a, then b; score in (0, 1]. At most 256
  // of a type. First the field must point from a towards b at both of them, then be over half
  // the threshold in two of three cells between; what is left is integrated. `out` has room for
  // count_a * count_b + 1. Returns how many.
  int (*limb_pairs)(const FieldView& field, const LimbRules& rules, LimbEnds a, int count_a,
                    LimbEnds b, int count_b, LimbPair* out);

  // flags[i] = 1 where values[i] is over the threshold.
  void (*flag_over)(const float* values, int count, float threshold, std::uint8_t* flags);

  // sums[i] = what `discs` discs add up to at each of `count` points, at most 1: a disc is weight *
  // (1 - fall * d²)^8, about weight * exp(-d² / 2 sigma²) for fall = 1 / (16 sigma²), and nothing
  // beyond d = sigma. Both in whole blocks of kLanes, with the boxes of bound_blocks.
  void (*sum_discs)(const float* x, const float* y, const float* fall, const float* weight,
                    const float* disc_boxes, int discs, const float* at_x, const float* at_y,
                    const float* boxes, int count, float* sums);

  // The two highest of score[i] * exp(-d² / 2 reach²) within the square |dx|, |dy| <= reach around
  // the point (equal ones: the first); reach > 0. Whole blocks with their boxes.
  TwoBest (*two_near)(const float* x, const float* y, const float* score, const float* boxes,
                      int count, float at_x, float at_y, float reach);

  // Whether the point is in any of the squares |dx|, |dy| <= reach; those of the padding have a
  // negative reach.
  bool (*in_any_square)(const float* x, const float* y, const float* reach, int count, float at_x,
                        float at_y);

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
  // `window`: kDarkCells rows of kDarkRow, columns from kDarkCells on finite. Values below 0.001 of
  // the middle one's, and NaN, count as that. `logs` has kDarkRow elements.
  void (*blur_log)(const float* window, const float* down, const float* across, float* logs);

  // The sum of exp(beta * (row[i] - top)) over `count` values; beta >= 0. Values over `top` count
  // as `top`'s, NaN and what is below exp(-87) as next to nothing. No padding.
  float (*sum_exp)(const float* row, int count, float top, float beta);

  // Copies a plane into `bordered`, rows `pitch` apart: cell (x, y) at (y + 1) * pitch +
  // kBlockCells
  // + x, pitch >= width rounded up to kBlockCells + 2 kBlockCells. The plane's border is repeated
  // once around it; NaN and the rest of the last block become -Inf. Lists the first cells (indices
  // in `bordered`) of the blocks with a value over the threshold, in order; returns how many.
  int (*copy_blocks)(const float* from, std::ptrdiff_t row_stride, int height, int width,
                     float threshold, float* bordered, int pitch, int* blocks);

  // Cells (indices in `bordered`) of the blocks, in order, that are over the threshold, no lower
  // than their eight neighbours, and whose neighbours' sum is at least `support` times their value.
  // Up to count * kBlockCells, cells after a row's last among them; returns how many.
  int (*find_supported)(const float* bordered, int pitch, const int* blocks, int count,
                        float threshold, float support, int* places);

  // Sums of the 5 x 5 cells around a peak, as shares of it in kLowShare … 1: of columns (five, then
  // zeros, eight in all) and of rows (five). Rows `pitch` apart; reads three cells more a row.
  void (*sum_window)(const float* at, int pitch, float* across, float* down);

  // Vertices of parabolas through log(sums[k * stride + i]) at x = k - 2, for k in 0 … 4 and i in
  // [0, count rounded up to 8), fitted with the weights sums². A sum of 0 is no point. Within 1 of
  // the middle; within 0.5 if the first or last point is missing; 0 where there is no maximum.
  void (*fit_parabolas)(const float* sums, int stride, int count, float* vertex);

  // The highest of score[i] - round(|tags[i] - tag|), NaN never winning; `floor` if none is higher.
  float (*best_by_tag)(const float* score, const float* tags, int count, float tag, float floor);

  // Indices of the values over the threshold, in order; returns how many. No padding.
  int (*list_over)(const float* values, int count, float threshold, std::int32_t* places);

  // The boxes around blocks of kLanes squares of half side `reach` (no NaN), eight boxes together:
  // eight times the lowest x, then minus the highest x, the lowest y, minus the highest y. `count`
  // is a multiple of kLanes; the last eight boxes are filled up with ones that nothing overlaps.
  void (*bound_blocks)(const float* x, const float* y, const float* reach, int count, float* boxes);

  // values[i] = 0 where the point i is in the square |dx|, |dy| <= reach. No padding.
  void (*clear_square)(const float* x, const float* y, int count, float at_x, float at_y,
                       float reach, float* values);
};

const Kernels& best_kernels();                    // for this machine
std::vector<const Kernels*> available_kernels();  // all that this machine runs, best first

}  // namespace posewire
