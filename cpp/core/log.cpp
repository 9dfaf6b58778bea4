// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <cstdio>

namespace posewire {

void log(Level level, const std::string& where, const std::string& what) {
  const char* const names[] = {"debug", "info", "warning", "error"};
  const std::string line = std::string(names[static_cast<int>(level)]) + " " + redacted(where) +
                           ": " + redacted(what) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);  // one call: lines of two threads never mix
}

std::string redacted(const std::string& uri) {
  std::string result;
  std::size_t done = 0;
  for (;;) {
    const std::size_t scheme = uri.find("://", done);
    if (scheme == std::string::npos) {
      return result + uri.substr(done);
    }
    const std::size_t begin = scheme + 3;
    // A password may itself contain '@': the last one before the path or a blank ends it.
    const std::size_t end = uri.find_first_of("/ \t\n\"'", begin);
    const std::size_t limit = end == std::string::npos ? uri.size() : end;
    const std::size_t at = uri.rfind('@', limit);
    result += uri.substr(done, begin - done);
    if (at != std::string::npos && at >= begin && at < limit) {
      result += "***";
      done = at;
    } else {
      done = begin;
    }
  }
}

}  // namespace posewire
