// SPDX-License-Identifier: Apache-2.0
// OpenVINO on the CPU. Artifact (format "openvino"): the network as OpenVINO IR, ["model.xml",
// "model.bin"], as targets/openvino.py writes it: input uint8 NHWC [batch, height, width, 3] with
// channel order and normalisation inside, outputs float32 under the manifest's names.
// max_batch 1 is compiled with a fixed shape; more keeps the batch dynamic within 1 … max_batch.
#include <algorithm>
#include <openvino/openvino.hpp>
#include <sstream>

#include "infer/rows.h"

namespace posewire {
namespace {

constexpr const char* kDevice = "CPU";

std::string version() { return ov::get_openvino_version().buildNumber; }

// OpenVINO's messages carry source positions and line breaks; a report is one line.
std::string one_line(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) {
    line += (line.empty() ? "" : " ") + word;
  }
  return line;
}

ov::element::Type hint_of(const std::string& precision, const std::string& where) {
  // int8 names the network's own Q/DQ operators; what they leave in floating point stays fp32.
  if (precision == "fp32" || precision == "int8") {
    return ov::element::f32;
  }
  if (precision == "bf16") {
    return ov::element::bf16;
  }
  if (precision == "fp16") {
    return ov::element::f16;
  }
  throw Error(Code::kBundle, where + ": target.precision",
              "\"" + precision + "\" is not one of OpenVINO's here (fp32, fp16, bf16, int8)");
}

struct Slot {
  ov::Tensor input;               // [max_batch, height, width, 3]
  std::vector<ov::Tensor> parts;  // parts[b - 1]: its first b pictures
  ov::InferRequest request;
  std::vector<const float*> maps;  // of the last batch, one per output
};

class OpenVino : public Runtime {
 public:
  OpenVino(const Bundle& bundle, const RuntimeOptions& options)
      : max_batch_(batch_of(bundle, options)) {
    const Manifest& manifest = bundle.manifest;
    const std::string where = bundle.directory + "/manifest.json";
    check_artifact(manifest.artifacts[0], where);
    check_device(bundle);
    const ov::element::Type hint = hint_of(manifest.target->precision, where);

    const std::shared_ptr<ov::Model> model = read(bundle);
    shape_input(model.get(), manifest, where);
    check_outputs(*model, bundle, where);
    compile(model, hint, options, where);

    const int requests = options.requests > 0 ? options.requests : own_requests();
    slots_.resize(static_cast<std::size_t>(requests));
    for (Slot& slot : slots_) {
      prepare(&slot, manifest);
    }
  }

  int requests() const noexcept override { return static_cast<int>(slots_.size()); }
  int max_batch() const noexcept override { return max_batch_; }
  void* input(int request) noexcept override { return at(request).input.data(); }

  Status start(int request, int batch) override {
    if (batch < 1 || batch > max_batch_) {
      return {Code::kBug, "openvino: batch of " + std::to_string(batch) + " pictures, at most " +
                              std::to_string(max_batch_)};
    }
    Slot& slot = at(request);
    try {
      if (max_batch_ > 1) {
        slot.request.set_input_tensor(slot.parts[static_cast<std::size_t>(batch) - 1]);
      }
      slot.request.start_async();
    } catch (const std::exception& error) {
      return {Code::kUnavailable, "openvino: " + one_line(error.what())};
    }
    return {};
  }

  Status wait(int request) override {
    Slot& slot = at(request);
    try {
      slot.request.wait();
      for (std::size_t i = 0; i < ports_.size(); ++i) {
        slot.maps[i] = slot.request.get_tensor(ports_[i]).data<const float>();
      }
    } catch (const std::exception& error) {
      return {Code::kUnavailable, "openvino: " + one_line(error.what())};
    }
    return {};
  }

  void outputs(int request, int index, std::vector<MapView>* views) const override {
    const Slot& slot = slots_[static_cast<std::size_t>(request)];
    views->clear();
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      const MapView& shape = shapes_[i];
      views->push_back(shape);
      views->back().data = slot.maps[i] + static_cast<std::ptrdiff_t>(index) * shape.channels *
                                              shape.height * shape.width;
    }
  }

 private:
  Slot& at(int request) noexcept { return slots_[static_cast<std::size_t>(request)]; }

  static void check_artifact(const Artifact& artifact, const std::string& where) {
    if (artifact.files.size() != 2) {
      throw Error(Code::kBundle, where + ": artifacts[0].files",
                  "must be OpenVINO's two, the .xml and the .bin");
    }
    if (artifact.input_dtype != DType::kUint8 || artifact.input_layout != Layout::kNHWC) {
      throw Error(Code::kBundle, where + ": artifacts[0].input", "must be uint8 NHWC");
    }
    for (const ArtifactOutput& output : artifact.outputs) {
      if (output.dtype != DType::kFloat32) {
        throw Error(Code::kBundle, where + ": artifacts[0].outputs",
                    output.name + " must be float32");
      }
    }
  }

  std::shared_ptr<ov::Model> read(const Bundle& bundle) {
    const std::vector<std::string>& files = bundle.manifest.artifacts[0].files;
    try {
      return core_.read_model(bundle.path(files[0]), bundle.path(files[1]));
    } catch (const ov::Exception& error) {
      throw Error(Code::kBundle, bundle.path(files[0]),
                  "OpenVINO cannot read it: " + one_line(error.what()));
    }
  }

  void check_device(const Bundle& bundle) {
    const auto device = core_.get_property(kDevice, ov::device::full_name);
    const std::string& wanted = bundle.manifest.target->device;
    if (!wanted.empty() && wanted != device) {
      throw Error(Code::kBundle, bundle.directory,
                  "was compiled for \"" + wanted + "\", this is \"" + device +
                      "\": compile it again (posewire compile)");
    }
  }

  void shape_input(ov::Model* model, const Manifest& manifest, const std::string& where) const {
    if (model->inputs().size() != 1) {
      throw Error(Code::kBundle, where,
                  "the network has " + std::to_string(model->inputs().size()) +
                      " inputs, the manifest one (" + manifest.input_name + ")");
    }
    const ov::Output<ov::Node> input = model->input();
    const ov::PartialShape manifest_shape{ov::Dimension::dynamic(), manifest.input_height,
                                          manifest.input_width, 3};
    if (!input.get_partial_shape().compatible(manifest_shape) ||
        input.get_element_type() != ov::element::u8) {
      throw Error(Code::kBundle, where,
                  "input: the network takes " + input.get_element_type().to_string() + " " +
                      input.get_partial_shape().to_string() + ", the manifest says u8 " +
                      manifest_shape.to_string() + " (" + manifest.input_name + ")");
    }
    const ov::Dimension batch = max_batch_ == 1 ? ov::Dimension(1) : ov::Dimension(1, max_batch_);
    model->reshape(ov::PartialShape{batch, manifest.input_height, manifest.input_width, 3});
  }

  void check_outputs(const ov::Model& model, const Bundle& bundle, const std::string& where) {
    const Manifest& manifest = bundle.manifest;
    for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
      const OutputSpec& output = manifest.outputs[i];
      const std::size_t port = port_of(model, output.name, where);
      const Layout layout = artifact_output(bundle, output.name).layout;
      const MapView shape = frame_shape(manifest, output, DType::kFloat32, layout);
      const ov::PartialShape wanted = tensor_shape(output, layout, shape);
      const ov::Output<const ov::Node> found = model.output(port);
      if (!found.get_partial_shape().compatible(wanted) ||
          found.get_element_type() != ov::element::f32) {
        throw Error(Code::kBundle, where,
                    "outputs[" + std::to_string(i) + "]: the network's " + output.name + " is " +
                        found.get_element_type().to_string() + " " +
                        found.get_partial_shape().to_string() + ", the manifest's f32 " +
                        wanted.to_string());
      }
      shapes_.push_back(shape);
      port_numbers_.push_back(port);
    }
  }

  // A sequence's tensor has no height.
  static ov::PartialShape tensor_shape(const OutputSpec& output, Layout layout,
                                       const MapView& shape) {
    const ov::Dimension any = ov::Dimension::dynamic();
    if (output.length > 0) {
      return layout == Layout::kNCHW ? ov::PartialShape{any, shape.channels, shape.width}
                                     : ov::PartialShape{any, shape.width, shape.channels};
    }
    return layout == Layout::kNCHW
               ? ov::PartialShape{any, shape.channels, shape.height, shape.width}
               : ov::PartialShape{any, shape.height, shape.width, shape.channels};
  }

  static std::size_t port_of(const ov::Model& model, const std::string& name,
                             const std::string& where) {
    std::string known;
    for (std::size_t port = 0; port < model.outputs().size(); ++port) {
      const auto& names = model.output(port).get_names();
      if (names.count(name) > 0) {
        return port;
      }
      for (const std::string& other : names) {
        known += (known.empty() ? "" : ", ") + other;
      }
    }
    throw Error(Code::kBundle, where,
                "outputs: the manifest names " + name + ", the network has " + known);
  }

  void compile(const std::shared_ptr<ov::Model>& model, ov::element::Type hint,
               const RuntimeOptions& options, const std::string& where) {
    ov::AnyMap properties = {ov::hint::performance_mode(ov::hint::PerformanceMode::THROUGHPUT),
                             ov::hint::inference_precision(hint)};
    if (options.requests > 0) {
      properties.insert(ov::hint::num_requests(static_cast<std::uint32_t>(options.requests)));
    }
    if (options.threads > 0) {
      properties.insert(ov::inference_num_threads(options.threads));
    }
    compiled_ = core_.compile_model(model, kDevice, properties);
    const auto running = compiled_.get_property(ov::hint::inference_precision);
    if (running != hint) {
      throw Error(
          Code::kUnavailable, where + ": target.precision",
          "this CPU has no " + hint.to_string() + ", OpenVINO would run " + running.to_string());
    }
    for (const std::size_t port : port_numbers_) {
      ports_.push_back(compiled_.output(port));
    }
  }

  // One slot per stream keeps the cores busy; one more is filled or decoded meanwhile.
  int own_requests() const {
    const auto streams = compiled_.get_property(ov::optimal_number_of_infer_requests);
    return static_cast<int>(streams) + 1;
  }

  void prepare(Slot* slot, const Manifest& manifest) {
    const auto height = static_cast<std::size_t>(manifest.input_height);
    const auto width = static_cast<std::size_t>(manifest.input_width);
    const auto shape = [&](int batch) {
      return ov::Shape{static_cast<std::size_t>(batch), height, width, 3};
    };
    slot->input = ov::Tensor(ov::element::u8, shape(max_batch_));
    std::fill_n(slot->input.data<std::uint8_t>(), slot->input.get_byte_size(), std::uint8_t{0});
    for (int batch = 1; batch <= max_batch_; ++batch) {
      slot->parts.emplace_back(ov::element::u8, shape(batch), slot->input.data());
    }
    slot->request = compiled_.create_infer_request();
    slot->request.set_input_tensor(slot->input);
    slot->maps.resize(ports_.size());
  }

  int max_batch_;
  ov::Core core_;
  ov::CompiledModel compiled_;
  std::vector<std::size_t> port_numbers_;          // of each manifest output in the network
  std::vector<ov::Output<const ov::Node>> ports_;  // the same, compiled
  std::vector<MapView> shapes_;
  std::vector<Slot> slots_;
};

}  // namespace

std::unique_ptr<Runtime> open_openvino(const Bundle& bundle, const RuntimeOptions& options) {
  check_version(bundle, version());
  try {
    return std::make_unique<OpenVino>(bundle, options);
  } catch (const ov::Exception& error) {
    throw Error(Code::kUnavailable, bundle.directory, "OpenVINO: " + one_line(error.what()));
  }
}

RuntimeInfo openvino_info() {
  RuntimeInfo info{"openvino", version(), true, ""};
  try {
    ov::Core core;
    core.get_property(kDevice, ov::device::full_name);
  } catch (const std::exception& error) {
    info.available = false;
    info.why = one_line(error.what());
  }
  return info;
}

}  // namespace posewire
