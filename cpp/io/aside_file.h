// SPDX-License-Identifier: Apache-2.0
// An output file written aside as "<path>.part" and renamed when it is complete, so that a
// half-written one never replaces a good one. What was written before a failure stays in the .part.
#pragma once

#include <string>

#include "core/error.h"

namespace posewire {

// Used by one thread.
class AsideFile {
 public:
  AsideFile() = default;
  AsideFile(const AsideFile&) = delete;
  AsideFile& operator=(const AsideFile&) = delete;
  ~AsideFile();

  // Throws Error(kCannotWrite): no such folder, not writable, not a regular file (renaming onto
  // /dev/null would replace it), or another process is writing it now (the .part is locked).
  void open(const std::string& path);

  Status write(const char* bytes, std::size_t count);

  // Flushes to the disk and renames; close() leaves the .part where it is.
  Status commit();
  void close() noexcept;
  void discard() noexcept;  // closes and removes the .part

  bool is_open() const noexcept { return fd_ >= 0; }
  const std::string& part() const noexcept { return part_; }  // for a library that opens it itself
  // "poses.jsonl: no space left on device; what was written is in poses.jsonl.part"
  Status failure(int error_number) const;

 private:
  int fd_ = -1;
  std::string path_, part_;
};

}  // namespace posewire
