#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the TensorRT plug-in does on a real GPU besides TensorRT: its kernels against the CPU's numbers, and the plug-in
# itself (streams, pinned memory, graphs, requests in flight) with the tests' fake TensorRT on the real CUDA. Needs a
# CUDA toolkit (nvcc) and a device, nothing else: no TensorRT, no OpenCV, no Python.
#   bash scripts/gpu_check.sh [FOLDER]    builds in FOLDER (default build/gpu); one JSON line a finding; exit 1: a mismatch
#   bash scripts/gpu_check.sh --build     builds only, where no device is
#   bash scripts/gpu_check.sh --sanitize  the same checks under compute-sanitizer, without timings
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=check
case "${1-}" in
  --build | --sanitize)
    run="${1#--}"
    shift
    ;;
esac
out="${1-build/gpu}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"

command -v nvcc >/dev/null || { echo "gpu_check: nvcc is not in PATH" >&2; exit 69; }
# The device's own machine code; --build has none to ask and takes what CUDA 13 has for the H100.
arch=sm_90
if [ "$run" != build ]; then
  capability="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n1)" || exit 69
  arch="sm_${capability/./}"
fi
# The real CUDA's header must be found before our declaration of it, which lies beside that of TensorRT.
cuda="$(cd "$(dirname "$(readlink -f "$(command -v nvcc)")")/.." && pwd)"
[ -f "$cuda/include/cuda_runtime_api.h" ] || cuda=/usr/local/cuda
flags=(-std=c++17 -O2 "-arch=$arch" -fmad=false -cudart shared "-Xcompiler=-fPIC,-Wall" "-I$cuda/include" -Icpp -Itests/cpp
  -Itests/gpu)
fake=(-Icpp/infer/tensorrt_api -DPOSEWIRE_DECLARED_TENSORRT=1101
  "-DPOSEWIRE_TENSORRT_LIBRARY=\"$out/libposewire_fake_tensorrt.so\"")

objects=()
compile() { # object, source, further flags; four at once
  objects+=("$1")
  nvcc "${flags[@]}" "${@:3}" -c "$2" -o "$out/$1" &
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
}
compile kernels.o cpp/infer/tensorrt/kernels.cu
compile fake_network.o tests/gpu/fake_network.cu
compile fake_tensorrt.o tests/cpp/tensorrt/fake_tensorrt.cpp "${fake[@]}"
for part in library plan slot; do compile "$part.o" "cpp/infer/tensorrt/$part.cpp" "${fake[@]}"; done
compile plugin.o cpp/infer/tensorrt.cpp "${fake[@]}"
compile kernels_check.o tests/gpu/kernels_check.cpp
compile plugin_check.o tests/gpu/plugin_check.cpp
compile letterbox.o cpp/infer/letterbox.cpp
wait
for object in "${objects[@]}"; do [ -f "$out/$object" ] || { echo "gpu_check: $object was not built" >&2; exit 70; }; done

cd "$out"
libraries=(-cudart shared -Xlinker "-rpath,$cuda/lib64" -ldl)
nvcc -shared fake_tensorrt.o fake_network.o -o libposewire_fake_tensorrt.so "${libraries[@]}"
nvcc -shared plugin.o library.o plan.o slot.o kernels.o -o libposewire_tensorrt.so "${libraries[@]}"
nvcc kernels_check.o plugin_check.o kernels.o letterbox.o -o gpu_check "${libraries[@]}"
rm -f ./*.o
plugin="$out/libposewire_tensorrt.so"
case $run in
  check) ./gpu_check "$plugin" ;;
  sanitize)
    for tool in memcheck racecheck; do
      echo "{\"sanitizer\": \"$tool\"}"
      compute-sanitizer --tool "$tool" --error-exitcode 1 ./gpu_check "$plugin" quick
    done
    ;;
esac
