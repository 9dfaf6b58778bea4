// SPDX-License-Identifier: Apache-2.0
// Compiled bundles for the tests of runtimes: a folder, a manifest that names no network, and what
// the tests do with a runtime.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "infer/runtime.h"

namespace posewire {

using ::testing::HasSubstr;

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

// "mean" (3 channels: the cell's mean of R, G, B) and "twice" (the double), both NCHW.
inline Bundle bundle_in(const Folder& folder, const std::string& runtime,
                        const std::string& version, int max_batch) {
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
  target.runtime_version = version;
  manifest.target = target;
  return bundle;
}

using OpenRuntime = std::function<std::unique_ptr<Runtime>(const Bundle&, const RuntimeOptions&)>;

// What `open` says of a bundle that it must refuse, with that code and in one line.
inline std::string refusal_by(const OpenRuntime& open, const Bundle& bundle, Code code,
                              const RuntimeOptions& options = {}) {
  try {
    open(bundle, options);
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
