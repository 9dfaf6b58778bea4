// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/skeleton.h"
#include "core/strict_json.h"

namespace posewire {

// A manifest's skeleton, checked as posewire/skeleton.py checks it. Throws Error naming the key.
Skeleton parse_skeleton(const At& at);

}  // namespace posewire
