// SPDX-License-Identifier: Apache-2.0
// One cell of a heatmap and one number of half precision, for the device and for the CPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "infer/tensorrt/pixel.h"

namespace posewire {

POSEWIRE_BOTH float float_of_bits(std::uint32_t bits) {
  float value = 0.0F;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

POSEWIRE_BOTH std::uint32_t bits_of_float(float value) {
  std::uint32_t bits = 0;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

POSEWIRE_BOTH float from_half_bits(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10U) & 31U, mantissa = half & 1023U;
  if (exponent == 31) {
    return float_of_bits(sign | 0x7F800000U | mantissa << 13U);
  }
  if (exponent == 0) {  // zero and the subnormal: mantissa * 2^-24, exactly
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
    return sign != 0 ? -value : value;
  }
  return float_of_bits(sign | (exponent + 112) << 23U | mantissa << 13U);
}

// To the nearest, ties to even; too large is infinity, NaN stays NaN.
POSEWIRE_BOTH std::uint16_t to_half_bits(float value) {
  const std::uint32_t bits = bits_of_float(value), sign = bits >> 16U & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) {
    return static_cast<std::uint16_t>(sign | 0x7FFFU);
  }
  if (magnitude >= 0x477FF000U) {  // 65520 rounds to 2^16
    return static_cast<std::uint16_t>(sign | 0x7C00U);
  }
  std::uint32_t shift = 13, whole = magnitude - 0x38000000U;  // exponent 127 - 15
  if (magnitude < 0x38800000U) {                              // below 2^-14: subnormal
    const std::uint32_t exponent = magnitude >> 23U;
    if (exponent < 102) {  // under half of 2^-24
      return static_cast<std::uint16_t>(sign);
    }
    shift = 126 - exponent;
    whole = (magnitude & 0x7FFFFFU) | 0x800000U;
  }
  const std::uint32_t rest = whole & ((1U << shift) - 1), tie = 1U << (shift - 1);
  std::uint32_t half = whole >> shift;
  half += rest > tie || (rest == tie && (half & 1U) != 0) ? 1 : 0;
  return static_cast<std::uint16_t>(sign | half);
}

POSEWIRE_BOTH float value_at(const void* maps, bool half, std::size_t at) {
  return half ? from_half_bits(static_cast<const std::uint16_t*>(maps)[at])
              : static_cast<const float*>(maps)[at];
}

// The cell's value, or NaN outside the map.
POSEWIRE_BOTH float neighbour(const PeakJob& job, std::size_t plane, int x, int y) {
  if (x < 0 || y < 0 || x >= job.width || y >= job.height) {
    return float_of_bits(0x7FC00000U);
  }
  return value_at(job.maps, job.half, plane + static_cast<std::size_t>(y * job.width + x));
}

// Whether a cell is a peak; `plane` is its plane's first element.
POSEWIRE_BOTH bool peak_at(const PeakJob& job, std::size_t plane, int x, int y, DevicePeak* peak) {
  const float v = neighbour(job, plane, x, y);
  if (!(v > job.threshold)) {
    return false;
  }
  peak->cell = y * job.width + x;
  peak->centre = v;
  peak->left = neighbour(job, plane, x - 1, y);
  peak->right = neighbour(job, plane, x + 1, y);
  peak->upper = neighbour(job, plane, x, y - 1);
  peak->lower = neighbour(job, plane, x, y + 1);
  // Earlier cells must be lower, later ones not higher: a plateau gives one peak.
  return !(peak->left >= v) && !(peak->upper >= v) && !(peak->right > v) && !(peak->lower > v) &&
         !(neighbour(job, plane, x - 1, y - 1) >= v) &&
         !(neighbour(job, plane, x + 1, y - 1) >= v) &&
         !(neighbour(job, plane, x - 1, y + 1) > v) && !(neighbour(job, plane, x + 1, y + 1) > v);
}

}  // namespace posewire
