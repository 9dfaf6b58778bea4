// SPDX-License-Identifier: Apache-2.0
#include "decode/intensity.h"

#include <algorithm>

namespace posewire {
namespace {

// A cell's patch is 4 x 4: so many cells vote for a keypoint.
constexpr float kPatch = 16.0F;

}  // namespace

Intensity::Intensity(std::size_t room) : boxes_(room / 2 + CompositeCells::kBoxes) {
  for (std::vector<float>* values : {&reach_, &fall_, &weight_}) {
    values->resize(room);
  }
}

void Intensity::set(const CompositeCells& cells, std::size_t field, float threshold,
                    const Kernels& kernels) {
  const std::size_t first = cells.first[field], count = cells.first[field + 1] - first;
  x_ = cells.x[0].data() + first;
  y_ = cells.y[0].data() + first;
  const float* scale = cells.scale[0].data() + first;
  const float* confidence = cells.confidence.data() + first;
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
  kernels.bound_blocks(x_, y_, reach, count_, boxes_.data());
}

}  // namespace posewire
