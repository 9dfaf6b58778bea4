// SPDX-License-Identifier: Apache-2.0
#include "infer/plugin.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>

#include "infer/device.h"
#include "infer/plugin_abi.h"
#include "infer/rows.h"

namespace posewire {
namespace {

Code code_of(std::int32_t code) { return static_cast<Code>(code); }

Status status_of(std::int32_t code, const PluginText& why) {
  return code == 0 ? Status{} : Status{code_of(code), why.text};
}

// Where this code was loaded from: the engine's program or the Python module.
std::string own_folder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 ||
      info.dli_fname == nullptr) {
    return "";
  }
  std::string path = info.dli_fname;
  if (path.find('/') == std::string::npos) {  // a program that was found in PATH
    char link[4096];
    const ssize_t length = ::readlink("/proc/self/exe", link, sizeof(link));
    path = length > 0 ? std::string(link, static_cast<std::size_t>(length)) : "";
  }
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

[[noreturn]] void missing(const PluginPlace& place) {
  std::string tried;
  for (const std::string& file : place.files) {
    tried += (tried.empty() ? "" : ", ") + file;
  }
  throw Error(
      Code::kUnavailable, place.runtime,
      "its plug-in was not found (" + tried + "): build it on this device, docs/tensorrt.md");
}

// A file that is there must load; only one that is not there sends us on to the next.
void* load(const PluginPlace& place) {
  for (const std::string& file : place.files) {
    const bool is_path = file.find('/') != std::string::npos;
    if (is_path && ::access(file.c_str(), F_OK) != 0) {
      continue;
    }
    // Never closed: drivers leave threads behind.
    void* const handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) {
      return handle;
    }
    const char* const why = ::dlerror();
    const std::string text = why == nullptr ? "" : why;
    // The loader names what it did not find: the file itself, or a library that it needs.
    if (is_path || text.rfind(file, 0) != 0) {
      throw Error(Code::kUnavailable, place.runtime, "its plug-in does not load: " + text);
    }
  }
  missing(place);
}

const Plugin& plugin_of(const PluginPlace& place) {
  void* const entry = ::dlsym(load(place), kPluginEntry);
  if (entry == nullptr) {
    throw Error(Code::kUnavailable, place.runtime,
                std::string("its plug-in has no ") + kPluginEntry + ": it is none of posewire's");
  }
  const Plugin* const plugin = reinterpret_cast<PluginEntry>(entry)();
  if (plugin->abi != kPluginAbi) {
    throw Error(Code::kUnavailable, place.runtime,
                "its plug-in speaks version " + std::to_string(plugin->abi) +
                    " of the interface, this engine version " + std::to_string(kPluginAbi) +
                    ": build both from one source");
  }
  if (plugin->name != place.runtime) {
    throw Error(Code::kUnavailable, place.runtime,
                std::string("its plug-in is one for ") + plugin->name);
  }
  if (plugin->declarations != 0 && !place.declarations) {
    throw Error(Code::kUnavailable, place.runtime,
                "its plug-in was built without the vendor's headers, for posewire's tests: build "
                "it on this device, docs/tensorrt.md");
  }
  return *plugin;
}

// A version may have a build number: "8.5.2.2" names what calls itself 8.5.2.
void check_plugin_version(const Bundle& bundle, const std::string& version) {
  const std::string& wanted = bundle.manifest.target->runtime_version;
  if (wanted.rfind(version + ".", 0) != 0) {
    check_version(bundle, version);
  }
}

void check_artifact(const Artifact& artifact, const std::string& where) {
  if (artifact.files.size() != 1) {
    throw Error(Code::kBundle, where + ".files", "must be the plan alone");
  }
  const bool bytes =
      artifact.input_dtype == DType::kUint8 && artifact.input_layout == Layout::kNHWC;
  if (!bytes && artifact.input_dtype != DType::kFloat32) {
    throw Error(Code::kBundle, where + ".input", "must be uint8 NHWC or float32");
  }
}

// The manifest's network in the interface's words; keeps what those point at.
class NetworkDescription {
 public:
  NetworkDescription(const Bundle& bundle, const RuntimeOptions& options) {
    const Manifest& manifest = bundle.manifest;
    const Artifact& artifact = manifest.artifacts[0];
    plan_ = bundle.path(artifact.files[0]);
    for (const OutputSpec& output : manifest.outputs) {
      add_output(bundle, output);
    }
    network.plan = plan_.c_str();
    network.input_name = manifest.input_name.c_str();
    network.width = manifest.input_width;
    network.height = manifest.input_height;
    network.input_float = artifact.input_dtype == DType::kFloat32 ? 1 : 0;
    network.input_nchw = artifact.input_layout == Layout::kNCHW ? 1 : 0;
    network.rgb = manifest.input_rgb ? 1 : 0;
    for (std::size_t c = 0; c < 3; ++c) {
      network.mean[c] = artifact.mean.empty() ? 0.0F : artifact.mean[c];
      network.std[c] = artifact.std.empty() ? 1.0F : artifact.std[c];
    }
    network.outputs = outputs_.data();
    network.output_count = static_cast<std::int32_t>(outputs_.size());
    network.max_batch = batch_of(bundle, options);
    network.requests = options.requests;
    take_peaks(options.peaks);
  }

  PluginNetwork network{};
  std::vector<MapView> shapes;  // of one picture's outputs, without data

 private:
  void add_output(const Bundle& bundle, const OutputSpec& output) {
    const ArtifactOutput& artifact = artifact_output(bundle, output.name);
    if (artifact.dtype != DType::kFloat32 && artifact.dtype != DType::kFloat16) {
      throw Error(Code::kBundle, bundle.directory + "/manifest.json: artifacts[0].outputs",
                  output.name + " must be float32 or float16");
    }
    const MapView shape = frame_shape(bundle.manifest, output, artifact.dtype, artifact.layout);
    shapes.push_back(shape);
    outputs_.push_back({output.name.c_str(), shape.channels, shape.height, shape.width,
                        output.length > 0 ? 1 : 0, artifact.layout == Layout::kNHWC ? 1 : 0,
                        artifact.dtype == DType::kFloat16 ? 1 : 0});
  }

  void take_peaks(const PeakQuery& query) {
    network.peaks = {-1, 0.0F, 0};
    if (query.output < 0) {
      return;
    }
    const auto index = static_cast<std::size_t>(query.output);
    if (index >= outputs_.size() || outputs_[index].nhwc != 0 || query.max_peaks < 1) {
      throw Error(Code::kConfig, "peaks", "need an NCHW output and a positive max_peaks");
    }
    network.peaks = {query.output, query.threshold, query.max_peaks};
  }

  std::string plan_;
  std::vector<PluginOutput> outputs_;
};

class PluginRuntime final : public Runtime, private DeviceLetterbox, private DevicePeaks {
 public:
  PluginRuntime(const Plugin& plugin, const NetworkDescription& description)
      : plugin_(plugin), shapes_(description.shapes), query_(description.network.peaks) {
    PluginText why{};
    const std::int32_t code = plugin.open(&description.network, &state_, &why);
    if (code != 0) {
      throw Error(code_of(code), "", why.text);
    }
    max_batch_ = description.network.max_batch;
    requests_ = plugin.requests(state_);
  }
  ~PluginRuntime() override { plugin_.close(state_); }
  PluginRuntime(const PluginRuntime&) = delete;
  PluginRuntime& operator=(const PluginRuntime&) = delete;

  int requests() const noexcept override { return requests_; }
  int max_batch() const noexcept override { return max_batch_; }
  void* input(int request) noexcept override { return plugin_.input(state_, request); }

  Status start(int request, int batch) override {
    PluginText why;
    return status_of(plugin_.start(state_, request, batch, &why), why);
  }

  Status wait(int request) override {
    PluginText why;
    return status_of(plugin_.wait(state_, request, &why), why);
  }

  void outputs(int request, int index, std::vector<MapView>* views) const override {
    views->clear();
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      const MapView& shape = shapes_[i];
      const auto* first = static_cast<const std::uint8_t*>(
          plugin_.output(state_, request, static_cast<std::int32_t>(i)));
      views->push_back(shape);
      if (first != nullptr) {
        const std::size_t elements = static_cast<std::size_t>(shape.channels) *
                                     static_cast<std::size_t>(shape.height) *
                                     static_cast<std::size_t>(shape.width);
        views->back().data =
            first + static_cast<std::size_t>(index) * elements * bytes_of(shape.dtype);
      }
    }
  }

  DeviceLetterbox* device_letterbox() noexcept override {
    return plugin_.can_letterbox(state_) != 0 ? this : nullptr;
  }
  const DevicePeaks* device_peaks() const noexcept override {
    return query_.output >= 0 ? this : nullptr;
  }

  Launches launches() const {
    Launches launches;
    plugin_.launches(state_, &launches.graphs, &launches.plain);
    return launches;
  }

 private:
  Status letterbox(int request, int index, const DeviceFrame& frame,
                   const Letterbox& geometry) override {
    PluginFrame to{};
    for (int plane = 0; plane < 2; ++plane) {
      to.planes[plane] = frame.planes[plane];
      to.stride_bytes[plane] = frame.stride_bytes[plane];
    }
    to.nv12 = frame.pixels == DeviceFrame::Pixels::kNv12 ? 1 : 0;
    to.on_device = frame.on_device ? 1 : 0;
    to.frame_width = frame.width;
    to.frame_height = frame.height;
    to.left = geometry.left;
    to.top = geometry.top;
    to.width = geometry.width;
    to.height = geometry.height;
    PluginText why;
    return status_of(plugin_.letterbox(state_, request, index, &to, &why), why);
  }

  DevicePeakView peaks(int request, int index) const override {
    DevicePeakView view;
    const void* list = nullptr;
    plugin_.peaks(state_, request, index, &view.counts, &list);
    view.peaks = static_cast<const DevicePeak*>(list);
    return view;
  }

  const Plugin& plugin_;
  const std::vector<MapView> shapes_;
  const PluginPeakQuery query_;
  PluginState* state_ = nullptr;
  int max_batch_ = 0, requests_ = 0;
};

}  // namespace

PluginPlace plugin_place(const std::string& runtime) {
  const std::string file = "libposewire_" + runtime + ".so";
  const std::string folder = own_folder();
  PluginPlace place{runtime, {}, false};
  if (!folder.empty()) {
    place.files = {folder + "/" + file, folder + "/lib/" + file, folder + "/../lib/" + file};
  }
  place.files.push_back(file);
  return place;
}

std::unique_ptr<Runtime> open_plugin(const PluginPlace& place, const Bundle& bundle,
                                     const RuntimeOptions& options) {
  check_artifact(bundle.manifest.artifacts[0], bundle.directory + "/manifest.json: artifacts[0]");
  const Plugin& plugin = plugin_of(place);
  PluginProbe probe{};
  plugin.probe(&probe);
  if (probe.version[0] != '\0') {
    check_plugin_version(bundle, probe.version);
  }
  if (probe.code != 0) {
    throw Error(code_of(probe.code), place.runtime, probe.why.text);
  }
  const std::string& device = bundle.manifest.target->device;
  if (!device.empty() && device != probe.device) {
    throw Error(Code::kBundle, bundle.directory,
                "was compiled for \"" + device + "\", this is \"" + probe.device +
                    "\": compile it again (posewire compile)");
  }
  return std::make_unique<PluginRuntime>(plugin, NetworkDescription(bundle, options));
}

RuntimeInfo plugin_info(const PluginPlace& place) {
  RuntimeInfo info{place.runtime, "", false, ""};
  try {
    PluginProbe probe{};
    plugin_of(place).probe(&probe);
    info.version = probe.version;
    info.available = probe.code == 0;
    info.why = probe.why.text;
  } catch (const Error& error) {
    info.why = error.what();
  }
  return info;
}

Launches launches_of(const Runtime& runtime) {
  return static_cast<const PluginRuntime&>(runtime).launches();
}

std::unique_ptr<Runtime> open_tensorrt(const Bundle& bundle, const RuntimeOptions& options) {
  return open_plugin(plugin_place("tensorrt"), bundle, options);
}
std::unique_ptr<Runtime> open_tensorrt_rtx(const Bundle& bundle, const RuntimeOptions& options) {
  return open_plugin(plugin_place("tensorrt_rtx"), bundle, options);
}
RuntimeInfo tensorrt_info() { return plugin_info(plugin_place("tensorrt")); }
RuntimeInfo tensorrt_rtx_info() { return plugin_info(plugin_place("tensorrt_rtx")); }

}  // namespace posewire
