# SPDX-License-Identifier: Apache-2.0
# OpenCV by single modules: the distributions ship OpenCVConfig.cmake only with the package of all modules,
# which is three times the size. Defines OpenCVModules::<module> for each component found.
find_path(OpenCVModules_INCLUDE_DIR opencv2/core.hpp PATH_SUFFIXES opencv4)
foreach(module ${OpenCVModules_FIND_COMPONENTS})
  find_library(OpenCVModules_${module}_LIBRARY opencv_${module})
  find_path(OpenCVModules_${module}_HEADER opencv2/${module}.hpp HINTS ${OpenCVModules_INCLUDE_DIR}
            PATH_SUFFIXES opencv4)
  if(OpenCVModules_${module}_LIBRARY AND OpenCVModules_${module}_HEADER)
    set(OpenCVModules_${module}_FOUND TRUE)
    if(NOT TARGET OpenCVModules::${module})
      add_library(OpenCVModules::${module} UNKNOWN IMPORTED)
      set_target_properties(
        OpenCVModules::${module}
        PROPERTIES IMPORTED_LOCATION ${OpenCVModules_${module}_LIBRARY}
                   INTERFACE_INCLUDE_DIRECTORIES ${OpenCVModules_INCLUDE_DIR})
    endif()
  endif()
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVModules REQUIRED_VARS OpenCVModules_INCLUDE_DIR
                                  HANDLE_COMPONENTS)
