// SPDX-License-Identifier: Apache-2.0
// A folder for a compiled bundle, the manifest that every runtime row's test network has, and what
// the tests of the rows share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "infer/runtime.h"

namespace posewire {

constexpr int kWidth = 64, kHeight = 48, kStride = 8;
constexpr std::size_t kPicture = static_cast<std::size_t>(kWidth) * kHeight * 3;
constexpr std::size_t kCells = (kWidth / kStride) * (kHeight / kStride);

class Folder {
 public:
  Folder() {
    std::string pattern = ::testing::TempDir() + "posewire-infer-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() {
    for (const std::string& file : files_) {
      std::remove((path_ + "/" + file).c_str());
    }
    ::rmdir(path_.c_str());
  }
  void write(const std::string& name, const std::string& bytes) {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
    files_.push_back(name);
  }
  void owns(const std::string& name) { files_.push_back(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::string> files_;
};

// "mean" (3 channels: the cell's mean of R, G, B) and "twice" (the double), NCHW unless said.
inline Bundle bundle_in(const Folder& folder, const std::string& runtime, int max_batch) {
  Bundle bundle;
  bundle.directory = folder.path();
  Manifest& manifest = bundle.manifest;
  manifest.input_name = "image";
  manifest.input_width = kWidth;
  manifest.input_height = kHeight;
  manifest.outputs = {{"mean", 3, kStride}, {"twice", 3, kStride}};
  Artifact artifact;
  artifact.format = runtime;
  artifact.precision = "fp32";
  artifact.outputs = {{"mean"}, {"twice"}};
  manifest.artifacts = {artifact};
  Target target;
  target.runtime = runtime;
  target.precision = "fp32";
  target.max_batch = max_batch;
  for (const RuntimeInfo& info : runtimes()) {
    if (info.name == runtime) {
      target.runtime_version = info.version;
    }
  }
  manifest.target = target;
  return bundle;
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
  try {
    open_runtime(bundle, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "was opened";
  return "";
}

inline void fill(Runtime* runtime, int request, int index, int value) {
  std::memset(static_cast<std::uint8_t*>(runtime->input(request)) +
                  kPicture * static_cast<std::size_t>(index),
              value, kPicture);
}

}  // namespace posewire
