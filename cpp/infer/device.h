// SPDX-License-Identifier: Apache-2.0
// What only a runtime with a device of its own can do, apart from Runtime so that the others need
// not know: frames prepared on the device, and maps that stay there because their peaks are found
// there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/error.h"
#include "infer/preprocess.h"

namespace posewire {

// A frame as a camera or a hardware decoder holds it. BGR has one plane; NV12 two, luma and
// interleaved chroma of half the size, BT.601 in video range.
struct DeviceFrame {
  enum class Pixels : std::uint8_t { kBgr, kNv12 };
  Pixels pixels = Pixels::kBgr;
  int width = 0, height = 0;
  const std::uint8_t* planes[2] = {nullptr, nullptr};
  std::size_t stride_bytes[2] = {0, 0};
  bool on_device = false;  // the planes are device memory
};

inline DeviceFrame device_frame(const Image& image) noexcept {
  DeviceFrame frame;
  frame.width = image.width;
  frame.height = image.height;
  frame.planes[0] = image.bytes.data();
  frame.stride_bytes[0] = image.stride_bytes;
  return frame;
}

class DeviceLetterbox {
 public:
  virtual ~DeviceLetterbox() = default;
  // Instead of writing picture `index` of the slot's input: the device letterboxes the frame into
  // it, with the bytes that letterbox() of preprocess.h writes. Only while the slot is idle. A
  // frame in the CPU's memory may go when this returns; one on the device must stay until wait().
  virtual Status letterbox(int request, int index, const DeviceFrame& frame,
                           const Letterbox& geometry) = 0;
};

// A local maximum of a map and what it takes to place it between the cells (decode/peaks.h). A
// neighbour outside the map is NaN.
struct DevicePeak {
  std::int32_t cell;  // row * width + column
  float centre, left, right, upper, lower;
};

// One picture's peaks, for each channel at most max_peaks, in the order of the cells.
struct DevicePeakView {
  const std::int32_t* counts = nullptr;  // [channels]: all that were over the threshold
  const DevicePeak* peaks = nullptr;     // [channels, max_peaks]
};

class DevicePeaks {
 public:
  virtual ~DevicePeaks() = default;
  // Of RuntimeOptions::peaks. Picture `index` of the slot's last batch; valid until its next
  // start(). The output itself stays on the device: its MapView has no data.
  virtual DevicePeakView peaks(int request, int index) const = 0;
};

}  // namespace posewire
