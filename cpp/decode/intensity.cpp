// SPDX-License-Identifier: Apache-2.0
#include "decode/intensity.h"

#include <algorithm>
#include <cstddef>

namespace posewire {
namespace {

// A disc of the largest sigma, 16 cells across, touches at most 5 buckets of 4 cells each way.
static_assert(2 * static_cast<int>(Intensity::kMaxSigma) <= 4 * Buckets::kSide, "kTouched");
constexpr std::size_t kTouched = 25;

// A sum of 1 is reached after few discs unless most of a bucket lies elsewhere.
constexpr int kChunk = 4 * kLanes;

int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

}  // namespace

Intensity::Intensity(const Buckets& buckets, int max_discs)
    : buckets_(buckets),
      starts_(static_cast<std::size_t>(buckets.count()) + 1),
      ends_(static_cast<std::size_t>(buckets.count())) {
  discs_.reserve(static_cast<std::size_t>(max_discs));
  const std::size_t room = kTouched * static_cast<std::size_t>(max_discs) +
                           static_cast<std::size_t>(buckets.count()) * kLanes;
  for (std::vector<float>* values : {&x_, &y_, &fall_, &weight_}) {
    values->resize(room);
  }
}

void Intensity::add(float x, float y, float sigma, float weight) {
  const float reach = std::min(std::max(sigma, kMinSigma), kMaxSigma);
  discs_.push_back({x, y, 1.0F / (16.0F * reach * reach), weight, buckets_.column(x - reach),
                    buckets_.column(x + reach), buckets_.row(y - reach), buckets_.row(y + reach)});
}

template <class Visit>
void Intensity::each_bucket(const Disc& disc, Visit visit) const {
  for (int row = disc.top; row <= disc.bottom; ++row) {
    for (int column = disc.left; column <= disc.right; ++column) {
      visit(static_cast<std::size_t>(row * buckets_.columns() + column));
    }
  }
}

void Intensity::sort() {
  std::fill(ends_.begin(), ends_.end(), 0);
  for (const Disc& disc : discs_) {
    each_bucket(disc, [this](std::size_t bucket) { ++ends_[bucket]; });
  }
  int start = 0;
  for (std::size_t bucket = 0; bucket < ends_.size(); ++bucket) {
    starts_[bucket] = start;
    const int end = start + ends_[bucket], next = start + padded(ends_[bucket]);
    ends_[bucket] = start;
    for (int i = end; i < next; ++i) {  // the rest of the last lanes adds nothing
      const auto n = static_cast<std::size_t>(i);
      x_[n] = y_[n] = fall_[n] = weight_[n] = 0.0F;
    }
    start = next;
  }
  starts_.back() = start;
  for (const Disc& disc : discs_) {
    each_bucket(disc, [this, &disc](std::size_t bucket) {
      const auto n = static_cast<std::size_t>(ends_[bucket]++);
      x_[n] = disc.x;
      y_[n] = disc.y;
      fall_[n] = disc.fall;
      weight_[n] = disc.weight;
    });
  }
}

float Intensity::at(float x, float y, const Kernels& kernels) const {
  const auto bucket = static_cast<std::size_t>(buckets_.at(x, y));
  const int end = starts_[bucket + 1];
  float sum = 0.0F;
  for (int i = starts_[bucket]; i < end && sum < 1.0F; i += kChunk) {
    sum += kernels.sum_discs(x_.data() + i, y_.data() + i, fall_.data() + i, weight_.data() + i,
                             std::min(kChunk, end - i), x, y);
  }
  return std::min(sum, 1.0F);
}

}  // namespace posewire
