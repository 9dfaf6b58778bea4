// SPDX-License-Identifier: Apache-2.0
#include "decode/buckets.h"

namespace posewire {

void sort_points(const Buckets& buckets, const float* x, const float* y, int count, int* bucket_of,
                 const SortedPoints& sorted) {
  const std::size_t last = buckets.count();
  std::fill(sorted.starts, sorted.starts + last + 1, 0);
  const Buckets grid = buckets;  // a copy: nothing that is written below can be it
  for (int i = 0; i < count; ++i) {
    bucket_of[i] = grid.at(x[i], y[i]);
  }
  for (int i = 0; i < count; ++i) {
    ++sorted.starts[bucket_of[i]];
  }
  int end = 0;
  for (std::size_t bucket = 0; bucket <= last; ++bucket) {  // ends, counted down to starts below
    end += sorted.starts[bucket];
    sorted.starts[bucket] = end;
  }
  for (int i = count - 1; i >= 0; --i) {
    const int to = --sorted.starts[bucket_of[i]];
    sorted.x[to] = x[i];
    sorted.y[to] = y[i];
    sorted.index[to] = i;
  }
}

}  // namespace posewire
