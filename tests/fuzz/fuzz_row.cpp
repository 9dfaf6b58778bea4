// SPDX-License-Identifier: Apache-2.0
// Any bytes as the outputs of one row's network (row_name.cpp): no crash, and nothing but sane
// poses, the same with every instruction set and whatever the scratch was used for before. The
// manifests are those of tests/golden/<row>/.
//
// Input, with N outputs of the chosen manifest:
//   1 byte       bits 0-1: the network's input at 1/1, 1/2, 1/4 or 1/8 of the golden size, where
//                the row takes that; bits 2-7: which golden case, by name
//   N x 2 bytes  per output: bits 0-1 element type (DType's order), bit 2 the other layout than the
//                manifest's; then bits 0-3 scale 2^(x - 9), bits 4-7 zero point 17 x (int8: - 128)
//   values       of all outputs one after another, repeated as often as needed
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "core/error.h"
#include "decode/rows.h"

extern const char* const kRowName;

namespace {

using namespace posewire;

constexpr int kSizes = 4;

// One manifest, opened for every instruction set.
struct Opened {
  Manifest manifest;
  std::vector<std::unique_ptr<Decoder>> decoders;
  std::vector<std::unique_ptr<Decoder::Scratch>> used;  // one a decoder, from input to input
};

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

Opened open_all(const Manifest& manifest) {
  Opened opened{manifest, {}, {}};
  for (const Kernels* kernels : available_kernels()) {
    opened.decoders.push_back(open_decoder(manifest, *kernels));
    opened.used.push_back(opened.decoders.back()->make_scratch());
  }
  return opened;
}

// Every golden case in kSizes sizes; a row that refuses one (its outputs depend on the input's
// size) gets the golden size again.
std::vector<Opened> open_golden() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(POSEWIRE_GOLDEN) + "/" + kRowName)) {
    if (entry.path().extension() == ".json") {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Opened> all;
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    const std::string manifest = nlohmann::json::parse(text).at("manifest").dump();
    for (int size = 0; size < kSizes; ++size) {
      Manifest smaller = parse_manifest(manifest, path.string(), true);
      smaller.input_width = std::max(smaller.input_width >> size, 1);
      smaller.input_height = std::max(smaller.input_height >> size, 1);
      try {
        all.push_back(open_all(smaller));
      } catch (const Error&) {
        all.push_back(open_all(parse_manifest(manifest, path.string(), true)));
      }
    }
  }
  require(!all.empty());
  return all;
}

// Hands out the input's bytes; 0 where there are none.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  std::uint8_t one() { return at_ < size_ ? data_[at_++] : std::uint8_t{0}; }

  // What is left, again and again.
  void fill(std::vector<std::uint8_t>* to) {
    const std::size_t left = size_ - at_;
    for (std::size_t done = 0; left > 0 && done < to->size();) {
      const std::size_t count = std::min(left - turn_, to->size() - done);
      std::memcpy(to->data() + done, data_ + at_ + turn_, count);
      done += count;
      turn_ = (turn_ + count) % left;
    }
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0, turn_ = 0;
};

MapView view_for(const Manifest& manifest, const OutputSpec& output, std::uint8_t form,
                 std::uint8_t quantisation) {
  const auto dtype = static_cast<DType>(form & 3U);
  const bool other = (form & 4U) != 0;
  const bool last = (output.layout == Layout::kNHWC) != other;
  MapView view = frame_shape(manifest, output, dtype, last ? Layout::kNHWC : Layout::kNCHW);
  if (dtype == DType::kInt8 || dtype == DType::kUint8) {
    view.scale = std::ldexp(1.0F, static_cast<int>(quantisation & 15U) - 9);
    view.zero_point = 17 * (quantisation >> 4U) - (dtype == DType::kInt8 ? 128 : 0);
  }
  return view;
}

void require_sane(const Manifest& manifest, const Poses& poses) {
  const auto width = static_cast<float>(manifest.input_width);
  const auto height = static_cast<float>(manifest.input_height);
  const int count = manifest.skeleton.count();
  require(poses.keypoints_per_person() == count);
  for (int p = 0; p < poses.size(); ++p) {
    float total = 0.0F;
    for (int k = 0; k < count; ++k) {
      const Keypoint& point = poses.keypoints_of(p)[k];
      require(point.score >= 0.0F && point.score <= 1.0F);
      require(point.x >= -width && point.x <= 2.0F * width);
      require(point.y >= -height && point.y <= 2.0F * height);
      require(point.score > 0.0F || (point.x == 0.0F && point.y == 0.0F));
      total += point.score;
    }
    if (count > 0) {
      require(std::abs(poses.score(p) - total / static_cast<float>(count)) <= 1e-4F);
    }
    require(poses.score(p) >= 0.0F && poses.score(p) <= 1.0F);
    require(p == 0 || poses.score(p) <= poses.score(p - 1));
  }
}

bool same(const Poses& left, const Poses& right) {
  bool equal = left.size() == right.size();
  for (int p = 0; equal && p < left.size(); ++p) {
    const auto bytes = sizeof(Keypoint) * static_cast<std::size_t>(left.keypoints_per_person());
    equal = left.score(p) == right.score(p) &&
            std::memcmp(left.keypoints_of(p), right.keypoints_of(p), bytes) == 0;
  }
  return equal;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<Opened> all = open_golden();
  Bytes bytes(data, size);
  const std::size_t first = bytes.one();
  const std::size_t cases = all.size() / kSizes;
  const Opened& opened = all[first / kSizes % cases * kSizes + first % kSizes];
  std::vector<MapView> views;
  for (const OutputSpec& output : opened.manifest.outputs) {
    const std::uint8_t form = bytes.one();
    views.push_back(view_for(opened.manifest, output, form, bytes.one()));
  }
  std::vector<std::vector<std::uint8_t>> values;  // each of its exact size: an overrun is seen
  for (MapView& view : views) {
    const auto count = static_cast<std::size_t>(view.channels * view.height * view.width);
    values.emplace_back(count * bytes_of(view.dtype));
    bytes.fill(&values.back());
    view.data = values.back().data();
  }
  const auto fresh = opened.decoders.front()->make_scratch();
  Poses expected;
  opened.decoders.front()->decode(views, fresh.get(), &expected);
  require_sane(opened.manifest, expected);
  for (std::size_t i = 0; i < opened.decoders.size(); ++i) {
    Poses poses;
    opened.decoders[i]->decode(views, opened.used[i].get(), &poses);
    require(same(poses, expected));
  }
  return 0;
}
