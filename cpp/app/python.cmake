# SPDX-License-Identifier: Apache-2.0
# posewire._core. Its run path leads to the libraries of the openvino and ai_edge_litert wheels beside the installed
# package.
execute_process(
  COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
  OUTPUT_VARIABLE nanobind_ROOT
  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
find_package(nanobind CONFIG REQUIRED)

nanobind_add_module(_core NB_STATIC NOMINSIZE NB_SUPPRESS_WARNINGS python.cpp python_decode.cpp python_infer.cpp
                    python_io.cpp python_pipeline.cpp)
target_link_libraries(_core PRIVATE posewire_options posewire_estimator posewire_pipeline)
target_compile_definitions(_core PRIVATE POSEWIRE_VERSION="${PROJECT_VERSION}")
set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN/../openvino/libs;$ORIGIN/../ai_edge_litert")
install(TARGETS _core LIBRARY DESTINATION . COMPONENT core)
