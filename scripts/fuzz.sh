#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzes the manifest reader and every decoder row under AddressSanitizer and UndefinedBehaviorSanitizer (clang, libFuzzer).
#   bash scripts/fuzz.sh                  each target for 60 seconds, one after another
#   bash scripts/fuzz.sh 600 fuzz_paf     only these targets, for 600 seconds each
# The corpus stays in build/fuzz/corpus, findings go to build/fuzz/findings. Exit code: 0 nothing found, 1 a finding.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds="${1:-60}"
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || {
  echo "fuzz: seconds must be a positive integer, not '$seconds'" >&2
  exit 64
}
[ $# -eq 0 ] || shift

compiler="${CXX:-}"
for name in clang++-14 clang++; do
  [ -n "$compiler" ] || compiler="$(command -v "$name" || true)"
done
[ -n "$compiler" ] || {
  echo "fuzz: needs clang++ with libFuzzer (package clang)" >&2
  exit 69
}
mkdir -p build/fuzz
cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$compiler" -DPOSEWIRE_FUZZ=ON \
  -DPOSEWIRE_TESTS=OFF -DPOSEWIRE_PYTHON=OFF -DPOSEWIRE_OPENVINO=OFF \
  -DPOSEWIRE_SANITIZE=fuzzer-no-link,address,undefined >build/configure-fuzz.log 2>&1 || {
  cat build/configure-fuzz.log
  exit 1
}
cmake --build build/fuzz --target fuzz

mapfile -t known <build/fuzz/tests/fuzz/targets.txt
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || {
    echo "fuzz: unknown target '$target' (known: ${known[*]})" >&2
    exit 64
  }
done

rm -rf build/fuzz/seeds
python3 tests/fuzz/make_seeds.py build/fuzz/seeds
found=0
for target in "${targets[@]}"; do
  mkdir -p "build/fuzz/corpus/$target" "build/fuzz/seeds/$target" "build/fuzz/findings/$target"
  printf '\033[1m== %s, %s s\033[0m\n' "$target" "$seconds"
  log="build/fuzz/$target.log"
  # A slow input is a finding too: decoding has a bound whatever the outputs hold.
  if "build/fuzz/tests/fuzz/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/findings/$target/" "build/fuzz/corpus/$target" "build/fuzz/seeds/$target" \
    >"$log" 2>&1; then
    grep -E 'number_of_executed_units|average_exec_per_sec|peak_rss_mb' "$log"
  else
    found=1
    tail -n 40 "$log"
    echo "fuzz: $target: a finding, see build/fuzz/findings/$target and $log" >&2
  fi
done
exit "$found"
