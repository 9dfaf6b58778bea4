// SPDX-License-Identifier: Apache-2.0
#include "infer/tflite_network.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/log.h"
#include "infer/rows.h"

namespace posewire::litert {
namespace {

// A name from the file, fit for a message: a damaged file's may hold any bytes.
std::string printable(const char* name) {
  std::string text = name == nullptr ? "" : name;
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

std::size_t rounded(std::size_t bytes) {
  return (bytes + kSlack + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
}

void check_artifact(const Manifest& manifest, const std::string& where) {
  const Artifact& artifact = manifest.artifacts[0];
  if (artifact.files.size() != 1) {
    throw Error(Code::kBundle, where + ": artifacts[0].files", "must be one file");
  }
  if (artifact.input_dtype != DType::kUint8 || artifact.input_layout != Layout::kNHWC) {
    throw Error(Code::kBundle, where + ": artifacts[0].input", "must be uint8 NHWC");
  }
  for (const ArtifactOutput& output : artifact.outputs) {
    if (output.dtype != DType::kFloat32 && output.dtype != DType::kInt8) {
      throw Error(Code::kBundle, where + ": artifacts[0].outputs",
                  output.name + " must be float32 or int8");
    }
  }
  const std::string& precision = manifest.target->precision;
  if (precision != "fp32" && precision != "int8") {
    throw Error(Code::kBundle, where + ": target.precision",
                "\"" + precision + "\" is not one of TFLite's here (fp32, int8)");
  }
  utsname machine{};
  ::uname(&machine);
  const std::string& wanted = manifest.target->device;
  if (!wanted.empty() && wanted != machine.machine) {
    throw Error(Code::kBundle, where,
                "was compiled for \"" + wanted + "\", this is \"" + machine.machine +
                    "\": compile it again (posewire compile)");
  }
}

std::string text_of(int element, const std::vector<int>& shape) {
  std::string text = element == kFloat32 ? "float32"
                     : element == kUInt8 ? "uint8"
                     : element == kInt8  ? "int8"
                                         : "type " + std::to_string(element);
  text += " [";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ",") + std::to_string(shape[i]);
  }
  return text + "]";
}
std::string text_of(const RankedType& type) {
  const int* dimensions = type.shape.dimensions;
  return text_of(type.element, {dimensions, dimensions + type.shape.rank});
}

}  // namespace

struct Network::Found {
  std::string name;
  RankedType type{};
  bool quantised = false;
  PerTensorQuantization quantisation{};
};

Aligned::Aligned(std::size_t bytes)
    : bytes_(bytes), data_(std::aligned_alloc(kHostAlignment, rounded(bytes)), std::free) {
  if (data_ == nullptr) {
    throw Error(Code::kUnavailable, "tflite", "out of memory");
  }
  std::memset(data_.get(), 0, rounded(bytes));
}

void need(Result result, Code code, const std::string& where, const std::string& what) {
  if (result != 0) {
    throw Error(code, where, what + ": " + name_of(result));
  }
}

std::size_t bytes_of(const RankedType& type) noexcept {
  std::size_t bytes = type.element == kFloat32 ? sizeof(float) : 1;
  for (unsigned int i = 0; i < type.shape.rank; ++i) {
    bytes *= static_cast<std::size_t>(type.shape.dimensions[i]);
  }
  return bytes;
}

Network::Network(std::shared_ptr<const Library> library, const Bundle& bundle)
    : api_(std::move(library)) {
  const std::string where = bundle.directory + "/manifest.json";
  check_artifact(bundle.manifest, where);
  path_ = bundle.path(bundle.manifest.artifacts[0].files[0]);
  open_model();
  check_input(bundle.manifest, where);
  check_outputs(bundle, where);
}

void Network::open_model() {
  std::ifstream file(path_, std::ios::binary | std::ios::ate);
  const std::streamoff bytes = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (bytes < 0) {
    throw Error(Code::kBundle, path_, "cannot be read");
  }
  file_ = std::make_unique<Aligned>(static_cast<std::size_t>(bytes));
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(file_->data()), bytes)) {
    throw Error(Code::kBundle, path_, "cannot be read");
  }
  // Only the CPU, or LiteRT loads its GPU library beside it.
  const EnvironmentOption options[] = {{kTagAutoRegister, {kAnyInt, kCpu}},
                                       {kTagMinLogSeverity, {kAnyInt, kLogErrorsOnly}}};
  Environment environment = nullptr;
  need(api_->CreateEnvironment(2, options, &environment), Code::kUnavailable, "tflite", "LiteRT");
  environment_ = {environment, api_->DestroyEnvironment};
  Model model = nullptr;
  need(api_->CreateModelFromBuffer(environment, file_->data(), file_->bytes(), &model),
       Code::kBundle, path_, "LiteRT cannot read it");
  model_ = {model, api_->DestroyModel};
  Index signatures = 0;
  need(api_->GetNumModelSignatures(model, &signatures), Code::kBundle, path_, "signatures");
  if (signatures != 1) {
    throw Error(Code::kBundle, path_,
                "has " + std::to_string(signatures) + " signatures, must have one");
  }
  need(api_->GetModelSignature(model, 0, &signature_), Code::kBundle, path_, "signature");
}

Network::Found Network::look(Tensor tensor, const char* name, const std::string& where) const {
  Found found;
  found.name = printable(name);
  int id = 0;
  need(api_->GetTensorTypeId(tensor, &id), Code::kBundle, where, found.name);
  if (id != kRanked) {
    throw Error(Code::kBundle, where, found.name + ": has no fixed shape");
  }
  need(api_->GetRankedTensorType(tensor, &found.type), Code::kBundle, where, found.name);
  need(api_->GetQuantizationTypeId(tensor, &id), Code::kBundle, where, found.name);
  if (id == kPerTensor) {
    found.quantised = true;
    need(api_->GetPerTensorQuantization(tensor, &found.quantisation), Code::kBundle, where,
         found.name);
  }
  return found;
}

void Network::check_input(const Manifest& manifest, const std::string& where) {
  Index inputs = 0;
  need(api_->GetNumSignatureInputs(signature_, &inputs), Code::kBundle, where, "inputs");
  if (inputs != 1) {
    throw Error(Code::kBundle, where,
                "the network has " + std::to_string(inputs) + " inputs, the manifest one (" +
                    manifest.input_name + ")");
  }
  Tensor tensor = nullptr;
  const char* name = nullptr;
  need(api_->GetSignatureInputName(signature_, 0, &name), Code::kBundle, where, "input");
  need(api_->GetSignatureInputTensorByIndex(signature_, 0, &tensor), Code::kBundle, where, "input");
  const Found found = look(tensor, name, where);
  const std::string wanted = text_of(kUInt8, {1, manifest.input_height, manifest.input_width, 3});
  if (text_of(found.type) != wanted || found.name != manifest.input_name) {
    throw Error(Code::kBundle, where,
                "input: the network takes " + found.name + ", " + text_of(found.type) +
                    ", the manifest says " + manifest.input_name + ", " + wanted);
  }
  input_ = found.type;
}

void Network::check_outputs(const Bundle& bundle, const std::string& where) {
  Index count = 0;
  need(api_->GetNumSignatureOutputs(signature_, &count), Code::kBundle, where, "outputs");
  std::vector<Found> found;
  std::string known;
  for (Index i = 0; i < count; ++i) {
    Tensor tensor = nullptr;
    const char* name = nullptr;
    need(api_->GetSignatureOutputName(signature_, i, &name), Code::kBundle, where, "outputs");
    need(api_->GetSignatureOutputTensorByIndex(signature_, i, &tensor), Code::kBundle, where,
         "outputs");
    found.push_back(look(tensor, name, where));
    outputs_.push_back(found.back().type);
    known += (known.empty() ? "" : ", ") + found.back().name;
  }
  for (const OutputSpec& output : bundle.manifest.outputs) {
    const auto same = [&output](const Found& one) { return one.name == output.name; };
    const auto tensor = std::find_if(found.begin(), found.end(), same);
    if (tensor == found.end()) {
      throw Error(Code::kBundle, where,
                  "outputs: the manifest names " + output.name + ", the network has " + known);
    }
    shapes_.push_back(checked(bundle, output, *tensor, where));
    tensor_of_.push_back(static_cast<std::size_t>(tensor - found.begin()));
  }
}

MapView Network::checked(const Bundle& bundle, const OutputSpec& output, const Found& found,
                         const std::string& where) {
  const ArtifactOutput& artifact = artifact_output(bundle, output.name);
  MapView shape = frame_shape(bundle.manifest, output, artifact.dtype, artifact.layout);
  const bool first = artifact.layout == Layout::kNCHW;  // channels first
  std::vector<int> sides = output.length > 0 ? std::vector<int>{shape.width}
                                             : std::vector<int>{shape.height, shape.width};
  sides.insert(first ? sides.begin() : sides.end(), shape.channels);
  sides.insert(sides.begin(), 1);
  const std::string wanted = text_of(artifact.dtype == DType::kInt8 ? kInt8 : kFloat32, sides);
  if (text_of(found.type) != wanted) {
    throw Error(Code::kBundle, where,
                "outputs: the network's " + output.name + " is " + text_of(found.type) +
                    ", the manifest's " + wanted);
  }
  if (artifact.dtype == DType::kInt8) {
    const float scale = found.quantisation.scale;
    if (!found.quantised || std::abs(artifact.scale - scale) > 1e-6F * scale ||
        found.quantisation.zero_point != artifact.zero_point) {
      std::ostringstream what;
      what << "outputs: " << output.name << " has scale " << scale << " and zero point "
           << found.quantisation.zero_point << " in the network, " << artifact.scale << " and "
           << artifact.zero_point << " in the manifest";
      throw Error(Code::kBundle, where, what.str());
    }
    shape.scale = artifact.scale;
    shape.zero_point = artifact.zero_point;
  }
  return shape;
}

// XNNPACK refuses some networks as a whole (quantisation steps too far apart); LiteRT's own
// kernels compute them, more slowly.
Owned<CompiledModel> Network::compiled(int threads) const {
  Result result = 0;
  for (const bool xnnpack : {true, false}) {
    if (!xnnpack) {
      log(Level::kWarning, path_, "XNNPACK refuses this network: it runs without, more slowly");
    }
    const Owned<Options> options = options_for(threads, xnnpack);
    CompiledModel model = nullptr;
    result = api_->CreateCompiledModel(environment_.get(), model_.get(), options.get(), &model);
    if (result == 0) {
      return {model, api_->DestroyCompiledModel};
    }
  }
  throw Error(Code::kBundle, path_, std::string("LiteRT cannot run it: ") + name_of(result));
}

Owned<Options> Network::options_for(int threads, bool xnnpack) const {
  Options options = nullptr;
  need(api_->CreateOptions(&options), Code::kUnavailable, "tflite", "options");
  Owned<Options> owned{options, api_->DestroyOptions};
  need(api_->SetOptionsHardwareAccelerators(options, kCpu), Code::kUnavailable, "tflite", "CPU");
  // The CPU's options travel as TOML under the identifier "xnnpack".
  const std::string toml = "kernel_mode = \"" + std::string(xnnpack ? "delegate" : "builtin") +
                           "\"\nnum_threads = " + std::to_string(threads) + "\n";
  char* text = ::strdup(toml.c_str());
  OpaqueOptions cpu = nullptr;
  const Result made = api_->CreateOpaqueOptions("xnnpack", text, std::free, &cpu);
  if (made != 0) {
    std::free(text);
  }
  need(made, Code::kUnavailable, "tflite", "options");
  need(api_->AddOpaqueOptions(options, cpu), Code::kUnavailable, "tflite", "options");
  return owned;
}

}  // namespace posewire::litert
