// SPDX-License-Identifier: Apache-2.0
// What a runtime's file gives to the table in runtime.cpp, and what they share. Not for others.
#pragma once

#include <memory>
#include <string>

#include "infer/runtime.h"

namespace posewire {

// The row's constructor: `bundle` is compiled, with one artifact of the row's own format.
std::unique_ptr<Runtime> open_fake(const Bundle& bundle, const RuntimeOptions& options);
std::unique_ptr<Runtime> open_openvino(const Bundle& bundle, const RuntimeOptions& options);
std::unique_ptr<Runtime> open_tflite(const Bundle& bundle, const RuntimeOptions& options);
std::unique_ptr<Runtime> open_tensorrt(const Bundle& bundle, const RuntimeOptions& options);
std::unique_ptr<Runtime> open_tensorrt_rtx(const Bundle& bundle, const RuntimeOptions& options);

RuntimeInfo fake_info();
RuntimeInfo openvino_info();
RuntimeInfo tflite_info();
RuntimeInfo tensorrt_info();
RuntimeInfo tensorrt_rtx_info();

// The artifact's entry for a manifest output; manifests may list them in another order.
// Throws Error(kBundle).
const ArtifactOutput& artifact_output(const Bundle& bundle, const std::string& name);

// The batch a runtime opens with: the caller's wish, at most what the bundle was compiled for.
// Throws Error(kConfig).
int batch_of(const Bundle& bundle, const RuntimeOptions& options);

// Throws Error(kBundle) unless the bundle was compiled with this version of its runtime.
void check_version(const Bundle& bundle, const std::string& version);

}  // namespace posewire
