// SPDX-License-Identifier: Apache-2.0
// One pixel of a letterboxed picture, for the device and for the CPU. The arithmetic is that of
// OpenCV's resize and cvtColor for 8 bits (bilinear in fixed point, area in floating point, both
// compared with it in tests/cpp/letterbox_kernel_test.cpp), so that a network sees the same bytes
// whoever prepared them. Compile without contraction to fused multiply-adds.
#pragma once

#include <cmath>
#include <cstdint>

#include "infer/tensorrt/kernels.h"

#ifdef __CUDACC__
#define POSEWIRE_BOTH __host__ __device__ inline
#else
#define POSEWIRE_BOTH inline
#endif

namespace posewire {

struct Bgr {
  int b, g, r;
};

POSEWIRE_BOTH int to_byte(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }
POSEWIRE_BOTH int at_least(int value, int low) { return value < low ? low : value; }
POSEWIRE_BOTH int at_most(int value, int high) { return value > high ? high : value; }

// ITU-R BT.601, video range, in 20 bits of fraction; each 2 x 2 pixels share their chroma.
POSEWIRE_BOTH Bgr nv12_pixel(const LetterboxJob& job, int x, int y) {
  const std::uint8_t* chroma = job.planes[1] +
                               static_cast<std::size_t>(y >> 1) * job.stride_bytes[1] +
                               static_cast<std::size_t>(x >> 1) * 2;
  const int luma = job.planes[0][static_cast<std::size_t>(y) * job.stride_bytes[0] +
                                 static_cast<std::size_t>(x)];
  const int u = static_cast<int>(chroma[0]) - 128, v = static_cast<int>(chroma[1]) - 128;
  const int light = at_least(luma - 16, 0) * 1220542 + (1 << 19);
  return {to_byte((light + 2116026 * u) >> 20), to_byte((light - 852492 * v - 409993 * u) >> 20),
          to_byte((light + 1673527 * v) >> 20)};
}

POSEWIRE_BOTH Bgr pixel_of(const LetterboxJob& job, int x, int y) {
  if (job.pixels == Pixels::kNv12) {
    return nv12_pixel(job, x, y);
  }
  const std::uint8_t* at = job.planes[0] + static_cast<std::size_t>(y) * job.stride_bytes[0] +
                           static_cast<std::size_t>(x) * 3;
  return {at[0], at[1], at[2]};
}

// Bilinear on one axis: two cells and their weights in 2048ths.
struct Pair {
  int first, second, weight_first, weight_second;
};

// At the far columns the weights collapse onto the last pixel; rows are only clamped.
POSEWIRE_BOTH Pair pair_of(int at, int frame, int inside, bool column) {
  const double scale = 1.0 / (static_cast<double>(inside) / static_cast<double>(frame));
  float f = static_cast<float>((static_cast<double>(at) + 0.5) * scale - 0.5);
  int cell = static_cast<int>(floorf(f));
  f -= static_cast<float>(cell);
  if (column && cell < 0) {
    cell = 0;
    f = 0.0F;
  }
  if (column && cell >= frame - 1) {
    cell = frame - 1;
    f = 0.0F;
  }
  return {at_most(at_least(cell, 0), frame - 1), at_most(at_least(cell + 1, 0), frame - 1),
          static_cast<int>(rintf((1.0F - f) * 2048.0F)), static_cast<int>(rintf(f * 2048.0F))};
}

POSEWIRE_BOTH int blend(int upper, int lower, const Pair& row) {
  return (((row.weight_first * (upper >> 4)) >> 16) + ((row.weight_second * (lower >> 4)) >> 16) +
          2) >>
         2;
}

POSEWIRE_BOTH Bgr bilinear_pixel(const LetterboxJob& job, int x, int y) {
  const Pair column = pair_of(x, job.frame_width, job.width, true);
  const Pair row = pair_of(y, job.frame_height, job.height, false);
  const Bgr a = pixel_of(job, column.first, row.first);
  const Bgr b = pixel_of(job, column.second, row.first);
  const Bgr c = pixel_of(job, column.first, row.second);
  const Bgr d = pixel_of(job, column.second, row.second);
  const int p = column.weight_first, q = column.weight_second;
  return {blend(a.b * p + b.b * q, c.b * p + d.b * q, row),
          blend(a.g * p + b.g * q, c.g * p + d.g * q, row),
          blend(a.r * p + b.r * q, c.r * p + d.r * q, row)};
}

// Area on one axis: cells first … last, the outer ones in part.
struct Span {
  int first, last;
  float weight_first, weight_inner, weight_last;
};

POSEWIRE_BOTH float weight_at(const Span& span, int cell) {
  return cell == span.first  ? span.weight_first
         : cell == span.last ? span.weight_last
                             : span.weight_inner;
}

POSEWIRE_BOTH Span span_of(int at, int frame, int inside) {
  const double scale = 1.0 / (static_cast<double>(inside) / static_cast<double>(frame));
  const double begin = at * scale, end = begin + scale;
  const double rest = frame - begin, cell = scale < rest ? scale : rest;
  int inner = static_cast<int>(ceil(begin));
  const int after = at_most(static_cast<int>(floor(end)), frame - 1);
  inner = at_most(inner, after);
  Span span{};
  span.weight_inner = static_cast<float>(1.0 / cell);
  const bool before = inner - begin > 1e-3, behind = end - after > 1e-3;
  span.first = before ? inner - 1 : inner;
  span.last = behind ? after : after - 1;
  const double part = end - after < 1.0 ? end - after : 1.0;
  span.weight_first = before ? static_cast<float>((inner - begin) / cell) : span.weight_inner;
  span.weight_last =
      behind ? static_cast<float>((part < cell ? part : cell) / cell) : span.weight_inner;
  if (span.first == span.last && !before && behind) {
    span.weight_first = span.weight_last;
  }
  return span;
}

POSEWIRE_BOTH Bgr area_pixel(const LetterboxJob& job, int x, int y) {
  const Span columns = span_of(x, job.frame_width, job.width);
  const Span rows = span_of(y, job.frame_height, job.height);
  float b = 0.0F, g = 0.0F, r = 0.0F;
  for (int v = rows.first; v <= rows.last; ++v) {
    float row_b = 0.0F, row_g = 0.0F, row_r = 0.0F;
    for (int u = columns.first; u <= columns.last; ++u) {
      const Bgr pixel = pixel_of(job, u, v);
      const float weight = weight_at(columns, u);
      row_b += static_cast<float>(pixel.b) * weight;
      row_g += static_cast<float>(pixel.g) * weight;
      row_r += static_cast<float>(pixel.r) * weight;
    }
    const float weight = weight_at(rows, v);
    b += weight * row_b;
    g += weight * row_g;
    r += weight * row_r;
  }
  return {to_byte(static_cast<int>(rintf(b))), to_byte(static_cast<int>(rintf(g))),
          to_byte(static_cast<int>(rintf(r)))};
}

// Whole numbers of pixels a cell: sums of integers. 2 x 2 rounds halves up, the rest to even.
POSEWIRE_BOTH Bgr block_pixel(const LetterboxJob& job, int x, int y, int columns, int rows) {
  Bgr sum{0, 0, 0};
  for (int v = 0; v < rows; ++v) {
    for (int u = 0; u < columns; ++u) {
      const Bgr pixel = pixel_of(job, x * columns + u, y * rows + v);
      sum.b += pixel.b;
      sum.g += pixel.g;
      sum.r += pixel.r;
    }
  }
  if (columns == 2 && rows == 2) {
    return {(sum.b + 2) >> 2, (sum.g + 2) >> 2, (sum.r + 2) >> 2};
  }
  const float share = 1.0F / static_cast<float>(columns * rows);
  return {static_cast<int>(rintf(static_cast<float>(sum.b) * share)),
          static_cast<int>(rintf(static_cast<float>(sum.g) * share)),
          static_cast<int>(rintf(static_cast<float>(sum.r) * share))};
}

// Pixel (x, y) of the picture inside the network's input.
POSEWIRE_BOTH Bgr resized_pixel(const LetterboxJob& job, int x, int y) {
  const int columns = job.frame_width / job.width, rows = job.frame_height / job.height;
  const bool whole =
      columns * job.width == job.frame_width && rows * job.height == job.frame_height;
  // "Shrinks by more than 2" is meant of the axis that fills its side (preprocess.cpp).
  const bool area = job.width == job.to.width ? job.frame_width > 2 * job.to.width
                                              : job.frame_height > 2 * job.to.height;
  if (whole && (area || (columns == 2 && rows == 2))) {
    return block_pixel(job, x, y, columns, rows);
  }
  return area ? area_pixel(job, x, y) : bilinear_pixel(job, x, y);
}

POSEWIRE_BOTH void store_pixel(const NetworkPicture& to, int x, int y, int first, int second,
                               int third) {
  const int values[3] = {first, second, third};
  const std::size_t cells =
      static_cast<std::size_t>(to.width) * static_cast<std::size_t>(to.height);
  const std::size_t cell = static_cast<std::size_t>(y) * static_cast<std::size_t>(to.width) +
                           static_cast<std::size_t>(x);
  for (std::size_t c = 0; c < 3; ++c) {
    const std::size_t at = to.planar ? c * cells + cell : cell * 3 + c;
    if (to.element == Element::kUint8) {
      static_cast<std::uint8_t*>(to.data)[at] = static_cast<std::uint8_t>(values[c]);
    } else {
      static_cast<float*>(to.data)[at] = (static_cast<float>(values[c]) - to.mean[c]) / to.std[c];
    }
  }
}

// Pixel (x, y) of the network's input.
POSEWIRE_BOTH void letterbox_pixel(const LetterboxJob& job, int x, int y) {
  const int u = x - job.left, v = y - job.top;
  if (u < 0 || v < 0 || u >= job.width || v >= job.height) {
    store_pixel(job.to, x, y, 114, 114, 114);
    return;
  }
  const Bgr pixel = resized_pixel(job, u, v);
  store_pixel(job.to, x, y, job.to.rgb ? pixel.r : pixel.b, pixel.g,
              job.to.rgb ? pixel.b : pixel.r);
}

}  // namespace posewire
