// SPDX-License-Identifier: Apache-2.0
#include "decode/composite.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "decode/planes.h"

namespace posewire {
namespace {

std::size_t cells_of(int height, int width) {
  return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
}

}  // namespace

CellSearch::CellSearch(int height, int width) : flags(cells_of(height, width) + kLanes, 0) {
  places.reserve(cells_of(height, width));
  values.reserve(cells_of(height, width));
}

MapView CompositeFields::confidences(std::vector<float>* buffer) const {
  MapView planes = view_;
  planes.data =
      static_cast<const unsigned char*>(view_.data) +
      order_.confidence * view_.channel_stride * static_cast<std::ptrdiff_t>(bytes_of(view_.dtype));
  planes.channels = view_.channels / order_.channels;
  planes.channel_stride = view_.channel_stride * order_.channels;
  return float_planes(planes, planes.channels, kernels_, buffer);
}

float CompositeFields::element(int channel, int row, int column) const {
  const std::ptrdiff_t at =
      channel * view_.channel_stride + row * view_.row_stride + column * view_.column_stride;
  float value = 0.0F;
  switch (view_.dtype) {
    case DType::kFloat32:
      return static_cast<const float*>(view_.data)[at];
    case DType::kFloat16:
      kernels_.from_float16(static_cast<const std::uint16_t*>(view_.data) + at, 1, 1, &value);
      return value;
    case DType::kInt8:
      kernels_.from_int8(static_cast<const std::int8_t*>(view_.data) + at, 1, 1, view_.scale,
                         static_cast<float>(view_.zero_point), &value);
      return value;
    case DType::kUint8:
      kernels_.from_uint8(static_cast<const std::uint8_t*>(view_.data) + at, 1, 1, view_.scale,
                          static_cast<float>(view_.zero_point), &value);
      return value;
  }
  return value;
}

bool CompositeFields::read(int field, int place, float confidence, CompositeCell* cell) const {
  const int row = place / view_.width, column = place % view_.width;
  const int first = field * order_.channels;
  const auto right = static_cast<float>(view_.width) - 0.5F;
  const auto bottom = static_cast<float>(view_.height) - 0.5F;
  const float left_of = order_.relative ? static_cast<float>(column) : 0.0F;
  const float top_of = order_.relative ? static_cast<float>(row) : 0.0F;
  cell->confidence = std::min(confidence, 1.0F);
  for (int end = 0; end < order_.ends; ++end) {
    const int point = first + order_.first_point + 2 * end;
    const float x = left_of + element(point, row, column);
    const float y = top_of + element(point + 1, row, column);
    if (!(x >= -0.5F && x <= right && y >= -0.5F && y <= bottom)) {  // NaN as well
      return false;
    }
    const float scale = element(first + order_.first_scale + end, row, column);
    cell->x[end] = x;
    cell->y[end] = y;
    cell->scale[end] = scale > 0.0F ? std::min(scale, kMaxScale) : 0.0F;
  }
  return true;
}

namespace {

// Places of the flags, eight looked at together: few cells are active.
void collect(const std::uint8_t* flags, int count, std::vector<int>* places) {
  for (int i = 0; i < count; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, flags + i, sizeof eight);
    if (eight == 0) {
      continue;
    }
    for (int k = i; k < std::min(i + 8, count); ++k) {
      if (flags[k] != 0) {
        places->push_back(k);
      }
    }
  }
}

}  // namespace

void find_cells(const MapView& planes, int plane, float threshold, int max_cells,
                const Kernels& kernels, CellSearch* search) {
  const float* from = static_cast<const float*>(planes.data) + plane * planes.channel_stride;
  const int width = planes.width, height = planes.height;
  if (planes.row_stride == width) {
    kernels.flag_over(from, width * height, threshold, search->flags.data());
  } else {
    for (int row = 0; row < height; ++row) {
      kernels.flag_over(from + row * planes.row_stride, width, threshold,
                        search->flags.data() + row * width);
    }
  }
  std::vector<int>& places = search->places;
  places.clear();
  collect(search->flags.data(), width * height, &places);
  const auto value = [&](int place) {
    return from[place / width * planes.row_stride + place % width];
  };
  if (places.size() > static_cast<std::size_t>(max_cells)) {
    std::nth_element(places.begin(), places.begin() + max_cells, places.end(), [&](int i, int k) {
      return value(i) != value(k) ? value(i) > value(k) : i < k;
    });
    places.resize(static_cast<std::size_t>(max_cells));
    std::sort(places.begin(), places.end());
  }
  search->values.clear();
  for (const int place : places) {
    search->values.push_back(value(place));
  }
}

}  // namespace posewire
