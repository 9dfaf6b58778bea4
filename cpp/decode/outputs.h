// SPDX-License-Identifier: Apache-2.0
// A row's outputs among the manifest's, looked up when opening and checked per frame.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>

#include "bundle/manifest.h"
#include "core/tensor.h"

namespace posewire {

// Index of the output. output_named throws Error(kBundle) where there is none, listing those there
// are.
std::optional<std::size_t> find_output(const Manifest& manifest, const std::string& name);
std::size_t output_named(const Manifest& manifest, const char* row, const std::string& name);

// Throws Error(kBundle) for an output that the row does not know, listing the known ones.
void refuse_other_outputs(const Manifest& manifest, const char* row,
                          std::initializer_list<const char*> known);

// Throws Error(kBundle) with "outputs.<name>.channels" where the output has not `channels` of them.
void require_channels(const OutputSpec& output, int channels);

// Throws Error(kBundle) unless the skeleton has 1 … 256 keypoints and 1 … 512 limbs between two
// different ones of them.
void require_limbs(const Skeleton& skeleton, const char* row);

// Whether a frame's view has the shape that the manifest gave, and data.
inline bool fits(const MapView& view, const MapView& shape) {
  return view.data != nullptr && view.channels == shape.channels && view.height == shape.height &&
         view.width == shape.width;
}

}  // namespace posewire
