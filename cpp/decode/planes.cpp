// SPDX-License-Identifier: Apache-2.0
#include "decode/planes.h"

#include <cstddef>
#include <cstdint>

namespace posewire {
namespace {

// One element's place, `index` elements after the view's first.
const void* at(const MapView& view, std::ptrdiff_t index) {
  return static_cast<const unsigned char*>(view.data) +
         index * static_cast<std::ptrdiff_t>(bytes_of(view.dtype));
}

void convert(const MapView& view, const void* from, int count, std::ptrdiff_t step,
             const Kernels& kernels, float* to) {
  switch (view.dtype) {
    case DType::kFloat32:
      kernels.from_float32(static_cast<const float*>(from), step, count, to);
      return;
    case DType::kFloat16:
      kernels.from_float16(static_cast<const std::uint16_t*>(from), step, count, to);
      return;
    case DType::kInt8:
      kernels.from_int8(static_cast<const std::int8_t*>(from), step, count, view.scale,
                        static_cast<float>(view.zero_point), to);
      return;
    case DType::kUint8:
      kernels.from_uint8(static_cast<const std::uint8_t*>(from), step, count, view.scale,
                         static_cast<float>(view.zero_point), to);
      return;
  }
}

}  // namespace

MapView float_planes(const MapView& view, int channels, const Kernels& kernels,
                     std::vector<float>* buffer) {
  // A sequence has one row, whose stride says nothing.
  const bool dense = view.column_stride == 1 && (view.height == 1 || view.row_stride == view.width);
  if (view.dtype == DType::kFloat32 && dense) {
    MapView same = view;
    same.channels = channels;
    same.row_stride = view.width;
    return same;
  }
  const auto row = static_cast<std::size_t>(view.width);
  const std::size_t plane = row * static_cast<std::size_t>(view.height);
  const std::size_t needed = plane * static_cast<std::size_t>(channels);
  if (buffer->size() < needed) {
    buffer->resize(needed);
  }
  // Row by row over all channels: with NHWC one row of all channels stays in the first-level cache
  // while it is read `channels` times.
  for (int y = 0; y < view.height; ++y) {
    for (int c = 0; c < channels; ++c) {
      float* to =
          buffer->data() + static_cast<std::size_t>(c) * plane + static_cast<std::size_t>(y) * row;
      convert(view, at(view, c * view.channel_stride + y * view.row_stride), view.width,
              view.column_stride, kernels, to);
    }
  }
  return dense_map(buffer->data(), DType::kFloat32, Layout::kNCHW, channels, view.height,
                   view.width);
}

void read_values(const MapView& view, std::ptrdiff_t index, std::ptrdiff_t step, int count,
                 const Kernels& kernels, float* to) {
  convert(view, at(view, index), count, step, kernels, to);
}

}  // namespace posewire
