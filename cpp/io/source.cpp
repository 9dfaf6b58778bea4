// SPDX-License-Identifier: Apache-2.0
// The table of sources. To add one: its file, its maker's declaration and its row.
#include "io/source.h"

#include <sys/stat.h>

#include <utility>

#include "io/uri.h"

namespace posewire {

// Each in its own file; constructors do nothing that can fail, except for reading the URI.
std::unique_ptr<Source> make_libav_file(const SourceOptions& options);    // libav.cpp
std::unique_ptr<Source> make_libav_stream(const SourceOptions& options);  // libav.cpp
std::unique_ptr<Source> make_folder(const SourceOptions& options);        // folder.cpp
std::unique_ptr<Source> make_v4l2(const SourceOptions& options);          // v4l2.cpp
std::unique_ptr<Source> make_synthetic(const SourceOptions& options);     // synthetic.cpp
bool is_picture_name(const std::string& path);                            // folder.cpp

namespace {

std::unique_ptr<Source> make_path(const SourceOptions& options) {
  const std::string path = path_of(options.uri);
  struct stat info {};
  const bool folder = ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  return folder || is_picture_name(path) ? make_folder(options) : make_libav_file(options);
}

struct Row {
  const char* scheme;
  std::unique_ptr<Source> (*make)(const SourceOptions&);
};

constexpr Row kSources[] = {
    {"file", make_path},           {"v4l2", make_v4l2},         {"rtsp", make_libav_stream},
    {"rtsps", make_libav_stream},  {"http", make_libav_stream}, {"https", make_libav_stream},
    {"synthetic", make_synthetic},
};

}  // namespace

std::unique_ptr<Source> make_source(const SourceOptions& options) {
  if (options.uri.empty()) {
    throw Error(Code::kConfig, camera_place(options.camera), "the source's address is empty");
  }
  const std::string scheme = scheme_of(options.uri);
  if (scheme.empty()) {
    return make_path(options);
  }
  std::string known;
  for (const Row& row : kSources) {
    if (scheme == row.scheme) {
      return row.make(options);
    }
    known += (known.empty() ? "" : ", ") + std::string(row.scheme);
  }
  throw Error(Code::kConfig, address_place(options.camera, options.uri),
              "unknown source \"" + scheme + ":\" (known: " + known +
                  "; a file whose name has a colon: file:NAME)");
}

std::vector<std::string> source_schemes() {
  std::vector<std::string> schemes;
  for (const Row& row : kSources) {
    schemes.emplace_back(row.scheme);
  }
  return schemes;
}

}  // namespace posewire
