// SPDX-License-Identifier: Apache-2.0
#include "infer/runtime.h"

#include "infer/rows.h"

namespace posewire {
namespace {

struct Row {
  const char* name;  // target.runtime, and the format of its artifacts
  std::unique_ptr<Runtime> (*open)(const Bundle& bundle, const RuntimeOptions& options);
  RuntimeInfo (*info)();
};

#ifdef POSEWIRE_OPENVINO
constexpr auto* kOpenOpenVino = open_openvino;
constexpr auto* kOpenVinoInfo = openvino_info;
#else
RuntimeInfo without_openvino() {
  return {"openvino", "", false,
          "this engine was built without OpenVINO: configure with -DPOSEWIRE_OPENVINO=ON"};
}
std::unique_ptr<Runtime> refuse_openvino(const Bundle&, const RuntimeOptions&) {
  throw Error(Code::kUnavailable, "openvino", without_openvino().why);
}
constexpr auto* kOpenOpenVino = refuse_openvino;
constexpr auto* kOpenVinoInfo = without_openvino;
#endif

constexpr Row kRows[] = {
    {"fake", open_fake, fake_info},
    {"openvino", kOpenOpenVino, kOpenVinoInfo},
    {"tflite", open_tflite, tflite_info},
    {"tensorrt", open_tensorrt, tensorrt_info},
    {"tensorrt_rtx", open_tensorrt_rtx, tensorrt_rtx_info},
};

std::string known() {
  std::string names;
  for (const Row& row : kRows) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

}  // namespace

const ArtifactOutput& artifact_output(const Bundle& bundle, const std::string& name) {
  for (const ArtifactOutput& output : bundle.manifest.artifacts.at(0).outputs) {
    if (output.name == name) {
      return output;
    }
  }
  throw Error(Code::kBundle, bundle.directory + "/manifest.json",
              "artifacts[0].outputs: " + name + " is missing");
}

int batch_of(const Bundle& bundle, const RuntimeOptions& options) {
  const int compiled = bundle.manifest.target->max_batch;
  if (options.max_batch < 0 || options.max_batch > compiled) {
    throw Error(Code::kConfig, "max_batch",
                "is " + std::to_string(options.max_batch) + ", but " + bundle.directory +
                    " was compiled for at most " + std::to_string(compiled));
  }
  return options.max_batch == 0 ? compiled : options.max_batch;
}

void check_version(const Bundle& bundle, const std::string& version) {
  const Target& target = *bundle.manifest.target;
  if (target.runtime_version != version) {
    throw Error(Code::kBundle, bundle.directory,
                "was compiled for " + target.runtime + " " + target.runtime_version + ", this is " +
                    version + ": compile it again (posewire compile)");
  }
}

std::unique_ptr<Runtime> open_runtime(const Bundle& bundle, const RuntimeOptions& options) {
  const Manifest& manifest = bundle.manifest;
  if (!manifest.target) {
    throw Error(Code::kBundle, bundle.directory,
                "is a portable bundle: compile it for this machine first (posewire compile)");
  }
  if (options.requests < 0 || options.threads < 0) {
    throw Error(Code::kConfig, options.requests < 0 ? "requests" : "threads",
                "must not be negative");
  }
  for (const Row& row : kRows) {
    if (manifest.target->runtime != row.name) {
      continue;
    }
    if (manifest.artifacts.size() != 1 || manifest.artifacts[0].format != row.name) {
      throw Error(Code::kBundle, bundle.directory + "/manifest.json",
                  "artifacts: a bundle compiled for " + std::string(row.name) +
                      " has exactly one, of format \"" + row.name + "\"");
    }
    return row.open(bundle, options);
  }
  throw Error(Code::kBundle, bundle.directory + "/manifest.json",
              "target.runtime: unknown runtime \"" + manifest.target->runtime +
                  "\" (known: " + known() + ")");
}

std::vector<RuntimeInfo> runtimes() {
  std::vector<RuntimeInfo> infos;
  for (const Row& row : kRows) {
    infos.push_back(row.info());
  }
  return infos;
}

}  // namespace posewire
