// SPDX-License-Identifier: Apache-2.0
// Keypoint candidates of heatmaps whose Gaussians are wide (two cells and more) and whose
// background may be noisy: maxima of 5 x 5 cells that their neighbours support, with positions from
// all the 25.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "decode/kernels.h"

namespace posewire {

struct Blob {
  float value = 0.0F;        // the map's, at the highest cell
  int column = 0, row = 0;   // of that cell
  float x = 0.0F, y = 0.0F;  // the centre, cells
};

// Working memory, sized once for a map size and BlobRules::most.
struct BlobScratch {
  BlobScratch(int height, int width, int most);

  int pitch;                    // of the rows of `bordered`
  std::vector<float> bordered;  // (height + 2) x pitch
  std::vector<int> blocks;      // with a value over the threshold
  std::vector<int> places;      // in `bordered`
  std::vector<Blob> found;      // no two within two cells: one in 3 x 3 at most
  int lanes;                    // two a blob: across, down
  std::vector<float> sums;      // 5 x lanes
  std::vector<float> offsets;   // lanes
};

// What makes a maximum a keypoint candidate.
struct BlobRules {
  float threshold;  // > 0: lowest value
  float support;    // the mean of the eight neighbours is at least this share of the value
  int most;         // how many at most, the highest (equal ones: first in memory)
};

// Candidates of channel `channel` of a float32 view with column_stride 1, best first, into
// `blobs` (rules.most of them), without centres; returns how many. A candidate is higher than the
// cells within two of it; of equal ones the first in memory. Neighbours outside the map count as
// the border's cells towards `support`. Time O(height width), memory as sized.
int find_blobs(const MapView& maps, int channel, const BlobRules& rules, const Kernels& kernels,
               BlobScratch* scratch, Blob* blobs);

// Sub-cell centres of blobs in that map: parabolas through the logarithms of the sums of five
// columns and of five rows, fitted by least squares weighted with the squared sums (so the noise of
// all logarithms counts the same); of three, where the fourth and fifth rise again (another blob).
// Exact for a Gaussian of any width, also at a border. Within a cell of the highest; never NaN.
// `count` at most rules.most; `just_found`: find_blobs was the last to use `scratch`, for this map.
void centre_blobs(const MapView& maps, int channel, bool just_found, const Kernels& kernels,
                  BlobScratch* scratch, Blob* blobs, int count);

}  // namespace posewire
