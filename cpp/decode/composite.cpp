// SPDX-License-Identifier: Apache-2.0
#include "decode/composite.h"

#include <algorithm>
#include <cstring>

#include "decode/planes.h"

namespace posewire {
namespace {

constexpr float kMaxScale = 16.0F;

std::size_t cells_of(int height, int width) {
  return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
}

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

CompositeCells::CompositeCells(int ends, std::size_t room) : confidence(room + kLanes) {
  for (int end = 0; end < ends; ++end) {
    for (std::vector<float>* values : {&x[end], &y[end], &scale[end]}) {
      values->resize(room + kLanes);
    }
  }
}

CompositeFields::Scratch::Scratch(int height, int width, int max_cells)
    : flags(cells_of(height, width) + kLanes, 0), offsets(static_cast<std::size_t>(max_cells)) {
  places.reserve(cells_of(height, width));
}

CompositeFields::CompositeFields(const MapView& view, const CompositeOrder& order,
                                 const Kernels& kernels, Scratch* scratch)
    : view_(view), planes_(view), order_(order), kernels_(kernels), scratch_(scratch) {
  const auto bytes = static_cast<std::ptrdiff_t>(bytes_of(view.dtype));
  planes_.data =
      static_cast<const unsigned char*>(view.data) + order.confidence * view.channel_stride * bytes;
  planes_.channels = view.channels / order.channels;
  planes_.channel_stride = view.channel_stride * order.channels;
  planes_ = float_planes(planes_, planes_.channels, kernels, &scratch->planes);
}

// Fills the scratch's places.
void CompositeFields::find(int field, float threshold, int max_cells) const {
  const int width = planes_.width, height = planes_.height;
  const std::ptrdiff_t stride = planes_.row_stride;
  const float* from = static_cast<const float*>(planes_.data) + field * planes_.channel_stride;
  std::uint8_t* flags = scratch_->flags.data();
  if (stride == width) {
    kernels_.flag_over(from, width * height, threshold, flags);
  } else {
    for (int row = 0; row < height; ++row) {
      kernels_.flag_over(from + row * stride, width, threshold, flags + row * width);
    }
  }
  std::vector<int>& places = scratch_->places;
  places.clear();
  collect(flags, width * height, &places);
  if (places.size() <= static_cast<std::size_t>(max_cells)) {
    return;
  }
  const auto value = [&](int place) { return from[place / width * stride + place % width]; };
  std::nth_element(places.begin(), places.begin() + max_cells, places.end(), [&](int i, int k) {
    return value(i) != value(k) ? value(i) > value(k) : i < k;
  });
  places.resize(static_cast<std::size_t>(max_cells));
  std::sort(places.begin(), places.end());
}

// One channel of all places, as float32.
void CompositeFields::gather(int channel, float* to) const {
  const std::ptrdiff_t* offsets = scratch_->offsets.data();
  const std::size_t count = scratch_->places.size();
  const auto first = channel * view_.channel_stride;
  const auto zero_point = static_cast<float>(view_.zero_point);
  switch (view_.dtype) {
    case DType::kFloat32: {
      const float* from = static_cast<const float*>(view_.data) + first;
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = from[offsets[i]];
      }
      return;
    }
    case DType::kFloat16: {
      const auto* from = static_cast<const std::uint16_t*>(view_.data) + first;
      for (std::size_t i = 0; i < count; ++i) {
        kernels_.from_float16(from + offsets[i], 1, 1, to + i);
      }
      return;
    }
    case DType::kInt8: {
      const auto* from = static_cast<const std::int8_t*>(view_.data) + first;
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = (static_cast<float>(from[offsets[i]]) - zero_point) * view_.scale;
      }
      return;
    }
    case DType::kUint8: {
      const auto* from = static_cast<const std::uint8_t*>(view_.data) + first;
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = (static_cast<float>(from[offsets[i]]) - zero_point) * view_.scale;
      }
      return;
    }
  }
}

void CompositeFields::append(int field, float threshold, int max_cells,
                             CompositeCells* cells) const {
  find(field, threshold, max_cells);
  const std::vector<int>& places = scratch_->places;
  const int width = view_.width;
  for (std::size_t i = 0; i < places.size(); ++i) {
    scratch_->offsets[i] =
        places[i] / width * view_.row_stride + places[i] % width * view_.column_stride;
  }
  const std::size_t start = cells->count;
  const int first = field * order_.channels;
  gather(first + order_.confidence, cells->confidence.data() + start);
  for (int end = 0; end < order_.ends; ++end) {
    gather(first + order_.first_point + 2 * end, cells->x[end].data() + start);
    gather(first + order_.first_point + 2 * end + 1, cells->y[end].data() + start);
    gather(first + order_.first_scale + end, cells->scale[end].data() + start);
  }
  const auto right = static_cast<float>(width) - 0.5F;
  const auto bottom = static_cast<float>(view_.height) - 0.5F;
  std::size_t kept = start;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::size_t from = start + i;
    bool inside = true;
    cells->confidence[kept] = std::min(cells->confidence[from], 1.0F);
    for (int end = 0; end < order_.ends; ++end) {
      float x = cells->x[end][from], y = cells->y[end][from];
      if (order_.relative) {
        x += static_cast<float>(places[i] % width);
        y += static_cast<float>(places[i] / width);
      }
      inside = inside & (x >= -0.5F) & (x <= right) & (y >= -0.5F) & (y <= bottom);
      const float scale = cells->scale[end][from];
      cells->x[end][kept] = x;
      cells->y[end][kept] = y;
      cells->scale[end][kept] = scale > 0.0F ? std::min(scale, kMaxScale) : 0.0F;
    }
    kept += inside ? 1 : 0;
  }
  cells->count = kept;
}

}  // namespace posewire
