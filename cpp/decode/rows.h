// SPDX-License-Identifier: Apache-2.0
// The decoder rows, one file each: decode/<stem>.cpp. decoder.cpp's table and the tests include
// this.
#pragma once

#include <memory>

#include "decode/decoder.h"
#include "decode/kernels.h"

namespace posewire {

std::unique_ptr<Decoder> open_paf(const Manifest& manifest, const Kernels& kernels);

}  // namespace posewire
