// SPDX-License-Identifier: Apache-2.0
// A bundle on disk: plain file names, regular files only, sizes and sha256 checked before anything
// is parsed.
#pragma once

#include <string>

#include "bundle/manifest.h"
#include "bundle/sha256.h"

namespace posewire {

struct Bundle {
  std::string directory;
  std::string sha256;  // hex digest of manifest.json's bytes: the bundle's identity on the wire
  Manifest manifest;

  std::string path(const std::string& file) const { return directory + "/" + file; }
};

// Reads and verifies: every listed file is there with its size and digest, and nothing else lies in
// the directory. Throws Error(kBundle) naming directory, file and key.
Bundle open_bundle(const std::string& directory);

// Hex sha256 of a regular file. Throws Error(kBundle) when it cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace posewire
