// SPDX-License-Identifier: Apache-2.0
// Any bytes as a network's outputs: no crash, no NaN, keypoints inside the picture.
// Input: size, type and layout in four bytes, then the values (repeated to fill the maps).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "decode/rows.h"

namespace {

using namespace posewire;

Manifest manifest_for(int height, int width, int max_peaks) {
  Manifest manifest;
  manifest.skeleton.name = "fuzz";
  manifest.skeleton.keypoints = {"a", "b", "c"};
  manifest.skeleton.limbs = {{0, 1}, {1, 2}, {2, 0}};  // a cycle
  manifest.input_width = width * 8;
  manifest.input_height = height * 8;
  OutputSpec output;
  output.name = "heatmaps";
  output.channels = 3;
  output.stride = 8;
  manifest.outputs.push_back(output);
  output.name = "pafs";
  output.channels = 6;
  manifest.outputs.push_back(output);
  manifest.algorithm = "paf";
  manifest.decode = {{"max_peaks", max_peaks}, {"min_keypoints", 2}, {"person_threshold", 0.0}};
  return manifest;
}

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 5) {
    return 0;
  }
  const int height = 2 + data[0] % 30, width = 2 + data[1] % 30;
  const auto dtype = static_cast<DType>(data[2] % 4);
  const Layout layout = data[3] % 2 == 0 ? Layout::kNCHW : Layout::kNHWC;
  const Manifest manifest = manifest_for(height, width, 1 + data[2] / 4);
  const auto cells = static_cast<std::size_t>(height * width);
  const std::size_t needed = cells * 9 * bytes_of(dtype);
  std::vector<std::uint8_t> bytes(needed + 3);
  for (std::size_t i = 0; i < needed; ++i) {
    bytes[i] = data[4 + i % (size - 4)];
  }
  MapView heatmaps = dense_map(bytes.data(), dtype, layout, 3, height, width);
  MapView pafs =
      dense_map(bytes.data() + cells * 3 * bytes_of(dtype), dtype, layout, 6, height, width);
  if (dtype == DType::kInt8 || dtype == DType::kUint8) {
    heatmaps.scale = pafs.scale = 1.0F / 100.0F;
    heatmaps.zero_point = pafs.zero_point = dtype == DType::kUint8 ? 100 : 0;
  }
  for (const Kernels* kernels : available_kernels()) {
    const auto decoder = open_paf(manifest, *kernels);
    const auto scratch = decoder->make_scratch();
    Poses poses;
    decoder->decode({heatmaps, pafs}, scratch.get(), &poses);
    for (int p = 0; p < poses.size(); ++p) {
      require(poses.score(p) >= 0.0F && poses.score(p) <= 1.0F);
      for (int k = 0; k < 3; ++k) {
        const Keypoint& point = poses.keypoints_of(p)[k];
        require(point.score >= 0.0F && point.score <= 1.0F);
        require(point.x >= -1.0F && point.x <= static_cast<float>(width * 8));
        require(point.y >= -1.0F && point.y <= static_cast<float>(height * 8));
      }
    }
  }
  return 0;
}
