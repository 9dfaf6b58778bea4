// SPDX-License-Identifier: Apache-2.0
#include "core/tensor.h"

#include "core/error.h"

namespace posewire {

std::size_t bytes_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::kUint8:
    case DType::kInt8:
      return 1;
    case DType::kFloat16:
      return 2;
    case DType::kFloat32:
      return 4;
  }
  return 0;
}

const char* name_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::kUint8:
      return "uint8";
    case DType::kInt8:
      return "int8";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat32:
      return "float32";
  }
  return "";
}

DType dtype_from(const std::string& name, const std::string& where) {
  for (DType dtype : {DType::kUint8, DType::kInt8, DType::kFloat16, DType::kFloat32}) {
    if (name == name_of(dtype)) {
      return dtype;
    }
  }
  throw Error(Code::kBundle, where,
              "unknown dtype \"" + name + "\" (known: uint8, int8, float16, float32)");
}

Layout layout_from(const std::string& name, const std::string& where) {
  if (name == "NCHW") {
    return Layout::kNCHW;
  }
  if (name == "NHWC") {
    return Layout::kNHWC;
  }
  throw Error(Code::kBundle, where, "unknown layout \"" + name + "\" (known: NCHW, NHWC)");
}

MapView dense_map(const void* data, DType dtype, Layout layout, int channels, int height,
                  int width) noexcept {
  MapView view;
  view.data = data;
  view.dtype = dtype;
  view.channels = channels;
  view.height = height;
  view.width = width;
  if (layout == Layout::kNCHW) {
    view.channel_stride = static_cast<std::ptrdiff_t>(height) * width;
    view.row_stride = width;
    view.column_stride = 1;
  } else {
    view.channel_stride = 1;
    view.row_stride = static_cast<std::ptrdiff_t>(width) * channels;
    view.column_stride = channels;
  }
  return view;
}

}  // namespace posewire
