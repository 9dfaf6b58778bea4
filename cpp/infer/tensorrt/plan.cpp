// SPDX-License-Identifier: Apache-2.0
#include "infer/tensorrt/plan.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "core/error.h"

namespace posewire {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

std::string text_of(const Dims& dims) {
  std::string text;
  for (int i = 0; i < dims.nbDims; ++i) {
    text += (i == 0 ? "" : ",") + (dims.d[i] < 0 ? "?" : std::to_string(dims.d[i]));
  }
  return "[" + text + "]";
}

std::string text_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return "float32";
    case DataType::kHALF:
      return "float16";
    case DataType::kINT8:
      return "int8";
    case DataType::kUINT8:
      return "uint8";
    default:
      return "type " + std::to_string(static_cast<int>(type));
  }
}

}  // namespace

Plan::Plan(const PluginNetwork& network)
    : path_(network.plan), input_name_(network.input_name), library_(load_tensorrt()) {
  device_name();  // some versions crash instead of failing where there is no device
  read();
  check_tensors(network);
  check_input(network);
  for (std::int32_t i = 0; i < network.output_count; ++i) {
    check_output(network.outputs[i]);
  }
}

void Plan::read() {
  std::ifstream file(path_, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || bytes.empty()) {
    throw Error(Code::kBundle, path_, bytes.empty() ? "is empty" : "cannot be read");
  }
  runtime_.reset(
      static_cast<nvinfer1::IRuntime*>(library_.create_runtime(&log_, NV_TENSORRT_VERSION)));
  if (runtime_ == nullptr) {
    throw Error(Code::kUnavailable, kRuntimeTitle, "did not start: " + log_.last());
  }
  engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (engine_ == nullptr) {
    const std::string why = log_.last();
    throw Error(Code::kBundle, path_,
                std::string(kRuntimeTitle) + " " + library_.version +
                    " refuses it: " + (why.empty() ? "it gives no reason" : why));
  }
}

// Everything the plan has must be known: an unset address would fail at the first picture.
void Plan::check_tensors(const PluginNetwork& network) {
#if NV_TENSORRT_MAJOR < 10 && !defined(TRT_MAJOR_RTX)
  implicit_ = engine_->hasImplicitBatchDimension();
#endif
  for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
    const std::string name = engine_->getIOTensorName(i);
    const bool is_input = engine_->getTensorIOMode(name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
    bool known = is_input && name == network.input_name;
    for (std::int32_t k = 0; k < network.output_count; ++k) {
      known = known || (!is_input && name == network.outputs[k].name);
    }
    if (!known) {
      throw Error(Code::kBundle, path_,
                  std::string(is_input ? "input" : "outputs") + ": the plan's " + name +
                      " is not in the manifest");
    }
    if (engine_->getTensorFormat(name.c_str()) != nvinfer1::TensorFormat::kLINEAR) {
      throw Error(Code::kBundle, path_, name + " is not stored row by row (kLINEAR)");
    }
  }
}

void Plan::check_input(const PluginNetwork& network) {
  input_.width = network.width;
  input_.height = network.height;
  input_.element = network.input_float != 0 ? Element::kFloat32 : Element::kUint8;
  input_.planar = network.input_nchw != 0;
  input_.rgb = network.rgb != 0;
  std::copy_n(network.mean, 3, input_.mean);
  std::copy_n(network.std, 3, input_.std);

  const std::string name = "input " + input_name_;
  const Dims dims = engine_->getTensorShape(input_name_.c_str());
  const DataType type = engine_->getTensorDataType(input_name_.c_str());
  if (dims.nbDims < 0) {
    throw Error(Code::kBundle, path_, name + ": the plan has no such tensor");
  }
  const DataType wanted = network.input_float != 0 ? DataType::kFLOAT : DataType::kUINT8;
  if (type != wanted) {
    throw Error(
        Code::kBundle, path_,
        name + ": the plan takes " + text_of(type) + ", the manifest says " + text_of(wanted));
  }
  if (network.input_nchw != 0) {
    check_shape(input_name_, {3, network.height, network.width});
  } else {
    check_shape(input_name_, {network.height, network.width, 3});
  }
  check_batch(network, implicit_ ? -1 : dims.d[0]);
}

void Plan::check_batch(const PluginNetwork& network, std::int64_t batch) {
  const std::string where = path_ + ": input " + input_name_;
  const auto refuse = [&](std::int64_t most) {
    throw Error(Code::kBundle, where,
                "the plan takes at most " + std::to_string(most) +
                    " pictures, target.max_batch is " + std::to_string(network.max_batch));
  };
  if (batch >= 0) {
    fixed_batch_ = static_cast<int>(batch);
    if (batch < network.max_batch) {
      refuse(batch);
    }
    return;
  }
#if NV_TENSORRT_MAJOR < 10 && !defined(TRT_MAJOR_RTX)
  if (implicit_) {
    if (engine_->getMaxBatchSize() < network.max_batch) {
      refuse(engine_->getMaxBatchSize());
    }
    return;
  }
#endif
  std::int64_t most = 0;
  for (int profile = 0; profile < engine_->getNbOptimizationProfiles(); ++profile) {
    using Select = nvinfer1::OptProfileSelector;
    const char* name = input_name_.c_str();
    const std::int64_t low = engine_->getProfileShape(name, profile, Select::kMIN).d[0];
    const std::int64_t high = engine_->getProfileShape(name, profile, Select::kMAX).d[0];
    if (low <= 1 && high >= network.max_batch) {
      profiles_.push_back(profile);
    }
    most = std::max(most, low <= 1 ? high : 0);
  }
  if (profiles_.empty()) {
    refuse(most);
  }
}

void Plan::check_output(const PluginOutput& output) {
  PlanOutput to;
  to.name = output.name;
  to.channels = output.channels;
  to.height = output.height;
  to.width = output.width;
  to.elements = static_cast<std::size_t>(output.channels) *
                static_cast<std::size_t>(output.height) * static_cast<std::size_t>(output.width);
  to.half_out = output.half != 0;
  if (engine_->getTensorShape(output.name).nbDims < 0) {
    throw Error(Code::kBundle, path_,
                "outputs: the manifest names " + to.name + ", the plan has no such tensor");
  }
  std::vector<std::int64_t> picture;
  if (output.nhwc == 0) {
    picture = {output.channels, output.height, output.width};
  } else {
    picture = {output.height, output.width, output.channels};
  }
  if (output.sequence != 0) {  // has no height
    picture.erase(picture.begin() + (output.nhwc == 0 ? 1 : 0));
  }
  check_shape(to.name, picture);
  const DataType type = engine_->getTensorDataType(output.name);
  to.half_in_plan = type == DataType::kHALF;
  if (type != DataType::kFLOAT && !(to.half_in_plan && to.half_out)) {
    throw Error(Code::kBundle, path_,
                "outputs: the plan's " + to.name + " is " + text_of(type) + ", the manifest's " +
                    (to.half_out ? "float16" : "float32"));
  }
  outputs_.push_back(to);
}

void Plan::check_shape(const std::string& name, const std::vector<std::int64_t>& picture) {
  const Dims dims = engine_->getTensorShape(name.c_str());
  const int first = implicit_ ? 0 : 1;
  bool same = dims.nbDims == first + static_cast<int>(picture.size());
  for (std::size_t i = 0; same && i < picture.size(); ++i) {
    same = dims.d[first + static_cast<int>(i)] == picture[i];
  }
  if (!same) {
    std::string wanted = implicit_ ? "" : "?";
    for (const std::int64_t size : picture) {
      wanted += (wanted.empty() ? "" : ",") + std::to_string(size);
    }
    throw Error(
        Code::kBundle, path_,
        name + ": the plan's shape is " + text_of(dims) + ", the manifest's [" + wanted + "]");
  }
}

Dims Plan::input_shape(int batch) const {
  Dims dims = engine_->getTensorShape(input_name_.c_str());
  dims.d[0] = batch;
  return dims;
}

}  // namespace posewire
