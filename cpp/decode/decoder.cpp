// SPDX-License-Identifier: Apache-2.0
#include "decode/decoder.h"

#include <cstddef>

#include "core/error.h"
#include "decode/kernels.h"
#include "decode/rows.h"

namespace posewire {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Decoder> (*open)(const Manifest& manifest, const Kernels& kernels);
};

// To add an algorithm: its file here in the CMake list, its line in rows.h, its row below.
constexpr Row kRows[] = {
    {"associative_embedding", open_associative_embedding},
    {"center", open_center},
    {"heatmap", open_heatmap},
    {"paf", open_paf},
    {"pifpaf", open_pifpaf},
    {"pose_proposal", open_pose_proposal},
    {"simcc", open_simcc},
};

// More is no pose network's output, and a row copies what is not float32 planes.
constexpr std::size_t kMostValues = std::size_t{1} << 28;  // 1 GiB as float32

void require_bounded(const Manifest& manifest) {
  std::size_t values = 0;
  for (const OutputSpec& output : manifest.outputs) {
    const MapView shape = frame_shape(manifest, output, DType::kFloat32, output.layout);
    values += static_cast<std::size_t>(shape.channels) * static_cast<std::size_t>(shape.height) *
              static_cast<std::size_t>(shape.width);
  }
  if (values > kMostValues) {
    throw Error(Code::kBundle, "outputs",
                "hold " + std::to_string(values) + " values a frame; at most " +
                    std::to_string(kMostValues) + " are decoded");
  }
}

}  // namespace

std::unique_ptr<Decoder> open_decoder(const Manifest& manifest) {
  return open_decoder(manifest, best_kernels());
}

std::unique_ptr<Decoder> open_decoder(const Manifest& manifest, const Kernels& kernels) {
  std::string known;
  for (const Row& row : kRows) {
    if (manifest.algorithm == row.name) {
      require_bounded(manifest);
      return row.open(manifest, kernels);
    }
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(Code::kBundle, "decode.algorithm",
              "unknown algorithm \"" + manifest.algorithm + "\" (known: " + known + ")");
}

std::vector<std::string> decoder_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows) {
    names.emplace_back(row.name);
  }
  return names;
}

}  // namespace posewire
