// SPDX-License-Identifier: Apache-2.0
// SHA-256 in pieces, by OpenSSL.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace posewire {

class Sha256 {
 public:
  Sha256();
  void add(const void* data, std::size_t bytes);
  std::string hex();  // once, at the end: 64 lower-case hex digits

 private:
  struct Free {
    void operator()(void* context) const noexcept;
  };
  std::unique_ptr<void, Free> context_;
};

std::string sha256_of(const void* data, std::size_t bytes);

}  // namespace posewire
