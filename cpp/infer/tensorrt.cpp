// SPDX-License-Identifier: Apache-2.0
// TensorRT 8.5 to 11 and TensorRT-RTX, as a plug-in of the engine (plugin_abi.h): one source, built
// once for each of the two against its headers. Artifact (format "tensorrt" or "tensorrt_rtx"): one
// serialised engine, ["model.plan"], with the manifest's tensor names; input uint8 NHWC, or float32
// (then this normalises); outputs float32 or float16 stored row by row. Its batch is dynamic, with
// a profile for 1 … max_batch, or fixed; UFF's plans, of TensorRT < 10, have none in their shapes.
//
// target.runtime_version is TensorRT's "major.minor.patch", target.device the name that CUDA gives
// the first device, or "" for plans that go anywhere. float16 outputs of a float32 plan are
// converted on the device.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/error.h"
#include "infer/plugin_abi.h"
#include "infer/tensorrt/library.h"
#include "infer/tensorrt/plan.h"
#include "infer/tensorrt/slot.h"

namespace posewire {

struct PluginState {
  explicit PluginState(const PluginNetwork& network) : plan(network) {}

  Plan plan;
  bool kernels = false;
  std::vector<std::unique_ptr<TensorRtSlot>> slots;
};

namespace {

// One batch on the device, one being filled, one being decoded.
constexpr int kOwnRequests = 3;

void copy_text(const std::string& from, char* to, std::size_t room) {
  const std::size_t length = from.copy(to, room - 1);
  to[length] = '\0';
}

std::int32_t report(const Status& status, PluginText* why) {
  if (!status.ok()) {
    copy_text(one_line(status.what()), why->text, sizeof(why->text));
  }
  return static_cast<std::int32_t>(status.code());
}

TensorRtSlot& slot_of(const PluginState* state, std::int32_t request) {
  return *state->slots[static_cast<std::size_t>(request)];
}

void probe(PluginProbe* probe) {
  *probe = {};
  try {
    copy_text(load_tensorrt().version, probe->version, sizeof(probe->version));
    copy_text(device_name(), probe->device, sizeof(probe->device));
  } catch (const Error& error) {
    probe->code = report({error.code(), error.what()}, &probe->why);
  } catch (const std::exception& error) {
    probe->code = report({Code::kUnavailable, error.what()}, &probe->why);
  }
}

// What only the kernels can do.
void check_kernels(PluginState* state, const PluginNetwork& network) {
  state->kernels = kernels_run_here() == cudaSuccess;
  if (state->kernels) {
    return;
  }
  std::string needs;
  if (network.input_float != 0) {
    needs = "a float32 input";
  }
  if (network.peaks.output >= 0) {
    needs = "peaks";
  }
  for (const PlanOutput& output : state->plan.outputs()) {
    if (output.half_out && !output.half_in_plan) {
      needs = "float16 of the plan's float32 output " + output.name;
    }
  }
  if (!needs.empty()) {
    throw Error(Code::kUnavailable, state->plan.path(),
                needs +
                    " takes the plug-in's CUDA kernels, which it was built without or for "
                    "another device");
  }
}

int requests_for(const Plan& plan, int wanted) {
  if (wanted > 0) {
    return wanted;
  }
#if NV_TENSORRT_MAJOR < 10 && !defined(TRT_MAJOR_RTX)
  // A profile serves one context.
  if (!plan.profiles().empty()) {
    return std::min(kOwnRequests, static_cast<int>(plan.profiles().size()));
  }
#endif
  static_cast<void>(plan);
  return kOwnRequests;
}

std::int32_t open(const PluginNetwork* network, PluginState** state, PluginText* why) {
  try {
    auto opened = std::make_unique<PluginState>(*network);
    check_kernels(opened.get(), *network);
    const int requests = requests_for(opened->plan, network->requests);
    for (int number = 0; number < requests; ++number) {
      opened->slots.push_back(std::make_unique<TensorRtSlot>(&opened->plan, *network, number));
    }
    *state = opened.release();
    return static_cast<std::int32_t>(Code::kOk);
  } catch (const Error& error) {
    return report({error.code(), error.what()}, why);
  } catch (const std::exception& error) {
    return report({Code::kUnavailable, error.what()}, why);
  }
}

void close(PluginState* state) { delete state; }

std::int32_t requests(const PluginState* state) {
  return static_cast<std::int32_t>(state->slots.size());
}

void* input(PluginState* state, std::int32_t request) { return slot_of(state, request).input(); }

std::int32_t start(PluginState* state, std::int32_t request, std::int32_t batch, PluginText* why) {
  return report(slot_of(state, request).start(batch), why);
}

std::int32_t wait(PluginState* state, std::int32_t request, PluginText* why) {
  return report(slot_of(state, request).wait(), why);
}

const void* output(const PluginState* state, std::int32_t request, std::int32_t index) {
  return slot_of(state, request).output(index);
}

std::int32_t can_letterbox(const PluginState* state) { return state->kernels ? 1 : 0; }

std::int32_t letterbox(PluginState* state, std::int32_t request, std::int32_t index,
                       const PluginFrame* frame, PluginText* why) {
  return report(slot_of(state, request).letterbox(index, *frame), why);
}

void peaks(const PluginState* state, std::int32_t request, std::int32_t index,
           const std::int32_t** counts, const void** found) {
  const DevicePeak* list = nullptr;
  slot_of(state, request).peaks(index, counts, &list);
  *found = list;
}

void launches(const PluginState* state, std::int64_t* graphs, std::int64_t* plain) {
  *graphs = *plain = 0;
  for (const auto& slot : state->slots) {
    slot->add_launches(graphs, plain);
  }
}

#ifdef POSEWIRE_DECLARED_TENSORRT
constexpr std::int32_t kDeclarations = 1;
#else
constexpr std::int32_t kDeclarations = 0;
#endif

const Plugin& table() {
  static const Plugin plugin = {kPluginAbi,    kRuntimeName, built_with(), kDeclarations,
                                probe,         open,         close,        requests,
                                input,         start,        wait,         output,
                                can_letterbox, letterbox,    peaks,        launches};
  return plugin;
}

}  // namespace
}  // namespace posewire

extern "C" __attribute__((visibility("default"))) const posewire::Plugin*
posewire_runtime_plugin() {
  return &posewire::table();
}
