// SPDX-License-Identifier: Apache-2.0
#include "infer/tflite_api.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "bundle/sha256.h"

namespace posewire::litert {
namespace {

constexpr const char* kFile = "libLiteRt.so";
// Present since 2.1.6: older libraries lack an argument of CreateModelFromBuffer.
constexpr const char* kNewEnough = "LiteRtCreateModelFromFd";

std::string path_of(void* handle) {
  link_map* map = nullptr;
  if (::dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) {
    return kFile;
  }
  return map->l_name;
}

// "ai_edge_litert-2.3.0.dist-info" lies beside the package's folder. The library itself tells
// nobody its version.
std::string version_of(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr const char *kStart = "ai_edge_litert", *kEnd = ".dist-info";
  std::vector<std::string> found;
  std::error_code ignored;
  const fs::path package = fs::path(path).parent_path();
  if (package.filename() == kStart) {
    for (const fs::directory_entry& entry :
         fs::directory_iterator(package.parent_path(), ignored)) {
      const std::string name = entry.path().filename().string();
      const std::size_t dash = name.find('-');
      if (name.rfind(kStart, 0) == 0 && dash != std::string::npos &&
          entry.path().extension() == kEnd) {
        found.push_back(name.substr(dash + 1, name.size() - dash - 1 - std::string(kEnd).size()));
      }
    }
  }
  if (!found.empty()) {
    return *std::min_element(found.begin(), found.end());
  }
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return "sha256-" + sha256_of(bytes.data(), bytes.size()).substr(0, 16);
}

}  // namespace

std::shared_ptr<const Library> load(std::string* why) {
  // Never unloaded: XNNPACK's threads and thread-local destructors outlive any owner of ours.
  void* handle = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* error = ::dlerror();
    *why = "LiteRT is not there (pip install ai-edge-litert): " +
           std::string(error == nullptr ? kFile : error);
    return nullptr;
  }
  auto library = std::make_shared<Library>();
  library->path = path_of(handle);
  std::string missing;
  if (::dlsym(handle, kNewEnough) == nullptr) {
    missing = kNewEnough;
  }
#define POSEWIRE_RESOLVE(name, ...)                                                       \
  library->name =                                                                         \
      reinterpret_cast<std::add_pointer_t<__VA_ARGS__>>(::dlsym(handle, "LiteRt" #name)); \
  if (library->name == nullptr) {                                                         \
    missing = "LiteRt" #name;                                                             \
  }
  POSEWIRE_LITERT_FUNCTIONS(POSEWIRE_RESOLVE)
#undef POSEWIRE_RESOLVE
  if (!missing.empty()) {
    *why = library->path + " lacks " + missing + ": ai-edge-litert 2.2 or newer is needed";
    return nullptr;
  }
  library->version = version_of(library->path);
  return library;
}

const char* name_of(Result result) noexcept {
  switch (result) {
    case 1:
      return "invalid argument";
    case 2:
      return "out of memory";
    case 3:
      return "the runtime failed";
    case 5:
      return "not supported";
    case 6:
      return "not found";
    case 500:
      return "the file cannot be read";
    case 501:
      return "not a TFLite file";
    case 504:
      return "cannot be compiled";
    default:
      return "LiteRT failed";
  }
}

}  // namespace posewire::litert
