// SPDX-License-Identifier: Apache-2.0
#include "infer/tensorrt/library.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <mutex>
#include <sstream>

#include "core/error.h"

#define POSEWIRE_TEXT_OF(value) #value
#define POSEWIRE_TEXT(value) POSEWIRE_TEXT_OF(value)

namespace posewire {
namespace {

// An object that was compiled with our declarations must never call the real library: its tables of
// functions are laid out otherwise. The tests name their fake's file; there is no other.
#if defined(POSEWIRE_DECLARED_TENSORRT) && !defined(POSEWIRE_TENSORRT_LIBRARY)
#error "posewire's own declarations of TensorRT serve its tests alone"
#endif

#if defined(POSEWIRE_TENSORRT_LIBRARY)
constexpr const char* kLibrary = POSEWIRE_TENSORRT_LIBRARY;
#elif defined(TRT_MAJOR_RTX)
constexpr const char* kLibrary = "libtensorrt_rtx.so." POSEWIRE_TEXT(TRT_MAJOR_RTX);
#elif defined(TRT_MAJOR_ENTERPRISE)
constexpr const char* kLibrary = "libnvinfer.so." POSEWIRE_TEXT(TRT_MAJOR_ENTERPRISE);
#else
constexpr const char* kLibrary = "libnvinfer.so." POSEWIRE_TEXT(NV_TENSORRT_MAJOR);
#endif

struct Version {
  int major, minor, patch;
};

// 8.x and 9.x counted in thousands, all later ones and RTX in ten thousands.
Version version_of(int number) {
  return number >= 10000 ? Version{number / 10000, number / 100 % 100, number % 100}
                         : Version{number / 1000, number / 100 % 10, number % 100};
}

std::string text_of(const Version& version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
         std::to_string(version.patch);
}

constexpr Version kHeader{NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH};

// Tables of functions grow at their end within a major version, so that a newer library serves an
// older plug-in. RTX moved some at 1.5: 1.4's headers crash with 1.7's library, 1.5's do not.
bool goes_with(const Version& library) {
  if (library.major != kHeader.major || library.minor < kHeader.minor) {
    return false;
  }
#ifdef TRT_MAJOR_RTX
  return kHeader.minor >= 5 || library.minor == kHeader.minor;
#else
  return true;
#endif
}

template <typename Function>
Function symbol(void* library, const char* name) {
  void* const found = ::dlsym(library, name);
  if (found == nullptr) {
    throw Error(Code::kUnavailable, kLibrary, std::string("has no ") + name);
  }
  return reinterpret_cast<Function>(found);
}

}  // namespace

struct TensorRtLog::State {
  std::mutex mutex;
  std::string last;
};

TensorRtLog::TensorRtLog() : state_(std::make_unique<State>()) {}
TensorRtLog::~TensorRtLog() = default;

void TensorRtLog::log(Severity severity, const char* message) noexcept {
  if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) {
    return;
  }
  try {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->last = one_line(message);
  } catch (...) {  // out of memory: nobody could be told
  }
}

std::string TensorRtLog::last() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->last;
}

TensorRtLibrary load_tensorrt() {
  // Never closed: CUDA's libraries do not survive it.
  void* const handle = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const text = ::dlerror();
    std::string why = one_line(text == nullptr ? "" : text);
    const std::string prefix = std::string(kLibrary) + ": ";
    if (why.rfind(prefix, 0) == 0) {  // the loader names it first where it is the one missing
      why.erase(0, prefix.size());
    }
    throw Error(Code::kUnavailable, kLibrary,
                std::string("the library of ") + kRuntimeTitle + " does not load: " + why);
  }
  const auto number = symbol<std::int32_t (*)() noexcept>(handle, "getInferLibVersion")();
  const Version version = version_of(number);
  if (!goes_with(version)) {
    throw Error(Code::kUnavailable, kLibrary,
                "is " + text_of(version) + ", the plug-in was built with " + text_of(kHeader) +
                    ": build it again with this version's headers");
  }
  TensorRtLibrary library;
  library.create_runtime =
      symbol<decltype(library.create_runtime)>(handle, "createInferRuntime_INTERNAL");
  library.version = text_of(version);
  return library;
}

std::string device_name() {
  int driver = 0, runtime = 0, devices = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    throw Error(Code::kUnavailable, "CUDA", "no NVIDIA driver here (libcuda.so.1 is missing)");
  }
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    cudaGetLastError();
    const std::string why = error == cudaSuccess ? "none" : cudaGetErrorString(error);
    throw Error(Code::kUnavailable, "CUDA",
                "no usable device: " + why + " (the driver is for CUDA " + text(driver) +
                    ", the plug-in for " + text(runtime) + ")");
  }
  cudaDeviceProp properties{};
  const cudaError_t asked = cudaGetDeviceProperties(&properties, 0);
  if (asked != cudaSuccess) {
    throw Error(Code::kUnavailable, "CUDA",
                std::string("cudaGetDeviceProperties: ") + cudaGetErrorString(asked));
  }
  return properties.name;
}

const char* built_with() {
  static const std::string text = [] {
    std::string built = std::string(kRuntimeTitle) + " " + text_of(kHeader);
#ifdef CUDART_VERSION
    built += ", CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
             std::to_string(CUDART_VERSION % 1000 / 10);
#endif
#ifdef POSEWIRE_DECLARED_TENSORRT
    built += ", as posewire's tests declare it";
#endif
    return built;
  }();
  return text.c_str();
}

std::string one_line(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) {
    line += (line.empty() ? "" : " ") + word;
  }
  return line;
}

}  // namespace posewire
