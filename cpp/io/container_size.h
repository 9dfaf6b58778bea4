// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace posewire {

// How long a video file says it is, from its container's own lengths: libav reads a file that was
// cut off to a clean end. Empty for containers without lengths (MPEG-TS, raw H.264, FLV, a live
// Matroska recording), for other files and for unreadable ones.
std::optional<std::uint64_t> stated_size(const std::string& path);

}  // namespace posewire
