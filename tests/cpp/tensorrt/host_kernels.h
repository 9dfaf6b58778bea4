// SPDX-License-Identifier: Apache-2.0
// The plug-in's kernels as loops on the CPU: what the fake device runs and what the real one is
// compared with (tests/gpu).
#pragma once

#include <algorithm>

#include "infer/tensorrt/cell.h"
#include "infer/tensorrt/kernels.h"
#include "infer/tensorrt/pixel.h"

namespace posewire::test {

inline void host_letterbox(const LetterboxJob& job) {
  for (int y = 0; y < job.to.height; ++y) {
    for (int x = 0; x < job.to.width; ++x) {
      letterbox_pixel(job, x, y);
    }
  }
}

inline void host_normalise(const std::uint8_t* from, int count, NetworkPicture to) {
  const std::size_t bytes = to.element == Element::kUint8 ? 1 : sizeof(float);
  for (int picture = 0; picture < count; ++picture) {
    for (int y = 0; y < to.height; ++y) {
      for (int x = 0; x < to.width; ++x, from += 3) {
        store_pixel(to, x, y, from[0], from[1], from[2]);
      }
    }
    to.data = static_cast<std::uint8_t*>(to.data) +
              static_cast<std::size_t>(to.width) * static_cast<std::size_t>(to.height) * 3 * bytes;
  }
}

inline void host_to_half(const float* from, std::uint16_t* to, std::size_t count) {
  std::transform(from, from + count, to, to_half_bits);
}

inline void host_peaks(const PeakJob& job) {
  const auto cells = static_cast<std::size_t>(job.height) * static_cast<std::size_t>(job.width);
  for (int plane = 0; plane < job.planes; ++plane) {
    DevicePeak* const peaks =
        job.peaks + static_cast<std::size_t>(plane) * static_cast<std::size_t>(job.max_peaks);
    int found = 0;
    for (int y = 0; y < job.height; ++y) {
      for (int x = 0; x < job.width; ++x) {
        DevicePeak peak{};
        if (peak_at(job, static_cast<std::size_t>(plane) * cells, x, y, &peak)) {
          if (found < job.max_peaks) {
            peaks[found] = peak;
          }
          ++found;
        }
      }
    }
    job.counts[plane] = found;
  }
}

}  // namespace posewire::test
