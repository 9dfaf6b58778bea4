// SPDX-License-Identifier: Apache-2.0
// The decoder rows, one file each: decode/<stem>.cpp. decoder.cpp's table and the tests include
// this.
#pragma once

#include <memory>

#include "decode/decoder.h"
#include "decode/kernels.h"

namespace posewire {

// open_decoder (decoder.h) with these kernels instead of the machine's best.
std::unique_ptr<Decoder> open_decoder(const Manifest& manifest, const Kernels& kernels);

std::unique_ptr<Decoder> open_heatmap(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_associative_embedding(const Manifest& manifest,
                                                    const Kernels& kernels);
std::unique_ptr<Decoder> open_paf(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_pifpaf(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_simcc(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_center(const Manifest& manifest, const Kernels& kernels);
std::unique_ptr<Decoder> open_pose_proposal(const Manifest& manifest, const Kernels& kernels);

}  // namespace posewire
