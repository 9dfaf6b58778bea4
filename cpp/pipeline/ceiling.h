// SPDX-License-Identifier: Apache-2.0
// Inference alone: the ceiling that a pipeline with the same bundle is measured against.
#pragma once

#include <string>
#include <vector>

#include "core/image.h"
#include "infer/runtime.h"

namespace posewire {

struct Ceiling {
  double fps = 0.0;      // pictures per second, all requests kept busy
  double seconds = 0.0;  // measured, after the warm-up
  long pictures = 0;
  int requests = 0, max_batch = 0;
};

// Runs the compiled bundle's network for about `seconds` and nothing else: the pictures are
// letterboxed beforehand and only copied into the slots, in turn (without pictures: noise).
// Throws Error.
Ceiling measure_ceiling(const std::string& directory, const RuntimeOptions& options, double seconds,
                        const std::vector<Image>& pictures);

}  // namespace posewire
