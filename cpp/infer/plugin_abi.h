// SPDX-License-Identifier: Apache-2.0
// Between the engine and a runtime that is found when it runs (plugin.cpp): a shared library that
// exports posewire_runtime_plugin(). Plain structures and functions only: nothing is thrown across,
// no type of C++'s library crosses, so that both may come from different compilers. Any change of
// what stands here is a new kPluginAbi.
//
// Functions that return std::int32_t return a Code (core/error.h); unless it is kOk they have
// written one line to `why`. Threads as in infer/runtime.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace posewire {

constexpr std::uint32_t kPluginAbi = 1;

struct PluginText {
  char text[1024];  // one line, zero-terminated
};

// What stands here now. Filled also where something is missing: then `why` says what.
struct PluginProbe {
  char version[64];   // of the runtime's library, "10.3.0"
  char device[256];   // the device's name
  std::int32_t code;  // kOk: it can run
  PluginText why;
};

struct PluginOutput {
  const char* name;
  std::int32_t channels, height, width;
  std::int32_t sequence;  // its tensor has no height
  std::int32_t nhwc;
  std::int32_t half;  // is delivered as float16 instead of float32
};

// The outputs' peaks that the device finds (infer/device.h); output -1: none.
struct PluginPeakQuery {
  std::int32_t output;
  float threshold;
  std::int32_t max_peaks;
};

struct PluginNetwork {
  const char* plan;  // path
  const char* input_name;
  std::int32_t width, height;
  std::int32_t input_float;  // float32 (value - mean) / std; else uint8
  std::int32_t input_nchw;
  std::int32_t rgb;
  float mean[3], std[3];
  const PluginOutput* outputs;
  std::int32_t output_count;
  std::int32_t max_batch, requests;  // requests 0: the plug-in's choice
  PluginPeakQuery peaks;
};

// A frame in its own size, and where it goes in the network's input.
struct PluginFrame {
  const std::uint8_t* planes[2];
  std::size_t stride_bytes[2];
  std::int32_t nv12;  // else BGR
  std::int32_t on_device;
  std::int32_t frame_width, frame_height;
  std::int32_t left, top, width, height;
};

// A network that was opened.
struct PluginState;

struct Plugin {
  std::uint32_t abi;          // kPluginAbi
  const char* name;           // target.runtime
  const char* built_with;     // "TensorRT 10.3.0, CUDA 12.6"
  std::int32_t declarations;  // built with our own declarations of the vendor's API: tests only

  void (*probe)(PluginProbe* probe);
  std::int32_t (*open)(const PluginNetwork* network, PluginState** state, PluginText* why);
  void (*close)(PluginState* state);

  std::int32_t (*requests)(const PluginState* state);
  // uint8 NHWC [max_batch, height, width, 3], whatever the network takes.
  void* (*input)(PluginState* state, std::int32_t request);
  std::int32_t (*start)(PluginState* state, std::int32_t request, std::int32_t batch,
                        PluginText* why);
  std::int32_t (*wait)(PluginState* state, std::int32_t request, PluginText* why);
  // Of the last batch's first picture; null: the device kept it and found its peaks.
  const void* (*output)(const PluginState* state, std::int32_t request, std::int32_t output);

  // The device prepares pictures; 0: it cannot, and letterbox() must not be called.
  std::int32_t (*can_letterbox)(const PluginState* state);
  std::int32_t (*letterbox)(PluginState* state, std::int32_t request, std::int32_t index,
                            const PluginFrame* frame, PluginText* why);
  // Of picture `index`: counts[channels], and peaks[channels][max_peaks] as DevicePeak of
  // infer/device.h. Only where PluginNetwork::peaks asked for them.
  void (*peaks)(const PluginState* state, std::int32_t request, std::int32_t index,
                const std::int32_t** counts, const void** peaks);

  // For tests and reports: how often a captured graph ran, and how often work was put on the stream
  // without one.
  void (*launches)(const PluginState* state, std::int64_t* graphs, std::int64_t* plain);
};

using PluginEntry = const Plugin* (*)();
constexpr const char* kPluginEntry = "posewire_runtime_plugin";

}  // namespace posewire
