// SPDX-License-Identifier: Apache-2.0
#include "bundle/sha256.h"

#include <openssl/evp.h>

#include "core/error.h"

namespace posewire {
namespace {

void require(bool done) {
  if (!done) {
    throw Error(Code::kBug, "sha256", "the digest cannot be computed");
  }
}

}  // namespace

void Sha256::Free::operator()(void* context) const noexcept {
  EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context));
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  require(context_ != nullptr &&
          EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_.get()), EVP_sha256(), nullptr) == 1);
}

void Sha256::add(const void* data, std::size_t bytes) {
  require(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_.get()), data, bytes) == 1);
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  require(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_.get()), digest, &size) == 1);
  std::string result;
  for (unsigned int i = 0; i < size; ++i) {
    result += "0123456789abcdef"[digest[i] >> 4U];
    result += "0123456789abcdef"[digest[i] & 15U];
  }
  return result;
}

std::string sha256_of(const void* data, std::size_t bytes) {
  Sha256 digest;
  digest.add(data, bytes);
  return digest.hex();
}

}  // namespace posewire
