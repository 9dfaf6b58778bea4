// SPDX-License-Identifier: Apache-2.0
// Compiled bundles of the rows that the engine is built with, and what the tests of these rows share.
#pragma once

#include <fstream>
#include <iterator>
#include <string>

#include "runtime_bundle.h"

namespace posewire {

// With the version that this engine has of the runtime.
inline Bundle bundle_in(const Folder& folder, const std::string& runtime, int max_batch) {
  std::string version;
  for (const RuntimeInfo& info : runtimes()) {
    if (info.name == runtime) {
      version = info.version;
    }
  }
  return bundle_in(folder, runtime, version, max_batch);
}

// The golden networks; `precision` is fp32 or int8.
inline Bundle tflite_bundle(Folder* folder, int max_batch, const std::string& precision = "fp32") {
  const std::string file = precision == "int8" ? "mean.int8.tflite" : "mean.tflite";
  std::ifstream golden(std::string(POSEWIRE_GOLDEN "/tflite/") + file, std::ios::binary);
  folder->write("model.tflite", std::string(std::istreambuf_iterator<char>(golden), {}));
  Bundle bundle = bundle_in(*folder, "tflite", max_batch);
  Artifact& artifact = bundle.manifest.artifacts[0];
  artifact.files = {"model.tflite"};
  artifact.precision = bundle.manifest.target->precision = precision;
  for (ArtifactOutput& output : artifact.outputs) {
    output.layout = Layout::kNHWC;
    if (precision == "int8") {
      output.dtype = DType::kInt8;
      output.scale = output.name == "mean" ? 1.0F : 2.0F;
      output.zero_point = -128;
    }
  }
  return bundle;
}

inline std::string refusal(const Bundle& bundle, Code code, const RuntimeOptions& options = {}) {
  return refusal_by(open_runtime, bundle, code, options);
}

}  // namespace posewire
