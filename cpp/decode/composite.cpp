// SPDX-License-Identifier: Apache-2.0
#include "decode/composite.h"

#include <algorithm>

#include "decode/planes.h"

namespace posewire {
namespace {

constexpr float kMaxScale = 16.0F;

std::size_t cells_of(int height, int width) {
  return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
}

// Whole blocks.
std::size_t padded(std::size_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

}  // namespace

std::size_t CompositeCells::room(const Buckets& buckets, int max_cells) {
  const auto cells = static_cast<std::size_t>(max_cells);
  return padded(cells) + kLanes * std::min(buckets.count(), cells);
}

CompositeCells::CompositeCells(int ends, std::size_t fields, std::size_t room)
    : first(fields + 1), confidence(fields * room) {
  for (int end = 0; end < ends; ++end) {
    for (std::vector<float>* values : {&x[end], &y[end], &scale[end]}) {
      values->resize(confidence.size());
    }
    boxes[end].resize(box_of(static_cast<int>(fields), fields * room));
  }
}

CompositeFields::Scratch::Scratch(int height, int width, int max_cells)
    : buckets(height, width), counts(buckets.count() + 1) {
  const auto room = CompositeCells::room(buckets, max_cells);
  for (Active& slot : active) {
    slot.places.resize(cells_of(height, width));
    slot.offsets.resize(room);
  }
  order.resize(room);
  used.resize(buckets.count() + 1);
  bucket_of.resize(room);
  asked.resize(room);
  confidence.resize(room);
  zeros.resize(room);
  for (int end = 0; end < 2; ++end) {
    x[end].resize(room);
    y[end].resize(room);
    scale[end].resize(room);
  }
}

CompositeFields::CompositeFields(const MapView& view, const CompositeOrder& order,
                                 const CellRules& rules, const Kernels& kernels, Scratch* scratch)
    : view_(view),
      planes_(view),
      order_(order),
      rules_(rules),
      kernels_(kernels),
      scratch_(scratch) {
  const auto bytes = static_cast<std::ptrdiff_t>(bytes_of(view.dtype));
  planes_.data =
      static_cast<const unsigned char*>(view.data) + order.confidence * view.channel_stride * bytes;
  planes_.channels = view.channels / order.channels;
  planes_.channel_stride = view.channel_stride * order.channels;
  planes_ = float_planes(planes_, planes_.channels, kernels, &scratch->planes);
  find(0);
}

// Fills the field's slot of the scratch.
void CompositeFields::find(int field) const {
  const int width = planes_.width, height = planes_.height;
  const std::ptrdiff_t stride = planes_.row_stride;
  const float* from = static_cast<const float*>(planes_.data) + field * planes_.channel_stride;
  Active& slot = scratch_->active[field % 2];
  int* places = slot.places.data();
  int found = 0;
  if (stride == width) {
    found = kernels_.list_over(from, width * height, rules_.threshold, places);
  } else {
    for (int row = 0; row < height; ++row) {
      const int first = found;
      found += kernels_.list_over(from + row * stride, width, rules_.threshold, places + first);
      for (int i = first; i < found; ++i) {
        places[i] += row * width;
      }
    }
  }
  slot.found = static_cast<std::size_t>(std::min(found, rules_.max_cells));
  if (found > rules_.max_cells) {
    const auto value = [&](int place) { return from[place / width * stride + place % width]; };
    std::nth_element(places, places + rules_.max_cells, places + found, [&](int i, int k) {
      return value(i) != value(k) ? value(i) > value(k) : i < k;
    });
    std::sort(places, places + rules_.max_cells);
  }
  const bool dense = view_.row_stride == width * view_.column_stride;
  for (std::size_t i = 0; i < slot.found; ++i) {
    slot.offsets[i] =
        dense ? places[i] * view_.column_stride
              : places[i] / width * view_.row_stride + places[i] % width * view_.column_stride;
  }
  prefetch(field);
}

// Asks for all lines that the gathers will read, while there is another field to work on: their
// latency, not their number, is what a field costs.
void CompositeFields::prefetch(int field) const {
  const auto bytes = static_cast<std::ptrdiff_t>(bytes_of(view_.dtype));
  const Active& slot = scratch_->active[field % 2];
  std::ptrdiff_t* asked = scratch_->asked.data();  // no two of them within two cells; bytes
  std::size_t runs = 0;
  std::ptrdiff_t before = -9;
  for (std::size_t i = 0; i < slot.found; ++i) {  // without a branch
    const std::ptrdiff_t at = slot.offsets[i];
    const bool other = at > before + 2;
    asked[runs] = at * bytes;
    runs += other ? 1 : 0;
    before = other ? at : before;
  }
  for (int channel = order_.first_point; channel < order_.channels; ++channel) {
    const auto* from = static_cast<const unsigned char*>(view_.data) +
                       (field * order_.channels + channel) * view_.channel_stride * bytes;
    for (std::size_t i = 0; i < runs; ++i) {
      __builtin_prefetch(from + asked[i]);
    }
  }
}

// One channel at `count` places, as float32.
void CompositeFields::gather(int channel, const std::ptrdiff_t* offsets, std::size_t count,
                             float* to) const {
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

// Their positions, in the order of the map, and the buckets that they are in by the first; those
// without a position in the map (up to half a cell beyond the outermost centres; NaN is not) are in
// one behind all.
void CompositeFields::locate(int field) const {
  Scratch* s = scratch_;
  const Active& slot = s->active[field % 2];
  const int first = field * order_.channels + order_.first_point, width = view_.width;
  const std::size_t found = slot.found;
  for (int end = 0; end < order_.ends; ++end) {
    float* x = s->x[end].data();
    float* y = s->y[end].data();
    gather(first + 2 * end, slot.offsets.data(), found, x);
    gather(first + 2 * end + 1, slot.offsets.data(), found, y);
    for (std::size_t i = 0; order_.relative && i < found; ++i) {
      const int column = slot.places[i] % width, row = slot.places[i] / width;
      x[i] += static_cast<float>(column);
      y[i] += static_cast<float>(row);
    }
  }
  const auto right = static_cast<float>(width) - 0.5F;
  const auto bottom = static_cast<float>(view_.height) - 0.5F;
  const Buckets buckets = s->buckets;  // a copy: nothing that is written below can be it
  const auto outside = static_cast<int>(buckets.count());
  int* bucket_of = s->bucket_of.data();
  const float* x = s->x[0].data();
  const float* y = s->y[0].data();
  const float* far_x = s->x[order_.ends - 1].data();
  const float* far_y = s->y[order_.ends - 1].data();
  for (std::size_t i = 0; i < found; ++i) {
    const bool near = (x[i] >= -0.5F) & (x[i] <= right) & (y[i] >= -0.5F) & (y[i] <= bottom);
    const bool far =
        (far_x[i] >= -0.5F) & (far_x[i] <= right) & (far_y[i] >= -0.5F) & (far_y[i] <= bottom);
    bucket_of[i] = near && far ? buckets.at(x[i], y[i]) : outside;
  }
}

// Puts the cells of a bucket together, in whole blocks: its last one is repeated. Buckets stand in
// the order of their first cells, so that only those in use cost anything; counts are 0 before and
// after. Returns how many cells there are inside the map, copies included.
std::size_t CompositeFields::sort(std::size_t found) const {
  int* counts = scratch_->counts.data();
  int* used = scratch_->used.data();
  int* order = scratch_->order.data();
  const int* bucket_of = scratch_->bucket_of.data();
  const auto outside = static_cast<int>(scratch_->buckets.count());
  std::size_t n = 0;
  for (std::size_t i = 0; i < found; ++i) {
    const int bucket = bucket_of[i];
    used[n] = bucket;
    n += counts[bucket] == 0 && bucket != outside ? 1 : 0;
    ++counts[bucket];
  }
  int start = 0;
  for (std::size_t i = 0; i < n; ++i) {
    int& count = counts[used[i]];
    const int next = start + ((count + kLanes - 1) & ~(kLanes - 1));
    count = start;
    start = next;
  }
  counts[outside] = start;  // behind all, where nobody looks
  for (std::size_t i = 0; i < found; ++i) {
    order[counts[bucket_of[i]]++] = static_cast<int>(i);
  }
  for (std::size_t i = 0; i < n; ++i) {
    int& count = counts[used[i]];
    for (int at = count; at % kLanes != 0; ++at) {
      order[at] = ~order[count - 1];  // negative: a copy
    }
    count = 0;
  }
  counts[outside] = 0;
  return static_cast<std::size_t>(start);
}

void CompositeFields::append(int field, CompositeCells* cells) const {
  Scratch* s = scratch_;
  const Active& slot = s->active[field % 2];
  const std::size_t start = cells->first[static_cast<std::size_t>(field)];
  const int first = field * order_.channels;
  locate(field);
  gather(first + order_.confidence, slot.offsets.data(), slot.found, s->confidence.data());
  for (int end = 0; end < order_.ends; ++end) {
    gather(first + order_.first_scale + end, slot.offsets.data(), slot.found, s->scale[end].data());
  }
  const std::size_t count = sort(slot.found);
  if (field + 1 < planes_.channels) {
    find(field + 1);  // now: what it asks for would have been in the way of what was read above
  }
  cells->first[static_cast<std::size_t>(field) + 1] = start + count;
  float* confidence = cells->confidence.data() + start;
  int* order = s->order.data();
  for (std::size_t i = 0; i < count; ++i) {
    const bool copy = order[i] < 0;
    order[i] = copy ? ~order[i] : order[i];
    confidence[i] = copy ? 0.0F : std::min(s->confidence[static_cast<std::size_t>(order[i])], 1.0F);
  }
  for (int end = 0; end < order_.ends; ++end) {
    float* x = cells->x[end].data() + start;
    float* y = cells->y[end].data() + start;
    float* scale = cells->scale[end].data() + start;
    for (std::size_t i = 0; i < count; ++i) {
      const auto from = static_cast<std::size_t>(order[i]);
      x[i] = s->x[end][from];
      y[i] = s->y[end][from];
      scale[i] = s->scale[end][from];
    }
    for (std::size_t i = 0; i < count; ++i) {
      scale[i] = scale[i] > 0.0F ? std::min(scale[i], kMaxScale) : 0.0F;
    }
    kernels_.bound_blocks(x, y, s->zeros.data(), static_cast<int>(count),
                          cells->boxes[end].data() + CompositeCells::box_of(field, start));
  }
}

}  // namespace posewire
