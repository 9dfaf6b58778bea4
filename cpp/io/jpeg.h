// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace posewire {

// False for a JPEG whose end is missing: decoders fill the rest with grey and call it a success.
// True for anything that is no JPEG.
bool jpeg_is_whole(const std::uint8_t* bytes, std::size_t count) noexcept;

}  // namespace posewire
