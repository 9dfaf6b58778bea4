// SPDX-License-Identifier: Apache-2.0
// A serialised engine ("plan"), opened and held against what the manifest says of it.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>
#include <vector>

#include "infer/plugin_abi.h"
#include "infer/tensorrt/kernels.h"
#include "infer/tensorrt/library.h"

namespace posewire {

// An output as the plan has it and as it is delivered.
struct PlanOutput {
  std::string name;
  std::size_t elements = 0;  // of one picture
  int channels = 0, height = 0, width = 0;
  bool half_in_plan = false, half_out = false;
};

class Plan {
 public:
  // Throws Error: kBundle where file and manifest disagree, kUnavailable without a device.
  explicit Plan(const PluginNetwork& network);

  nvinfer1::ICudaEngine* engine() const noexcept { return engine_.get(); }
  const std::string& last_complaint() { return complaint_ = log_.last(); }
  const std::string& path() const noexcept { return path_; }
  const std::string& input_name() const noexcept { return input_name_; }
  const NetworkPicture& input() const noexcept { return input_; }  // without memory
  const std::vector<PlanOutput>& outputs() const noexcept { return outputs_; }

  // Networks from UFF (TensorRT < 10): no tensor has a batch dimension.
  bool implicit_batch() const noexcept { return implicit_; }
  // > 0: the plan always runs so many pictures.
  int fixed_batch() const noexcept { return fixed_batch_; }
  // Profiles that allow batches of 1 … max_batch, for plans that are dynamic.
  const std::vector<int>& profiles() const noexcept { return profiles_; }
  nvinfer1::Dims input_shape(int batch) const;

 private:
  void read();
  void check_tensors(const PluginNetwork& network);
  void check_input(const PluginNetwork& network);
  void check_batch(const PluginNetwork& network, std::int64_t batch);
  void check_output(const PluginOutput& output);
  void check_shape(const std::string& name, const std::vector<std::int64_t>& picture);

  std::string path_, input_name_, complaint_;
  TensorRtLibrary library_;
  TensorRtLog log_;  // outlives what logs to it
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  NetworkPicture input_;
  std::vector<PlanOutput> outputs_;
  bool implicit_ = false;
  int fixed_batch_ = 0;
  std::vector<int> profiles_;
};

}  // namespace posewire
