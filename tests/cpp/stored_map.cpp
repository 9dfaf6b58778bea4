// SPDX-License-Identifier: Apache-2.0
#include "stored_map.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace posewire::test {
namespace {

std::uint16_t half_of(float value) {  // rounds to nearest; normal range and zero are enough here
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const float magnitude = std::abs(value);
  if (magnitude < 6.1e-5F) {
    return static_cast<std::uint16_t>(sign |
                                      static_cast<std::uint32_t>(std::lround(magnitude * 0x1p24F)));
  }
  return static_cast<std::uint16_t>(
      sign | (((bits & 0x7FFFFFFFU) - 0x38000000U + 0x0FFFU + ((bits >> 13) & 1U)) >> 13));
}

float at(const MapView& map, int c, int y, int x) {
  return static_cast<const float*>(
      map.data)[c * map.channel_stride + y * map.row_stride + x * map.column_stride];
}

void put(float value, const MapView& to, std::ptrdiff_t index) {
  auto* place = static_cast<unsigned char*>(const_cast<void*>(to.data)) +
                index * static_cast<std::ptrdiff_t>(bytes_of(to.dtype));
  const long quantised = std::lround(value / to.scale) + static_cast<long>(to.zero_point);
  const std::uint16_t half = half_of(value);
  const auto s8 = static_cast<std::int8_t>(std::clamp(quantised, -128L, 127L));
  const auto u8 = static_cast<std::uint8_t>(std::clamp(quantised, 0L, 255L));
  switch (to.dtype) {
    case DType::kFloat32:
      std::memcpy(place, &value, 4);
      break;
    case DType::kFloat16:
      std::memcpy(place, &half, 2);
      break;
    case DType::kInt8:
      std::memcpy(place, &s8, 1);
      break;
    case DType::kUint8:
      std::memcpy(place, &u8, 1);
      break;
  }
}

}  // namespace

StoredMap store_map(const MapView& map, DType dtype, Layout layout) {
  StoredMap out;
  const auto values = static_cast<std::size_t>(map.channels * map.height * map.width);
  out.bytes.resize(values * bytes_of(dtype));
  out.view = dense_map(out.bytes.data(), dtype, layout, map.channels, map.height, map.width);
  if (dtype == DType::kInt8 || dtype == DType::kUint8) {
    float most = 1e-6F;
    for (std::size_t i = 0; i < values; ++i) {
      most = std::max(most, std::abs(static_cast<const float*>(map.data)[i]));
    }
    out.view.scale = most / 120.0F;
    out.view.zero_point = dtype == DType::kInt8 ? -3 : 124;
  }
  for (int c = 0; c < map.channels; ++c) {
    for (int y = 0; y < map.height; ++y) {
      for (int x = 0; x < map.width; ++x) {
        put(at(map, c, y, x), out.view,
            c * out.view.channel_stride + y * out.view.row_stride + x * out.view.column_stride);
      }
    }
  }
  return out;
}

}  // namespace posewire::test
