// SPDX-License-Identifier: Apache-2.0
// Runtimes that are found when the engine runs: one engine build works with and without them, and
// says what is missing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "infer/runtime.h"

namespace posewire {

struct PluginPlace {
  std::string runtime;             // "tensorrt"
  std::vector<std::string> files;  // tried in order; one without '/' goes the loader's way
  // Also take a plug-in that was compiled with our own declarations of the vendor's API. Such a one
  // can only run the tests' fake of the vendor's library.
  bool declarations = false;
};

// libposewire_<runtime>.so beside this code, in lib/ there, in ../lib/, then the loader's path.
PluginPlace plugin_place(const std::string& runtime);

// As open_runtime() and runtimes() for one row. `bundle` is compiled, with one artifact of the
// row's own format.
std::unique_ptr<Runtime> open_plugin(const PluginPlace& place, const Bundle& bundle,
                                     const RuntimeOptions& options);
RuntimeInfo plugin_info(const PluginPlace& place);

// Batches that ran as a captured graph, and batches that were put on the stream piece by piece.
struct Launches {
  std::int64_t graphs = 0, plain = 0;
};
Launches launches_of(const Runtime& runtime);  // of one that open_plugin made

}  // namespace posewire
