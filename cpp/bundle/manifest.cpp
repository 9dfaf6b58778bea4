// SPDX-License-Identifier: Apache-2.0
// The twin of posewire/manifest.py: tests/golden/bundles is read by both.
#include "bundle/manifest.h"

#include <algorithm>
#include <cmath>

#include "bundle/manifest_skeleton.h"
#include "core/error.h"
#include "core/strict_json.h"

namespace posewire {
namespace {

constexpr int kSchema = 1;
constexpr int kMaxSidePx = 16384;
constexpr int kMaxChannels = 65536;
constexpr int kMaxLength = 1 << 20;
constexpr std::size_t kMaxOutputs = 64;
constexpr std::size_t kMaxArtifacts = 32;
constexpr std::size_t kMaxFiles = 64;
constexpr std::size_t kMaxFigures = 1024;
constexpr std::size_t kMaxLayers = 4096;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 30;  // also of all files together

bool is_file_name(const std::string& name) { return is_word(name, "._-", 128); }

std::string digest(const At& at) {
  return at.matching(
      [](const std::string& s) {
        return s.size() == 64 && s.find_first_not_of("0123456789abcdef") == std::string::npos;
      },
      "must be 64 lower-case hex digits");
}

void parse_input(const At& at, bool partial, Manifest* manifest) {
  partial ? at.object({"width", "height"}, {"name", "channels", "resize"})
          : at.object({"name", "width", "height", "channels", "resize"});
  manifest->input_name = at.has("name") ? at["name"].word() : "";
  manifest->input_width = at["width"].positive(kMaxSidePx);
  manifest->input_height = at["height"].positive(kMaxSidePx);
  manifest->input_rgb = !at.has("channels") || at["channels"].choice({"RGB", "BGR"}) == "RGB";
  if (at.has("resize")) {
    at["resize"].choice({"letterbox"});
  }
}

Layout layout(const At& at) {
  return at.choice({"NHWC", "NCHW"}) == "NHWC" ? Layout::kNHWC : Layout::kNCHW;
}

// Where a sequence has no height, NCW and NWC.
Layout output_layout(const At& at, const OutputSpec& output) {
  return output.length == 0                   ? layout(at)
         : at.choice({"NWC", "NCW"}) == "NWC" ? Layout::kNHWC
                                              : Layout::kNCHW;
}

DType dtype(const At& at) {
  return dtype_from(at.choice({"uint8", "int8", "float16", "float32"}), "");
}

void parse_outputs(const At& at, bool partial, Manifest* manifest) {
  const std::size_t count = at.items(1, kMaxOutputs);
  for (std::size_t i = 0; i < count; ++i) {
    const At item = at.item(i);
    item.mapping();
    const bool sequence = item.has("length");
    const char* extent = sequence ? "length" : "stride";
    partial ? item.object({"name", "channels", extent}, {"layout"})
            : item.object({"name", "channels", extent});
    OutputSpec output;
    output.name = item["name"].word();
    for (const OutputSpec& other : manifest->outputs) {
      if (other.name == output.name) {
        item["name"].fail(output.name + " appears twice");
      }
    }
    output.channels = item["channels"].positive(kMaxChannels);
    (sequence ? output.length : output.stride) =
        item[extent].positive(sequence ? kMaxLength : kMaxSidePx);
    if (item.has("layout")) {
      output.layout = output_layout(item["layout"], output);
    }
    manifest->outputs.push_back(std::move(output));
  }
}

// scale and zero_point go together, with integers only.
void parse_quantisation(const At& at, DType type, bool required, float* scale, int* zero_point) {
  const bool integer = type == DType::kInt8 || type == DType::kUint8;
  for (const char* key : {"scale", "zero_point"}) {
    if (at.has(key) && !integer) {
      at[key].fail(std::string("stands only with a quantised dtype, not ") + name_of(type));
    }
  }
  if (at.has("scale") != at.has("zero_point") || (required && !at.has("scale"))) {
    at.fail("a quantised tensor needs both scale and zero_point");
  }
  if (at.has("scale")) {
    *scale = static_cast<float>(at["scale"].above_zero());
    *zero_point = static_cast<int>(at["zero_point"].integer(-128, 255, "an integer of -128..255"));
    if (!(*scale > 0) || !std::isfinite(*scale)) {
      at["scale"].fail("must be above 0 as a 32-bit float");
    }
  }
}

std::vector<float> triple(const At& at, bool above_zero) {
  std::vector<float> result;
  const std::size_t count = at.items(0, kMaxFigures);
  for (std::size_t i = 0; i < count; ++i) {
    const At item = at.item(i);
    result.push_back(static_cast<float>(above_zero ? item.above_zero() : item.number()));
  }
  if (count != 3) {
    at.fail("must have 3 numbers, one per channel");
  }
  return result;
}

void parse_artifact_input(const At& at, Artifact* artifact) {
  at.object({"layout", "dtype"}, {"mean", "std", "scale", "zero_point"});
  artifact->input_layout = layout(at["layout"]);
  artifact->input_dtype = dtype(at["dtype"]);
  if (at.has("mean") != at.has("std")) {
    at.fail(at.has("mean") ? "mean stands without std" : "std stands without mean");
  }
  if (at.has("mean")) {
    if (artifact->input_dtype != DType::kFloat32) {
      at["mean"].fail("mean and std stand only where the dtype is float32");
    }
    artifact->mean = triple(at["mean"], false);
    artifact->std = triple(at["std"], true);
  }
  parse_quantisation(at, artifact->input_dtype, artifact->input_dtype == DType::kInt8,
                     &artifact->input_scale, &artifact->input_zero_point);
}

// Fills artifact->outputs in the manifest's order.
void parse_artifact_outputs(const At& at, const Manifest& manifest, Artifact* artifact) {
  artifact->outputs.assign(manifest.outputs.size(), {});
  const std::size_t count = at.items(0, kMaxOutputs);
  for (std::size_t i = 0; i < count; ++i) {
    const At item = at.item(i);
    item.object({"name", "layout", "dtype"}, {"scale", "zero_point"});
    ArtifactOutput output;
    output.name = item["name"].word();
    output.dtype = dtype(item["dtype"]);
    const bool integer = output.dtype == DType::kInt8 || output.dtype == DType::kUint8;
    parse_quantisation(item, output.dtype, integer, &output.scale, &output.zero_point);
    const auto spec =
        std::find_if(manifest.outputs.begin(), manifest.outputs.end(),
                     [&](const OutputSpec& other) { return other.name == output.name; });
    if (spec == manifest.outputs.end()) {
      item["name"].fail(output.name + " is not one of the manifest's outputs");
    }
    output.layout = output_layout(item["layout"], *spec);
    ArtifactOutput& place =
        artifact->outputs[static_cast<std::size_t>(spec - manifest.outputs.begin())];
    if (!place.name.empty()) {
      item["name"].fail(output.name + " appears twice");
    }
    place = std::move(output);
  }
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    if (artifact->outputs[i].name.empty()) {
      at.fail("lacks the manifest's output " + manifest.outputs[i].name);
    }
  }
}

void parse_artifacts(const At& at, Manifest* manifest) {
  const std::size_t count = at.items(1, kMaxArtifacts);
  for (std::size_t i = 0; i < count; ++i) {
    const At item = at.item(i);
    item.object({"files", "format", "precision", "input", "outputs"});
    Artifact artifact;
    const At files = item["files"];
    const std::size_t file_count = files.items(1, kMaxFiles);
    for (std::size_t j = 0; j < file_count; ++j) {
      artifact.files.push_back(files.item(j).matching(
          is_file_name, "must be a plain file name: A-Z, a-z, 0-9, . _ -, no folders"));
    }
    artifact.format = item["format"].choice(
        {"onnx", "openvino", "tensorrt", "tensorrt_rtx", "tflite", "uff", "fake"});
    artifact.precision = item["precision"].choice({"fp32", "fp16", "bf16", "int8", "int8-u8"});
    parse_artifact_input(item["input"], &artifact);
    parse_artifact_outputs(item["outputs"], *manifest, &artifact);
    manifest->artifacts.push_back(std::move(artifact));
  }
}

Target parse_target(const At& at) {
  at.object({"name", "runtime", "runtime_version", "device", "precision", "max_batch"},
            {"kept_layers"});
  Target target;
  target.name = at["name"].word();
  target.runtime = at["runtime"].word();
  target.runtime_version = at["runtime_version"].text();
  target.device = at["device"].text();
  target.precision = at["precision"].choice({"fp32", "fp16", "bf16", "int8", "int8-u8"});
  target.max_batch = at["max_batch"].positive(4096);
  if (at.has("kept_layers")) {
    const At layers = at["kept_layers"];
    const std::size_t count = layers.items(1, kMaxLayers);
    for (std::size_t i = 0; i < count; ++i) {
      layers.item(i).text();
    }
  }
  return target;
}

void parse_files(const At& at, Manifest* manifest) {
  if (at.mapping().size() > kMaxFiles) {
    at.fail("must list at most " + std::to_string(kMaxFiles) + " files");
  }
  std::int64_t total = 0;
  for (const auto& entry : at.mapping().items()) {
    const std::string& name = entry.key();
    if (!is_file_name(name)) {
      at.fail(shown(name) + " is not a plain file name: A-Z, a-z, 0-9, . _ -, no folders");
    }
    if (name == "manifest.json" || name == "manifest.sig") {
      at.fail("must not list " + name);
    }
    const At item = at[name.c_str()];
    item.object({"sha256", "bytes"});
    const std::int64_t bytes = item["bytes"].integer(0, kMaxFileBytes, "a size in bytes");
    total += bytes;
    manifest->files[name] = {digest(item["sha256"]), static_cast<std::uint64_t>(bytes)};
  }
  if (total > kMaxFileBytes) {
    at.fail("is larger than " + std::to_string(kMaxFileBytes) + " bytes in all");
  }
  for (std::size_t i = 0; i < manifest->artifacts.size(); ++i) {
    for (const std::string& name : manifest->artifacts[i].files) {
      if (manifest->files.count(name) == 0) {
        at.fail("artifacts[" + std::to_string(i) + "].files: " + name + " is not listed in files");
      }
    }
  }
}

void parse_mode(const At& at, bool partial, Manifest* manifest) {
  const std::string mode = partial && !at.has("mode")
                               ? "bottom_up"
                               : at["mode"].choice({"bottom_up", "top_down", "detector"});
  manifest->mode = mode == "bottom_up"  ? Mode::kBottomUp
                   : mode == "top_down" ? Mode::kTopDown
                                        : Mode::kDetector;
  if (at.has("crop") != (mode == "top_down") && (at.has("crop") || !partial)) {
    at.fail("crop must stand in a top_down manifest, and only there");
  }
  if (at.has("crop")) {
    const At crop = at["crop"];
    crop.object({"padding", "fit"});
    manifest->crop = Crop{static_cast<float>(crop["padding"].number(1, 4, "a number of 1..4"))};
    crop["fit"].choice({"letterbox"});
  }
}

void parse_gate(const At& at, Manifest* manifest) {
  at.object({"kind", "value", "limit", "pictures"}, {"keypoints"});
  manifest->gate_kind = at["kind"].choice({"ap", "agreement", "pending"});
  at["value"].number();
  at["limit"].number();
  at["pictures"].integer(0, INT32_MAX, "an integer of 0");
  if (at.has("keypoints")) {
    const At drops = at["keypoints"];
    const std::vector<std::string>& known = manifest->skeleton.keypoints;
    for (const auto& entry : drops.mapping().items()) {
      if (std::find(known.begin(), known.end(), entry.key()) == known.end()) {
        drops.fail(shown(entry.key()) + " is not a keypoint of the skeleton");
      }
      drops[entry.key().c_str()].number(-1, 1, "a number of -1..1");
    }
  }
}

// What the engine does not use is checked all the same: one format, one reader's answer.
void check_provenance(const At& at) {
  if (at.has("accuracy")) {
    const At accuracy = at["accuracy"];
    const std::size_t count = accuracy.items(0, kMaxFigures);
    for (std::size_t i = 0; i < count; ++i) {
      const At item = accuracy.item(i);
      item.object({"data", "metric", "value", "artifact"});
      item["data"].text();
      item["metric"].text();
      item["value"].number();
      item["artifact"].text();
    }
  }
  if (at.has("training")) {
    at["training"].mapping();
  }
  if (at.has("derived_from") && !at["derived_from"].is_null()) {
    const At from = at["derived_from"];
    from.object({"name", "version", "sha256"});
    from["name"].word();
    from["version"].word();
    digest(from["sha256"]);
  }
}

// First of all, so that a bundle of a later posewire is named as one.
int parse_schema(const At& at) {
  at.mapping();
  const std::int64_t schema = at["schema"].integer(1, INT32_MAX, "a positive integer");
  if (schema > kSchema) {
    at["schema"].fail("is " + std::to_string(schema) + ", from a newer posewire; this one reads " +
                      std::to_string(kSchema));
  }
  return static_cast<int>(schema);
}

void check_keys(const At& at, bool partial) {
  if (partial) {
    at.object({"skeleton", "input", "outputs", "decode"},
              {"mode", "schema", "name", "version", "crop", "artifacts", "target", "gate",
               "accuracy", "training", "derived_from", "files"});
  } else {
    at.object({"schema", "name", "version", "mode", "skeleton", "input", "outputs", "decode",
               "artifacts", "target", "gate", "accuracy", "training", "derived_from", "files"},
              {"crop"});
  }
}

}  // namespace

Manifest parse_manifest(const std::string& text, const std::string& where, bool partial) {
  const nlohmann::json document = parse_json(text, where, Code::kBundle);
  const At at(document, where, Code::kBundle);
  Manifest manifest;
  manifest.schema = partial && at.mapping().count("schema") == 0 ? kSchema : parse_schema(at);
  check_keys(at, partial);
  parse_mode(at, partial, &manifest);
  manifest.name = at.has("name") ? at["name"].word() : "";
  manifest.version = at.has("version") ? at["version"].word() : "";
  if (at["skeleton"].is_null() != (manifest.mode == Mode::kDetector)) {
    at["skeleton"].fail("must be null for a detector, and an object for everything else");
  }
  if (!at["skeleton"].is_null()) {
    manifest.skeleton = parse_skeleton(at["skeleton"]);
  }
  parse_input(at["input"], partial, &manifest);
  parse_outputs(at["outputs"], partial, &manifest);
  manifest.algorithm = at["decode"]["algorithm"].word();
  manifest.decode = at["decode"].mapping();
  if (at.has("artifacts")) {
    parse_artifacts(at["artifacts"], &manifest);
  }
  if (at.has("target") && !at["target"].is_null()) {
    manifest.target = parse_target(at["target"]);
    if (manifest.artifacts.size() != 1) {
      at["artifacts"].fail("a compiled bundle carries exactly one");
    }
  }
  if (at.has("gate") && !at["gate"].is_null()) {
    parse_gate(at["gate"], &manifest);
  }
  check_provenance(at);
  if (at.has("files")) {
    parse_files(at["files"], &manifest);
  }
  return manifest;
}

MapView frame_shape(const Manifest& manifest, const OutputSpec& output, DType dtype,
                    Layout layout) noexcept {
  if (output.length > 0) {
    return dense_map(nullptr, dtype, layout, output.channels, 1, output.length);
  }
  const int stride = std::max(output.stride, 1);  // 0 in one made by hand: its row refuses it
  return dense_map(nullptr, dtype, layout, output.channels,
                   (manifest.input_height + stride - 1) / stride,
                   (manifest.input_width + stride - 1) / stride);
}

}  // namespace posewire
