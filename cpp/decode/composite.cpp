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

// Places of the flags, eight looked at together: few cells are active. Returns how many.
std::size_t collect(const std::uint8_t* flags, int count, int* places) {
  int* to = places;
  for (int i = 0; i < count; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, flags + i, sizeof eight);
    if (eight == 0) {
      continue;
    }
    for (int k = i; k < i + 8; ++k) {  // without a branch: the next place overwrites one not set
      *to = k;
      to += flags[k];
    }
  }
  return static_cast<std::size_t>(to - places);
}

// A position is in the map up to half a cell beyond the outermost centres. NaN is not.
void check_inside(const float* x, const float* y, std::size_t count, int width, int height,
                  std::uint8_t* inside) {
  const auto right = static_cast<float>(width) - 0.5F, bottom = static_cast<float>(height) - 0.5F;
  for (std::size_t i = 0; i < count; ++i) {
    const bool in = (x[i] >= -0.5F) & (x[i] <= right) & (y[i] >= -0.5F) & (y[i] <= bottom);
    inside[i] = static_cast<std::uint8_t>(inside[i] & static_cast<int>(in));
  }
}

// Closes the gaps after `start`.
void drop_outside(const std::uint8_t* inside, std::size_t start, int ends, CompositeCells* cells) {
  std::size_t kept = start;
  for (std::size_t i = start; i < cells->count; ++i) {
    if (inside[i - start] == 0) {
      continue;
    }
    cells->confidence[kept] = cells->confidence[i];
    for (int end = 0; end < ends; ++end) {
      cells->x[end][kept] = cells->x[end][i];
      cells->y[end][kept] = cells->y[end][i];
      cells->scale[end][kept] = cells->scale[end][i];
    }
    ++kept;
  }
  cells->count = kept;
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
    : flags(cells_of(height, width) + kLanes, 0),
      places(cells_of(height, width) + 1),
      offsets(static_cast<std::size_t>(max_cells)),
      inside(static_cast<std::size_t>(max_cells)) {}

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
  int* places = scratch_->places.data();
  const std::size_t found = collect(flags, width * height, places);
  scratch_->found = std::min(found, static_cast<std::size_t>(max_cells));
  if (found == scratch_->found) {
    return;
  }
  const auto value = [&](int place) { return from[place / width * stride + place % width]; };
  std::nth_element(places, places + max_cells, places + found, [&](int i, int k) {
    return value(i) != value(k) ? value(i) > value(k) : i < k;
  });
  std::sort(places, places + max_cells);
}

// Asks for all lines that the gathers below will read, of all channels at once: their latency, not
// their number, is what a field costs.
void CompositeFields::prefetch(int first) const {
  const auto bytes = static_cast<std::ptrdiff_t>(bytes_of(view_.dtype));
  for (int channel = order_.first_point; channel < order_.channels; ++channel) {
    const auto* from = static_cast<const unsigned char*>(view_.data) +
                       (first + channel) * view_.channel_stride * bytes;
    std::ptrdiff_t before = -1;
    for (std::size_t i = 0; i < scratch_->found; ++i) {
      const std::ptrdiff_t at = scratch_->offsets[i];
      if (at != before + 1) {  // the next cell of a row is in the same line, mostly
        __builtin_prefetch(from + at * bytes);
      }
      before = at;
    }
  }
}

// One channel of all places, as float32.
void CompositeFields::gather(int channel, float* to) const {
  const std::ptrdiff_t* offsets = scratch_->offsets.data();
  const std::size_t count = scratch_->found;
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
  const int* places = scratch_->places.data();
  const std::size_t found = scratch_->found, start = cells->count;
  if (found == 0) {
    return;
  }
  const int width = view_.width;
  const bool dense = view_.row_stride == width * view_.column_stride;
  for (std::size_t i = 0; i < found; ++i) {
    scratch_->offsets[i] =
        dense ? places[i] * view_.column_stride
              : places[i] / width * view_.row_stride + places[i] % width * view_.column_stride;
  }
  const int first = field * order_.channels;
  prefetch(first);
  gather(first + order_.confidence, cells->confidence.data() + start);
  for (std::size_t i = start; i < start + found; ++i) {
    cells->confidence[i] = std::min(cells->confidence[i], 1.0F);
  }
  std::uint8_t* inside = scratch_->inside.data();
  std::fill_n(inside, found, std::uint8_t{1});
  for (int end = 0; end < order_.ends; ++end) {
    float* x = cells->x[end].data() + start;
    float* y = cells->y[end].data() + start;
    float* scale = cells->scale[end].data() + start;
    gather(first + order_.first_point + 2 * end, x);
    gather(first + order_.first_point + 2 * end + 1, y);
    gather(first + order_.first_scale + end, scale);
    for (std::size_t i = 0; order_.relative && i < found; ++i) {
      const int row = places[i] / width, column = places[i] % width;
      x[i] += static_cast<float>(column);
      y[i] += static_cast<float>(row);
    }
    check_inside(x, y, found, width, view_.height, inside);
    for (std::size_t i = 0; i < found; ++i) {
      scale[i] = scale[i] > 0.0F ? std::min(scale[i], kMaxScale) : 0.0F;
    }
  }
  cells->count = start + found;
  if (std::memchr(inside, 0, found) != nullptr) {
    drop_outside(inside, start, order_.ends, cells);
  }
}

}  // namespace posewire
