// SPDX-License-Identifier: Apache-2.0
#include "decode/kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define POSEWIRE_X86_VARIANTS 1
#include <immintrin.h>
#else
#define POSEWIRE_X86_VARIANTS 0
#endif

namespace posewire {
namespace {

// Of every set of eight lanes: their numbers, in order, and how many they are.
struct Lanes {
  alignas(16) std::uint16_t numbers[256][8];
  std::uint8_t count[256];
};
constexpr Lanes every_set() {
  Lanes lanes{};
  for (unsigned set = 0; set < 256; ++set) {
    for (unsigned lane = 0; lane < 8; ++lane) {
      if ((set >> lane & 1U) != 0) {
        lanes.numbers[set][lanes.count[set]++] = static_cast<std::uint16_t>(lane);
      }
    }
  }
  return lanes;
}
constexpr Lanes kLanesOf = every_set();

#define POSEWIRE_VECTOR_BYTES 16
namespace portable {
#if POSEWIRE_X86_VARIANTS
#define POSEWIRE_VECTORS 1
#else
#define POSEWIRE_VECTORS 0
#endif
#include "decode/kernels.inc"
#undef POSEWIRE_VECTORS
}  // namespace portable

#if POSEWIRE_X86_VARIANTS
#define POSEWIRE_VECTORS 2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#undef POSEWIRE_VECTOR_BYTES
#define POSEWIRE_VECTOR_BYTES 32
namespace avx2 {
#include "decode/kernels.inc"
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
// The tuning flags allow full vectors, which GCC's generic tuning avoids.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,tune=skylake-avx512,prefer-vector-width=512")
#endif
#undef POSEWIRE_VECTOR_BYTES
#define POSEWIRE_VECTOR_BYTES 64
namespace avx512 {
#include "decode/kernels.inc"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

constexpr Kernels kPortable = portable::table("portable");
#if POSEWIRE_X86_VARIANTS
constexpr Kernels kAvx2 = avx2::table("avx2");
constexpr Kernels kAvx512 = avx512::table("avx512");
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> available;
#if POSEWIRE_X86_VARIANTS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    available.push_back(&kAvx512);
  }
  if (__builtin_cpu_supports("avx2")) {
    available.push_back(&kAvx2);
  }
#endif
  available.push_back(&kPortable);
  return available;
}

const Kernels& best_kernels() { return *available_kernels().front(); }

}  // namespace posewire
