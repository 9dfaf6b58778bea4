// SPDX-License-Identifier: Apache-2.0
// A runtime runs one compiled network. It never decodes and knows no pose (no model x runtime
// matrix). Requests are slots 0 … requests()-1, each with its own input and output memory. One
// thread per slot at a time: fill input(), start(), wait(), read outputs(); different slots may run
// at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/error.h"
#include "core/tensor.h"

namespace posewire {

class DeviceLetterbox;  // infer/device.h
class DevicePeaks;

// Peaks that the device finds in one output; output -1: none.
struct PeakQuery {
  int output = -1;  // in manifest order, float, NCHW
  float threshold = 0.0F;
  int max_peaks = 0;  // of a channel
};

struct RuntimeOptions {
  int requests = 0;   // in flight; 0: the runtime's choice for this machine
  int threads = 0;    // of the runtime's own pool; 0: its choice
  int max_batch = 0;  // 0: the bundle's
  PeakQuery peaks = {};
};

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual int requests() const noexcept = 0;
  virtual int max_batch() const noexcept = 0;

  // The slot's input, uint8 [max_batch, height, width, 3] in the manifest's order of channels. A
  // runtime whose network takes something else converts it.
  // Valid as long as the runtime; write only while the slot is idle.
  virtual void* input(int request) noexcept = 0;

  // Begins inference of the first `batch` pictures of the slot. Returns at once.
  virtual Status start(int request, int batch) = 0;
  // Blocks until the slot is done. Exactly once per successful start().
  virtual Status wait(int request) = 0;

  // Picture `index` of the slot's last batch, one view per manifest output, in manifest order.
  // Valid until the slot's next start(). `views` is reused by the caller.
  virtual void outputs(int request, int index, std::vector<MapView>* views) const = 0;

  // What only some can do; null where this one cannot. Valid as long as the runtime.
  virtual DeviceLetterbox* device_letterbox() noexcept { return nullptr; }
  virtual const DevicePeaks* device_peaks() const noexcept { return nullptr; }
};

// Opens the bundle's artifact with the runtime that its target names. Throws Error: kBundle for a
// bundle this runtime refuses, kUnavailable where runtime, version or device are missing.
std::unique_ptr<Runtime> open_runtime(const Bundle& bundle, const RuntimeOptions& options);

struct RuntimeInfo {
  std::string name, version;
  bool available = false;
  std::string why;  // one line when not available: what is missing
};
std::vector<RuntimeInfo> runtimes();  // every row of the table

}  // namespace posewire
