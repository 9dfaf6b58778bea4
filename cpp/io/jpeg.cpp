// SPDX-License-Identifier: Apache-2.0
// A JPEG is FF D8, segments (FF, type, u16 length with itself, big endian), and from the start of a
// scan (FF DA) coded data in which FF is followed by 00, up to the end mark FF D9. A thumbnail lies
// inside a segment, so its own end mark is passed over.
#include "io/jpeg.h"

namespace posewire {

bool jpeg_is_whole(const std::uint8_t* bytes, std::size_t count) noexcept {
  if (count < 4 || bytes[0] != 0xff || bytes[1] != 0xd8) {
    return true;
  }
  std::size_t at = 2;
  while (at + 4 <= count && bytes[at] == 0xff && bytes[at + 1] != 0xda) {
    if (bytes[at + 1] == 0xff) {
      ++at;  // fill byte
      continue;
    }
    at += 2U + (static_cast<std::size_t>(bytes[at + 2]) << 8 | bytes[at + 3]);
  }
  for (; at + 1 < count; ++at) {
    if (bytes[at] == 0xff && bytes[at + 1] == 0xd9) {
      return true;
    }
  }
  return false;
}

}  // namespace posewire
