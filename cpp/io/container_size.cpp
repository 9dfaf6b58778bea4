// SPDX-License-Identifier: Apache-2.0
// The top level of three containers:
//   MP4/MOV   boxes: u32 size (big endian, header included), 4 letters; size 1: u64 follows;
//             size 0: up to the end of the file
//   AVI       "RIFF", u32 size of what follows (little endian), "AVI "; OpenDML appends more RIFFs
//   Matroska  EBML elements: variable-length id and size; the Segment's size all ones: unknown
#include "io/container_size.h"

#include <cstdio>
#include <cstring>
#include <memory>

namespace posewire {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

bool read_at(std::FILE* file, std::uint64_t at, unsigned char* bytes, std::size_t count) {
  return at < (std::uint64_t{1} << 62) && ::fseeko(file, static_cast<off_t>(at), SEEK_SET) == 0 &&
         std::fread(bytes, 1, count, file) == count;
}

std::uint64_t big_endian(const unsigned char* bytes, int count) {
  std::uint64_t value = 0;
  for (int i = 0; i < count; ++i) {
    value = value << 8 | bytes[i];
  }
  return value;
}

// The end of the last box that starts inside the file.
std::optional<std::uint64_t> mp4_size(std::FILE* file) {
  std::uint64_t at = 0;
  unsigned char head[16];
  // A fragmented recording has two boxes a second or so; a file of a million is not worth reading.
  for (int box = 0; read_at(file, at, head, 8); ++box) {
    if (box == 1000000) {
      return std::nullopt;
    }
    std::uint64_t size = big_endian(head, 4);
    for (int i = 4; i < 8; ++i) {
      if (head[i] < 0x20 || head[i] > 0x7e) {
        return std::nullopt;  // not a box: something was appended, which is no loss
      }
    }
    if (size == 1) {
      if (!read_at(file, at, head, 16)) {
        return at + 16;
      }
      size = big_endian(head + 8, 8);
    }
    if (size < 8 || size > (std::uint64_t{1} << 61)) {
      return std::nullopt;  // 0: up to the end
    }
    at += size;
  }
  return at;
}

std::optional<std::uint64_t> avi_size(std::FILE* file) {
  std::uint64_t at = 0;
  unsigned char head[8];
  while (read_at(file, at, head, 8) && std::memcmp(head, "RIFF", 4) == 0) {
    const unsigned char reversed[] = {head[7], head[6], head[5], head[4]};
    const std::uint64_t size = big_endian(reversed, 4);
    if (size == 0 || size == 0xffffffffU) {
      return std::nullopt;  // the writer was never closed, or could not seek
    }
    at += 8 + size;  // sizes are even; a RIFF of odd size is not padded by every writer
  }
  return at;
}

// An EBML number with its length marker kept (ids) or removed (sizes). False: unreadable.
bool ebml_number(std::FILE* file, std::uint64_t* at, bool keep_marker, std::uint64_t* value,
                 bool* unknown) {
  unsigned char bytes[8];
  if (!read_at(file, *at, bytes, 1) || bytes[0] == 0) {
    return false;
  }
  int length = 1;
  while ((bytes[0] & (0x80 >> (length - 1))) == 0) {
    ++length;
  }
  if (!read_at(file, *at, bytes, static_cast<std::size_t>(length))) {
    return false;
  }
  *at += static_cast<std::uint64_t>(length);
  *value = big_endian(bytes, length);
  const std::uint64_t ones = (std::uint64_t{1} << (7 * length)) - 1;
  *unknown = (*value & ones) == ones;
  *value = keep_marker ? *value : *value & ones;
  return true;
}

std::optional<std::uint64_t> matroska_size(std::FILE* file) {
  constexpr std::uint64_t kSegment = 0x18538067;
  std::uint64_t at = 0;
  for (int element = 0; element < 8; ++element) {
    std::uint64_t id = 0, size = 0;
    bool unknown = false;
    if (!ebml_number(file, &at, true, &id, &unknown) ||
        !ebml_number(file, &at, false, &size, &unknown) || unknown) {
      return std::nullopt;
    }
    at += size;
    if (id == kSegment) {
      return at;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> stated_size(const std::string& path) {
  const File file(std::fopen(path.c_str(), "rbe"));
  unsigned char head[12];
  if (!file || !read_at(file.get(), 0, head, sizeof head)) {
    return std::nullopt;
  }
  if (std::memcmp(head + 4, "ftyp", 4) == 0 || std::memcmp(head + 4, "moov", 4) == 0 ||
      std::memcmp(head + 4, "mdat", 4) == 0) {
    return mp4_size(file.get());
  }
  if (std::memcmp(head, "RIFF", 4) == 0 && std::memcmp(head + 8, "AVI ", 4) == 0) {
    return avi_size(file.get());
  }
  const unsigned char ebml[] = {0x1a, 0x45, 0xdf, 0xa3};
  return std::memcmp(head, ebml, 4) == 0 ? matroska_size(file.get()) : std::nullopt;
}

}  // namespace posewire
