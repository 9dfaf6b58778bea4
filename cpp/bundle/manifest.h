// SPDX-License-Identifier: Apache-2.0
// The manifest of a model bundle as the engine needs it. posewire/bundle.py stands the
// specification on top.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/skeleton.h"
#include "core/tensor.h"

namespace posewire {

enum class Mode { kBottomUp, kTopDown, kDetector };

// A map has a stride, a sequence (bins, rows) a length; a sequence is a map one cell high.
struct OutputSpec {
  std::string name;
  int channels = 0;
  int stride = 0;                 // input pixels per cell; 0: a sequence
  Layout layout = Layout::kNCHW;  // for arrays that come without an artifact (partial manifests)
  int length = 0;                 // vectors of a sequence; 0: a map
};

struct ArtifactOutput {
  std::string name;
  Layout layout = Layout::kNCHW;
  DType dtype = DType::kFloat32;
  float scale = 1.0F;
  int zero_point = 0;
};

struct Artifact {
  std::vector<std::string> files;
  std::string format;     // onnx, openvino, tensorrt, tflite, uff, fake
  std::string precision;  // fp32, fp16, bf16, int8, int8-u8
  Layout input_layout = Layout::kNHWC;
  DType input_dtype = DType::kUint8;
  std::vector<float> mean, std;  // only with float32 input; three numbers each or none
  float input_scale = 1.0F;      // only with int8 input, as in MapView
  int input_zero_point = 0;
  std::vector<ArtifactOutput> outputs;  // in the manifest's order, whatever the file's was
};

struct Target {
  std::string name, runtime, runtime_version, device, precision;
  int max_batch = 1;
};

struct FileEntry {
  std::string sha256;
  std::uint64_t bytes = 0;
};

struct Crop {
  float padding = 1.25F;  // the box grows by this before it is fitted
};

struct Manifest {
  int schema = 0;
  std::string name, version;
  Mode mode = Mode::kBottomUp;
  Skeleton skeleton;  // empty for a detector
  std::string input_name;
  int input_width = 0, input_height = 0;
  bool input_rgb = true;
  std::optional<Crop> crop;  // top_down, and only there
  std::vector<OutputSpec> outputs;
  std::string algorithm;  // decode.algorithm
  nlohmann::json decode;  // the row's own parameters; parsed by cpp/decode/<algorithm>.cpp
  std::vector<Artifact> artifacts;
  std::optional<Target> target;  // none: a portable bundle
  std::string gate_kind;         // "" | ap | agreement | pending
  std::map<std::string, FileEntry> files;

  // Of a decoded pose. A detector's is a box: its corners, top left and bottom right.
  int keypoints() const noexcept { return mode == Mode::kDetector ? 2 : skeleton.count(); }
};

// Throws Error(kBundle): "<where>: outputs[1].stride: must be a positive integer". Unknown keys are
// errors. `partial` admits a manifest of which only skeleton, input (width and height), outputs and
// decode stand (posewire bench decode, golden files, posewire._core.Decoder). Without a mode it is
// bottom_up; a top_down one needs no crop.
Manifest parse_manifest(const std::string& text, const std::string& where, bool partial = false);

// The shape of an output's frame without data: channels x ceil(input / stride), or channels x 1 x
// length.
MapView frame_shape(const Manifest& manifest, const OutputSpec& output, DType dtype,
                    Layout layout) noexcept;

}  // namespace posewire
