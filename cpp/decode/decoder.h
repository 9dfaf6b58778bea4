// SPDX-License-Identifier: Apache-2.0
// decode(outputs, manifest) -> poses: pure and reentrant. No thread, no OpenCV, no device here.
// A row is one file, decode/<stem>.cpp, which parses its own parameters from the manifest's
// "decode".
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle/manifest.h"
#include "core/pose.h"
#include "core/tensor.h"

namespace posewire {

class Decoder {
 public:
  // A caller's working memory: one per thread, reused, so that the steady state does not allocate.
  class Scratch {
   public:
    virtual ~Scratch() = default;
  };

  virtual ~Decoder() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;

  // `outputs`: one frame's maps in the manifest's order, shapes as checked when opening.
  // `poses` is cleared first; coordinates are network input pixels. Any values in the maps are
  // survived (NaN, Inf, thousands of peaks): bounded time and memory, no NaN in the result.
  virtual void decode(const std::vector<MapView>& outputs, Scratch* scratch,
                      Poses* poses) const = 0;
};

// Resolves manifest.decode.algorithm in the table. Throws Error(kBundle) for an unknown algorithm
// (listing the known ones), unknown or ill-typed parameters, shapes that disagree with the
// skeleton, or outputs of more than 2^28 values a frame in all: what a manifest may ask memory for
// is bounded.
std::unique_ptr<Decoder> open_decoder(const Manifest& manifest);

std::vector<std::string> decoder_names();

}  // namespace posewire
