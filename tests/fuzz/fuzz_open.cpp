// SPDX-License-Identifier: Apache-2.0
// Any bytes as a manifest: refused with an Error, or a decoder whose scratch fits into memory
// (scripts/fuzz.sh sets a limit) and that decodes an empty frame.
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "decode/decoder.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace posewire;
  constexpr std::size_t kMost = std::size_t{1} << 21;  // larger frames only cost the fuzzer time
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const Manifest manifest = parse_manifest(text, "fuzz", true);
    const auto decoder = open_decoder(manifest);
    const auto scratch = decoder->make_scratch();
    std::vector<MapView> views;
    std::size_t all = 0;
    for (const OutputSpec& output : manifest.outputs) {
      views.push_back(frame_shape(manifest, output, DType::kFloat32, output.layout));
      const MapView& view = views.back();
      all += static_cast<std::size_t>(view.channels) * static_cast<std::size_t>(view.height) *
             static_cast<std::size_t>(view.width);
    }
    if (all > kMost) {
      return 0;
    }
    std::vector<std::vector<float>> values;  // each of its exact size: an overrun is seen
    for (MapView& view : views) {
      values.emplace_back(static_cast<std::size_t>(view.channels * view.height * view.width));
      view.data = values.back().data();
    }
    Poses poses;
    decoder->decode(views, scratch.get(), &poses);
  } catch (const Error&) {
  }
  return 0;
}
