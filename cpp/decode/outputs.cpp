// SPDX-License-Identifier: Apache-2.0
#include "decode/outputs.h"

#include <algorithm>

#include "core/error.h"

namespace posewire {

std::optional<std::size_t> find_output(const Manifest& manifest, const std::string& name) {
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    if (manifest.outputs[i].name == name) {
      return i;
    }
  }
  return std::nullopt;
}

std::size_t output_named(const Manifest& manifest, const char* row, const std::string& name) {
  const std::optional<std::size_t> found = find_output(manifest, name);
  if (found) {
    return *found;
  }
  std::string there;
  for (const OutputSpec& output : manifest.outputs) {
    there += (there.empty() ? "" : ", ") + output.name;
  }
  throw Error(Code::kBundle, "outputs",
              std::string(row) + " needs an output \"" + name + "\" (there are: " + there + ")");
}

void refuse_other_outputs(const Manifest& manifest, const char* row,
                          std::initializer_list<const char*> known) {
  for (const OutputSpec& output : manifest.outputs) {
    if (std::find(known.begin(), known.end(), output.name) != known.end()) {
      continue;
    }
    std::string names;
    for (const char* name : known) {
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    throw Error(Code::kBundle, "outputs",
                std::string(row) + " has no output \"" + output.name + "\" (known: " + names + ")");
  }
}

void require_channels(const OutputSpec& output, int channels) {
  if (output.channels != channels) {
    throw Error(
        Code::kBundle, "outputs." + output.name + ".channels",
        "is " + std::to_string(output.channels) + ", but must be " + std::to_string(channels));
  }
}

void require_limbs(const Skeleton& skeleton, const char* row) {
  const int count = skeleton.count();
  if (count < 1 || count > 256 || skeleton.limbs.empty() || skeleton.limbs.size() > 512) {
    throw Error(Code::kBundle, "skeleton",
                std::string(row) + " needs 1 … 256 keypoints and 1 … 512 limbs");
  }
  for (std::size_t i = 0; i < skeleton.limbs.size(); ++i) {
    const auto [a, b] = skeleton.limbs[i];
    if (a < 0 || b < 0 || a >= count || b >= count || a == b) {
      throw Error(Code::kBundle, "skeleton.limbs[" + std::to_string(i) + "]",
                  "must join two different keypoints in 0 … " + std::to_string(count - 1));
    }
  }
}

}  // namespace posewire
