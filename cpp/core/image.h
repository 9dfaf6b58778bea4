// SPDX-License-Identifier: Apache-2.0
// Pictures without a library's types in the header. Rows may be padded.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace posewire {

// 8-bit interleaved BGR, the order of cameras and of OpenCV. Owns its memory and keeps it when it
// shrinks, so that a reused Image allocates only when a stream grows.
struct Image {
  int width = 0, height = 0;
  std::size_t stride_bytes = 0;
  std::vector<std::uint8_t> bytes;

  void resize(int new_width, int new_height);  // contents undefined afterwards
  std::uint8_t* row(int y) noexcept {
    return bytes.data() + stride_bytes * static_cast<std::size_t>(y);
  }
  const std::uint8_t* row(int y) const noexcept {
    return bytes.data() + stride_bytes * static_cast<std::size_t>(y);
  }
};

// What a source hands on. Reused from a pool: a source overwrites every field.
struct Frame {
  Image image;
  int camera = 0;         // index into the engine's list of sources
  std::uint64_t seq = 0;  // counts captured frames of this camera, from 0
  std::chrono::system_clock::time_point t_capture{};  // for people and the wire
  std::chrono::steady_clock::time_point t_arrival{};  // for latencies: the wall clock may jump
  std::optional<double> t_media_ms;                   // position in a file
};

}  // namespace posewire
