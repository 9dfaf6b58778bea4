// SPDX-License-Identifier: Apache-2.0
// Any bytes as a manifest: refused with an Error, or a decoder that decodes an empty frame.
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/decoder.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace posewire;
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const Manifest manifest = parse_manifest(text, "fuzz", true);
    if (manifest.input_width > 512 || manifest.input_height > 512) {
      return 0;  // valid, but its maps would only cost the fuzzer time
    }
    const auto decoder = open_decoder(manifest);
    const auto scratch = decoder->make_scratch();
    std::vector<std::vector<float>> values;
    std::vector<MapView> views;
    for (const OutputSpec& output : manifest.outputs) {
      MapView view = frame_shape(manifest, output, DType::kFloat32, output.layout);
      if (output.channels > 600 || view.width > 1 << 16) {
        return 0;
      }
      values.emplace_back(static_cast<std::size_t>(view.channels * view.height * view.width));
      view.data = values.back().data();
      views.push_back(view);
    }
    Poses poses;
    decoder->decode(views, scratch.get(), &poses);
  } catch (const Error&) {
  }
  return 0;
}
