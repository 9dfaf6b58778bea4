// SPDX-License-Identifier: Apache-2.0
// One line per event on stderr; stdout belongs to the engine's protocol. Any thread may call it.
#pragma once

#include <string>

namespace posewire {

enum class Level { kDebug, kInfo, kWarning, kError };

// "<level> <where>: <what>". Credentials in URLs are replaced before anything is written.
void log(Level level, const std::string& where, const std::string& what);

// rtsp://user:secret@host/x -> rtsp://***@host/x; anything else is returned unchanged.
std::string redacted(const std::string& uri);

}  // namespace posewire
