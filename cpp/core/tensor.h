// SPDX-License-Identifier: Apache-2.0
// Views of memory that somebody else owns: network inputs and outputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace posewire {

enum class DType : std::uint8_t { kUint8, kInt8, kFloat16, kFloat32 };

std::size_t bytes_of(DType dtype) noexcept;
const char* name_of(DType dtype) noexcept;  // "uint8", "int8", "float16", "float32"
DType dtype_from(const std::string& name, const std::string& where);  // throws Error(kBundle)

enum class Layout : std::uint8_t { kNCHW, kNHWC };
Layout layout_from(const std::string& name, const std::string& where);  // throws Error(kBundle)

// One frame's feature map: C channels of H x W cells, strides in elements, so that NCHW and NHWC
// are the same code. Quantised values mean (value - zero_point) * scale.
struct MapView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int channels = 0, height = 0, width = 0;
  std::ptrdiff_t channel_stride = 0, row_stride = 0, column_stride = 0;
  float scale = 1.0F;
  int zero_point = 0;
};

// A dense map with the given layout; data may be null (shape only).
MapView dense_map(const void* data, DType dtype, Layout layout, int channels, int height,
                  int width) noexcept;

}  // namespace posewire
