# SPDX-License-Identifier: Apache-2.0
# The TensorRT plug-in as CI can have it: with our own declarations of TensorRT and CUDA, and fakes of both on the CPU.
# A plug-in for each mode of the declarations, under the build folder; none is ever installed.
set(POSEWIRE_DECLARED ${PROJECT_SOURCE_DIR}/cpp/infer/tensorrt_api)

add_library(posewire_fake_cuda SHARED tensorrt/fake_cuda.cpp)
target_link_libraries(posewire_fake_cuda PRIVATE posewire_options)
target_include_directories(posewire_fake_cuda PUBLIC .)
# As the vendor's would be: their names are not ours to choose.
target_include_directories(posewire_fake_cuda SYSTEM PUBLIC ${POSEWIRE_DECLARED})
set_target_properties(posewire_fake_cuda PROPERTIES CXX_VISIBILITY_PRESET default)

function(posewire_fake_tensorrt mode) # further: definitions
  set(library posewire_fake_tensorrt_${mode})
  set(plugin posewire_declared_tensorrt_${mode})
  add_library(${library} SHARED tensorrt/fake_tensorrt.cpp)
  set_target_properties(${library} PROPERTIES CXX_VISIBILITY_PRESET default)
  set(infer ${PROJECT_SOURCE_DIR}/cpp/infer)
  add_library(${plugin} MODULE ${infer}/tensorrt.cpp ${infer}/tensorrt/library.cpp ${infer}/tensorrt/plan.cpp
                               ${infer}/tensorrt/slot.cpp tensorrt/fake_kernels.cpp)
  target_compile_definitions(${plugin} PRIVATE POSEWIRE_TENSORRT_LIBRARY="$<TARGET_FILE:${library}>")
  foreach(target ${library} ${plugin})
    target_compile_definitions(${target} PRIVATE ${ARGN})
    target_compile_options(${target} PRIVATE -O0) # built three times, run for a second
    target_link_libraries(${target} PRIVATE posewire_options posewire_fake_cuda ${CMAKE_DL_LIBS})
  endforeach()
  add_dependencies(${plugin} ${library})
endfunction()
posewire_fake_tensorrt(8_5 POSEWIRE_DECLARED_TENSORRT=805)
posewire_fake_tensorrt(11 POSEWIRE_DECLARED_TENSORRT=1101)
posewire_fake_tensorrt(rtx POSEWIRE_DECLARED_TENSORRT=1101 POSEWIRE_TENSORRT_RTX)

# The test finds the plug-ins by their paths.
function(posewire_use_fakes test)
  foreach(mode 8_5 11 rtx)
    add_dependencies(${test} posewire_declared_tensorrt_${mode})
    string(TOUPPER ${mode} name)
    target_compile_definitions(${test}
                               PRIVATE POSEWIRE_PLUGIN_${name}="$<TARGET_FILE:posewire_declared_tensorrt_${mode}>")
  endforeach()
  # library.cpp once more, with a library that no machine has.
  target_compile_definitions(
    ${test} PRIVATE POSEWIRE_DECLARED_TENSORRT=1101 POSEWIRE_TENSORRT_LIBRARY="libposewire_no_such_tensorrt.so.11"
                    POSEWIRE_NO_PLUGIN="$<TARGET_FILE:posewire_fake_cuda>")
endfunction()
