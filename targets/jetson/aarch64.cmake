# SPDX-License-Identifier: Apache-2.0
# Cross-compiling for 64-bit ARM: cmake -DCMAKE_TOOLCHAIN_FILE=targets/jetson/aarch64.cmake -DPOSEWIRE_SYSROOT=DIR …
# DIR is a root file system of the device's distribution with the development packages in it: scripts/arm_proof.sh makes
# one of Debian 12; NVIDIA's sample root file system is another. The program then needs that distribution's libraries.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES POSEWIRE_SYSROOT)
if(NOT IS_DIRECTORY "${POSEWIRE_SYSROOT}")
  message(FATAL_ERROR "POSEWIRE_SYSROOT: '${POSEWIRE_SYSROOT}' is no directory; name a root file system for arm64")
endif()
set(CMAKE_SYSROOT ${POSEWIRE_SYSROOT})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Programs are this machine's; headers, libraries and CMake packages are the device's, and nothing else's.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${POSEWIRE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR}
    ${POSEWIRE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${POSEWIRE_SYSROOT}/usr/share/pkgconfig)

# Libraries of libraries are the device's business: there, alternatives (libblas.so.3) are absolute links, which lead
# nowhere from here.
add_link_options("LINKER:--allow-shlib-undefined")

# What runs programs for the device while building (test discovery) and in ctest; scripts/arm_proof.sh names a chroot.
if(NOT CMAKE_CROSSCOMPILING_EMULATOR)
  find_program(POSEWIRE_QEMU NAMES qemu-aarch64-static qemu-aarch64)
  if(POSEWIRE_QEMU)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${POSEWIRE_QEMU} -L ${POSEWIRE_SYSROOT})
  endif()
endif()
