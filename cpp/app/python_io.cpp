// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "app/python.h"
#include "app/python_arrays.h"
#include "core/error.h"
#include "io/source.h"

namespace nb = nanobind;

namespace posewire {
namespace {

constexpr int kMaxFrames = 4096;

nb::list read_frames(const std::string& uri, int count, int timeout_ms) {
  if (count < 1 || count > kMaxFrames) {
    throw Error(Code::kUsage, "count", "must be 1 to " + std::to_string(kMaxFrames));
  }
  std::vector<Image> images;
  {
    const nb::gil_scoped_release release;
    SourceOptions options;
    options.camera = "read_frames";
    options.uri = uri;
    options.timeout_ms = timeout_ms;
    const std::unique_ptr<Source> source = make_source(options);
    source->open();
    Frame frame;
    Status status;
    while (static_cast<int>(images.size()) < count) {
      const Read read = source->read(&frame, &status);
      if (read == Read::kFailed) {
        throw Error(status.code(), uri, status.what());
      }
      if (read != Read::kFrame) {
        break;
      }
      images.push_back(frame.image);
    }
  }
  nb::list list;
  for (const Image& image : images) {
    list.append(array_of(image));
  }
  return list;
}

}  // namespace

void bind_io(nb::module_& module) {
  module.def("read_frames", &read_frames, nb::arg("uri"), nb::arg("count"),
             nb::arg("timeout_ms") = 5000,
             "The first frames of a source, BGR uint8 [H, W, 3]; fewer where it ends before.");
  module.def("source_schemes", &source_schemes, "The known URI schemes.");
}

}  // namespace posewire
