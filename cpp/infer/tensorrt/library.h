// SPDX-License-Identifier: Apache-2.0
// TensorRT's library, found when the plug-in runs, and the device. Only two of its symbols have a
// name; everything else is reached through the objects they make.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>

namespace posewire {

#ifdef TRT_MAJOR_RTX
constexpr const char* kRuntimeName = "tensorrt_rtx";
constexpr const char* kRuntimeTitle = "TensorRT-RTX";
#else
constexpr const char* kRuntimeName = "tensorrt";
constexpr const char* kRuntimeTitle = "TensorRT";
#endif

// Keeps TensorRT's last complaint for an error's message. Any thread.
class TensorRtLog : public nvinfer1::ILogger {
 public:
  TensorRtLog();
  ~TensorRtLog() override;
  TensorRtLog(const TensorRtLog&) = delete;
  TensorRtLog& operator=(const TensorRtLog&) = delete;

  void log(Severity severity, const char* message) noexcept override;
  std::string last() const;  // "" if there was none

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

struct TensorRtLibrary {
  void* (*create_runtime)(void* logger, std::int32_t version) noexcept = nullptr;
  std::string version;  // "10.3.0"
};

// Throws Error(kUnavailable): what is missing, or which versions do not go together.
TensorRtLibrary load_tensorrt();

// The first device's name. Throws Error(kUnavailable): no driver, no device, or a driver older than
// the plug-in's CUDA.
std::string device_name();

// "TensorRT 10.3.0, CUDA 12.6": what this was compiled with.
const char* built_with();

std::string one_line(const std::string& text);

}  // namespace posewire
