// SPDX-License-Identifier: Apache-2.0
// The files of posewire._core, one function each. _core.pyi describes what Python sees.
#pragma once

#include <nanobind/nanobind.h>

namespace posewire {

void bind_decode(nanobind::module_& module);
void bind_infer(nanobind::module_& module);
void bind_io(nanobind::module_& module);
void bind_pipeline(nanobind::module_& module);

}  // namespace posewire
