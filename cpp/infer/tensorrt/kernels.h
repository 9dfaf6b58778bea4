// SPDX-License-Identifier: Apache-2.0
// What the TensorRT plug-in computes on the device besides the network. Launchers put work on a
// stream and return at once; they allocate nothing, so that a stream that is being captured takes
// them. kernels.cu holds them for CUDA; the tests have the same on the CPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "infer/device.h"

namespace posewire {

// Whether the kernels below were built in and for this device. Opening asks once.
cudaError_t kernels_run_here();

enum class Pixels : std::int32_t { kBgr = 0, kNv12 = 1 };

// What the network's input is made of.
enum class Element : std::int32_t { kUint8 = 0, kFloat32 = 1 };

// The network's input in device memory, one picture of it. Float is (value - mean) / std.
struct NetworkPicture {
  void* data = nullptr;
  int width = 0, height = 0;
  Element element = Element::kUint8;
  bool planar = false;                                              // NCHW
  bool rgb = true;                                                  // the order of its channels
  float mean[3] = {0.0F, 0.0F, 0.0F}, std[3] = {1.0F, 1.0F, 1.0F};  // in that order
};

// A frame and where it goes (infer/preprocess.h). Resize, padding, order of the channels and
// normalisation in one kernel; the same numbers as letterbox() of preprocess.cpp.
struct LetterboxJob {
  const std::uint8_t* planes[2] = {nullptr, nullptr};  // device memory: BGR, or luma and chroma
  std::size_t stride_bytes[2] = {0, 0};
  Pixels pixels = Pixels::kBgr;
  int frame_width = 0, frame_height = 0;
  int left = 0, top = 0, width = 0, height = 0;  // the picture inside the network's input
  NetworkPicture to;
};
cudaError_t launch_letterbox(const LetterboxJob& job, cudaStream_t stream);

// Pictures that the CPU letterboxed, uint8 NHWC in the network's order of channels, to its input.
cudaError_t launch_normalise(const std::uint8_t* pictures, int count, const NetworkPicture& to,
                             cudaStream_t stream);

// Rounds to the nearest, ties to even.
cudaError_t launch_to_half(const float* from, std::uint16_t* to, std::size_t count,
                           cudaStream_t stream);

// Cells over the threshold and higher than their eight neighbours; of equal ones the first in
// memory (decode/kernels.h: maxima). `maps`: planes dense in [frames * channels, height, width].
struct PeakJob {
  const void* maps = nullptr;
  bool half = false;  // float16 instead of float32
  int planes = 0, height = 0, width = 0;
  float threshold = 0.0F;
  int max_peaks = 0;               // kept of a plane: the first in memory
  std::int32_t* counts = nullptr;  // [planes]: all that were found, also over max_peaks
  DevicePeak* peaks = nullptr;     // [planes, max_peaks], in the order of the cells
};
cudaError_t launch_peaks(const PeakJob& job, cudaStream_t stream);

}  // namespace posewire
