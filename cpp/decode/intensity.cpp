// SPDX-License-Identifier: Apache-2.0
#include "decode/intensity.h"

#include <algorithm>
#include <cstddef>

namespace posewire {
namespace {

// A cell's patch is 4 x 4: so many cells vote for a keypoint.
constexpr float kPatch = 16.0F;

}  // namespace

Intensity::Intensity(int max_cells) : boxes_(CompositeCells::box_room(max_cells)) {
  const auto room = static_cast<std::size_t>(max_cells + kLanes - 1) / kLanes * kLanes;
  for (std::vector<float>* values : {&x_, &y_, &reach_, &fall_, &weight_}) {
    values->resize(room);
  }
}

void Intensity::set(const CompositeCells& cells, float threshold, const Kernels& kernels) {
  const std::size_t count = cells.count;
  std::copy_n(cells.x[0].begin(), count, x_.begin());
  std::copy_n(cells.y[0].begin(), count, y_.begin());
  const float* scale = cells.scale[0].data();
  const float* confidence = cells.confidence.data();
  float* reach = reach_.data();
  float* fall = fall_.data();
  float* weight = weight_.data();
  for (std::size_t i = 0; i < count; ++i) {
    reach[i] = std::min(std::max(0.5F * scale[i], kMinSigma), kMaxSigma);
  }
  for (std::size_t i = 0; i < count; ++i) {
    fall[i] = 1.0F / (16.0F * reach[i] * reach[i]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    weight[i] = confidence[i] > threshold ? confidence[i] / kPatch : 0.0F;
  }
  count_ = static_cast<int>(count);
  kernels.bound_blocks(x_.data(), y_.data(), reach, count_, boxes_.data());
}

}  // namespace posewire
