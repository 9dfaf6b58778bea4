// SPDX-License-Identifier: Apache-2.0
// A TensorRT for the plug-in's tests, made of the declarations in cpp/infer/tensorrt_api and in the
// mode they are compiled for. A plan is text:
//
//   posewire-fake-plan 1
//   implicit 4                      no batch dimension, at most 4 (8.5 only)
//   profile 1 4                     batches of 1 to 4; a line each
//   input image uint8 ? 48 64 3     float32 or uint8; the batch first, ? is dynamic
//   output mean float32 1 ? 3 6 8   float32 or float16, times, shape
//   end
//
// Its outputs are the input's cell means (fake_network.h). As TensorRT does, it refuses what was
// not set, profiles that another context holds (before 10), and batches outside the profile; and a
// context whose shape was changed must run once before it can be captured.
#include <NvInfer.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tensorrt/fake_network.h"

#ifdef POSEWIRE_DECLARED_CUDA
#include "tensorrt/fake_cuda.h"
#endif

namespace {

using namespace nvinfer1;

#ifdef POSEWIRE_DECLARED_CUDA
using posewire::test::fails_now;
using posewire::test::is_capturing;

std::int32_t library_version() { return posewire::test::fake_cuda().tensorrt; }
void count_enqueue() { ++posewire::test::fake_cuda().enqueues; }
#else  // the real CUDA: tests/gpu
bool fails_now(const char*) { return false; }
bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}
std::int32_t library_version() { return 0; }
void count_enqueue() {}
#endif

constexpr bool kProfilesAreShared = POSEWIRE_DECLARED_TENSORRT >= 1000;

struct Tensor {
  std::string name, type;
  bool input = false, chw2 = false;
  float times = 1.0F;
  Dims shape{};
};

struct Network {
  std::vector<Tensor> tensors;
  std::vector<std::pair<int, int>> profiles;
  std::set<int> held;  // profiles that a context has
  int implicit = 0;
  ILogger* log = nullptr;

  const Tensor* find(const std::string& name) const {
    for (const Tensor& tensor : tensors) {
      if (tensor.name == name) {
        return &tensor;
      }
    }
    return nullptr;
  }
  bool refuse(const std::string& why) const {
    log->log(ILogger::Severity::kERROR, ("fake plan:\n  " + why).c_str());
    return false;
  }
};

bool parse(const std::string& text, Network* network) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != "posewire-fake-plan 1") {
    return network->refuse("magic tag does not match");
  }
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "end") {
      return true;
    }
    if (word == "implicit") {
      words >> network->implicit;
    } else if (word == "profile") {
      std::pair<int, int> range;
      words >> range.first >> range.second;
      network->profiles.push_back(range);
    } else {
      Tensor tensor;
      tensor.input = word == "input";
      words >> tensor.name >> tensor.type;
      if (!tensor.input) {
        words >> tensor.times;
      }
      tensor.chw2 = tensor.type == "chw2";
      while (words >> word) {
        tensor.shape.d[tensor.shape.nbDims++] = word == "?" ? -1 : std::stoi(word);
      }
      network->tensors.push_back(tensor);
    }
  }
  return network->refuse("the plan is cut off");
}

class Context final : public IExecutionContext {
 public:
  explicit Context(Network* network) : network_(*network) {
    for (const Tensor& tensor : network_.tensors) {
      addresses_[tensor.name] = nullptr;
    }
  }
  ~Context() noexcept override { network_.held.erase(profile_); }

  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept override {
    if (!kProfilesAreShared && !network_.held.insert(profile).second) {
      return network_.refuse("profile " + std::to_string(profile) + " is in use");
    }
    profile_ = profile;
    return true;
  }
  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    const Tensor* const tensor = network_.find(name);
    if (tensor == nullptr || profile_ < 0) {
      return network_.refuse("no profile");
    }
    const auto& range = network_.profiles[static_cast<std::size_t>(profile_)];
    if (dims.d[0] < range.first || dims.d[0] > range.second) {
      return network_.refuse("outside the profile");
    }
    batch_ = static_cast<int>(dims.d[0]);
    changed_ = true;
    return true;
  }
  bool setTensorAddress(const char* name, void* data) noexcept override {
    const auto found = addresses_.find(name);
    if (found == addresses_.end()) {
      return network_.refuse("no such tensor");
    }
    found->second = data;
    return true;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (network_.implicit > 0) {
      return network_.refuse("enqueueV3 of an implicit batch");
    }
    const Tensor& input = this->input();
    if (input.shape.d[0] >= 0) {
      batch_ = static_cast<int>(input.shape.d[0]);
    }
    if (batch_ == 0) {
      return network_.refuse("an input's shape was not set");
    }
    return run(stream);
  }
#if POSEWIRE_DECLARED_TENSORRT < 1000
  bool enqueue(std::int32_t batch, void* const* bindings, cudaStream_t stream,
               cudaEvent_t*) noexcept override {
    if (network_.implicit == 0 || batch > network_.implicit) {
      return network_.refuse("enqueue of an explicit batch");
    }
    batch_ = batch;
    for (std::size_t i = 0; i < network_.tensors.size(); ++i) {
      addresses_[network_.tensors[i].name] = bindings[i];
    }
    return run(stream);
  }
#endif

 private:
  const Tensor& input() const {
    return *std::find_if(network_.tensors.begin(), network_.tensors.end(),
                         [](const Tensor& tensor) { return tensor.input; });
  }

  bool run(cudaStream_t stream) {
    if (fails_now("enqueue")) {
      return network_.refuse("injected");
    }
    if (changed_ && is_capturing(stream)) {
      return network_.refuse("the shape changed: it must run once before it is captured");
    }
    count_enqueue();
    const Tensor& in = input();
    const int first = network_.implicit > 0 ? 0 : 1;
    const bool planar = in.shape.d[first] == 3;
    for (const Tensor& tensor : network_.tensors) {
      if (addresses_[tensor.name] == nullptr) {
        return network_.refuse(tensor.name + " has no address");
      }
      if (tensor.input) {
        continue;
      }
      posewire::test::CellMeans job;
      job.input = addresses_[in.name];
      job.input_float = in.type == "float32";
      job.input_planar = planar;
      job.height = static_cast<int>(in.shape.d[planar ? first + 1 : first]);
      job.width = static_cast<int>(in.shape.d[planar ? first + 2 : first + 1]);
      job.output = addresses_[tensor.name];
      job.half = tensor.type == "float16";
      job.cells_high = static_cast<int>(tensor.shape.d[first + 1]);
      job.cells_wide = static_cast<int>(tensor.shape.d[first + 2]);
      job.times = tensor.times;
      job.batch = batch_;
      if (posewire::test::launch_cell_means(job, stream) != cudaSuccess) {
        return network_.refuse("the kernel did not start");
      }
    }
    changed_ = false;
    return true;
  }

  Network& network_;
  std::map<std::string, void*, std::less<>> addresses_;
  int profile_ = -1, batch_ = 0;
  bool changed_ = true;
};

#ifdef TRT_MAJOR_RTX
class Config final : public IRuntimeConfig {
 public:
  void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy) noexcept override {}
};
#endif

class Engine final : public ICudaEngine {
 public:
  explicit Engine(std::unique_ptr<Network> network) : network_(std::move(network)) {}

  std::int32_t getNbIOTensors() const noexcept override {
    return static_cast<std::int32_t>(network_->tensors.size());
  }
  const char* getIOTensorName(std::int32_t index) const noexcept override {
    return network_->tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    const Tensor* const tensor = network_->find(name);
    return tensor == nullptr ? TensorIOMode::kNONE
           : tensor->input   ? TensorIOMode::kINPUT
                             : TensorIOMode::kOUTPUT;
  }
  Dims getTensorShape(const char* name) const noexcept override {
    const Tensor* const tensor = network_->find(name);
    return tensor == nullptr ? Dims{-1, {}} : tensor->shape;
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    const Tensor* const tensor = network_->find(name);
    if (tensor == nullptr) {
      return DataType::kFLOAT;
    }
    return tensor->type == "uint8"     ? DataType::kUINT8
           : tensor->type == "float16" ? DataType::kHALF
           : tensor->type == "int8"    ? DataType::kINT8
                                       : DataType::kFLOAT;
  }
  TensorFormat getTensorFormat(const char* name) const noexcept override {
    const Tensor* const tensor = network_->find(name);
    return tensor != nullptr && tensor->chw2 ? TensorFormat::kCHW2 : TensorFormat::kLINEAR;
  }
  std::int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<std::int32_t>(network_->profiles.size());
  }
  Dims getProfileShape(const char* name, std::int32_t profile,
                       OptProfileSelector select) const noexcept override {
    Dims dims = network_->find(name)->shape;
    const auto& range = network_->profiles[static_cast<std::size_t>(profile)];
    dims.d[0] = select == OptProfileSelector::kMIN ? range.first : range.second;
    return dims;
  }
  IExecutionContext* createExecutionContext() noexcept override {
    if (fails_now("createExecutionContext")) {
      network_->refuse("no memory for the context");
      return nullptr;
    }
    return new Context(network_.get());
  }
#ifdef TRT_MAJOR_RTX
  IRuntimeConfig* createRuntimeConfig() noexcept override { return new Config; }
  IExecutionContext* createExecutionContext(IRuntimeConfig*) noexcept override {
    return createExecutionContext();
  }
#endif
#if POSEWIRE_DECLARED_TENSORRT < 1000
  bool hasImplicitBatchDimension() const noexcept override { return network_->implicit > 0; }
  std::int32_t getMaxBatchSize() const noexcept override { return network_->implicit; }
  std::int32_t getNbBindings() const noexcept override { return getNbIOTensors(); }
  std::int32_t getBindingIndex(const char* name) const noexcept override {
    for (std::int32_t i = 0; i < getNbIOTensors(); ++i) {
      if (std::strcmp(getIOTensorName(i), name) == 0) {
        return i;
      }
    }
    return -1;
  }
#endif

 private:
  const std::unique_ptr<Network> network_;
};

class Runtime final : public IRuntime {
 public:
  explicit Runtime(ILogger* log) : log_(log) {}
  ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) noexcept override {
    auto network = std::make_unique<Network>();
    network->log = log_;
    return parse({static_cast<const char*>(plan), bytes}, network.get())
               ? new Engine(std::move(network))
               : nullptr;
  }

 private:
  ILogger* const log_;
};

}  // namespace

extern "C" void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept {
  auto* const log = static_cast<ILogger*>(logger);
  if (version != NV_TENSORRT_VERSION || fails_now("createInferRuntime")) {
    log->log(ILogger::Severity::kERROR, "the runtime does not start");
    return nullptr;
  }
  return static_cast<IRuntime*>(new Runtime(log));
}

extern "C" std::int32_t getInferLibVersion() noexcept {
  return library_version() != 0 ? library_version() : NV_TENSORRT_VERSION;
}

#ifdef POSEWIRE_DECLARED_CUDA
namespace posewire::test {

cudaError_t launch_cell_means(const CellMeans& job, cudaStream_t stream) {
  return put(
      stream,
      [](const void* arguments) {
        CellMeans copy;
        std::memcpy(static_cast<void*>(&copy), arguments, sizeof(copy));
        const int cells = copy.batch * 3 * copy.cells_high * copy.cells_wide;
        for (int i = 0; i < cells; ++i) {
          cell_mean(copy, i);
        }
      },
      &job, sizeof(job));
}

}  // namespace posewire::test
#endif
