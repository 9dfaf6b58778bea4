// SPDX-License-Identifier: Apache-2.0
// posewire._core: the engine from Python.
#include "app/python.h"

#include <nanobind/stl/string.h>

#include <exception>

#include "core/error.h"
#include "infer/preprocess.h"

namespace nb = nanobind;

namespace posewire {
namespace {

// EngineError is a PosewireError with `where`; its code is C++'s, an exit code.
void translate(const std::exception_ptr& thrown, void* type) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    nb::object error_type = nb::borrow<nb::object>(static_cast<PyObject*>(type));
    nb::object instance = error_type(error.what(), static_cast<int>(error.code()));
    instance.attr("where") = error.where();
    PyErr_SetObject(error_type.ptr(), instance.ptr());
  }
}

}  // namespace
}  // namespace posewire

NB_MODULE(_core, module) {
  module.doc() = "The engine: preprocessing, decoders, networks and the whole pipeline.";
  const nb::object parent = nb::module_::import_("posewire.errors").attr("PosewireError");
  nb::object engine_error = nb::steal<nb::object>(
      PyErr_NewExceptionWithDoc("posewire._core.EngineError",
                                "What the engine refuses: .code is the exit code, .where the file, "
                                "key, camera or operator.",
                                parent.ptr(), nullptr));
  if (!engine_error.is_valid()) {
    nb::raise_python_error();
  }
  module.attr("EngineError") = engine_error;
  nb::register_exception_translator(posewire::translate, engine_error.release().ptr());

  posewire::use_no_opencv_threads();
  module.def("version", [] { return POSEWIRE_VERSION; });
  posewire::bind_decode(module);
  posewire::bind_infer(module);
  posewire::bind_io(module);
  posewire::bind_pipeline(module);
}
