// SPDX-License-Identifier: Apache-2.0
// The plug-in without nvcc: networks run, the CPU prepares pictures.
#include "infer/tensorrt/kernels.h"

namespace posewire {

cudaError_t kernels_run_here() { return cudaErrorUnknown; }
cudaError_t launch_letterbox(const LetterboxJob&, cudaStream_t) { return cudaErrorUnknown; }
cudaError_t launch_normalise(const std::uint8_t*, int, const NetworkPicture&, cudaStream_t) {
  return cudaErrorUnknown;
}
cudaError_t launch_to_half(const float*, std::uint16_t*, std::size_t, cudaStream_t) {
  return cudaErrorUnknown;
}
cudaError_t launch_peaks(const PeakJob&, cudaStream_t) { return cudaErrorUnknown; }

}  // namespace posewire
