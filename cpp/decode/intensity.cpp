// SPDX-License-Identifier: Apache-2.0
#include "decode/intensity.h"

#include <algorithm>
#include <cstddef>

namespace posewire {
namespace {

// A disc of the largest sigma, 16 cells across, touches at most 4 buckets of 6 cells each way.
static_assert(2 * static_cast<int>(Intensity::kMaxSigma) <= 3 * Buckets::kSide, "kTouched");
constexpr std::size_t kTouched = 16;

}  // namespace

Intensity::Intensity(const Buckets& buckets, int max_discs)
    : buckets_(buckets), starts_(buckets.count() + 1) {
  discs_.reserve(static_cast<std::size_t>(max_discs));
  for (std::vector<float>* values : {&x_, &y_, &fall_, &weight_}) {
    values->resize(kTouched * static_cast<std::size_t>(max_discs));
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
      const int bucket = row * buckets_.columns() + column;
      visit(static_cast<std::size_t>(bucket));
    }
  }
}

void Intensity::sort() {
  std::fill(starts_.begin(), starts_.end(), 0);
  for (const Disc& disc : discs_) {
    each_bucket(disc, [this](std::size_t bucket) { ++starts_[bucket]; });
  }
  int end = 0;
  for (int& start : starts_) {  // ends, counted down to starts below
    end += start;
    start = end;
  }
  for (std::size_t i = discs_.size(); i-- > 0;) {
    const Disc& disc = discs_[i];
    each_bucket(disc, [this, &disc](std::size_t bucket) {
      const auto n = static_cast<std::size_t>(--starts_[bucket]);
      x_[n] = disc.x;
      y_[n] = disc.y;
      fall_[n] = disc.fall;
      weight_[n] = disc.weight;
    });
  }
}

void Intensity::at(const SortedPoints& points, const Kernels& kernels, float* sums) const {
  // In the order of the buckets: whole vectors of sums are written, the next bucket's over the
  // rest.
  for (std::size_t bucket = 0; bucket < buckets_.count(); ++bucket) {
    const int first = points.starts[bucket], count = points.starts[bucket + 1] - first;
    if (count > 0) {
      const int start = starts_[bucket];
      kernels.sum_discs(x_.data() + start, y_.data() + start, fall_.data() + start,
                        weight_.data() + start, starts_[bucket + 1] - start, points.x + first,
                        points.y + first, count, sums + first);
    }
  }
  const int end = points.starts[buckets_.count()];
  for (int i = 0; i < end; ++i) {
    sums[i] = std::min(sums[i], 1.0F);
  }
}

}  // namespace posewire
