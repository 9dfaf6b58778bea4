#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything a change must pass: formats, linters, types, the C++ tests (also under ThreadSanitizer), clang-tidy, the
# Python tests.
#   bash scripts/test.sh                 all of it; some 20 minutes on two cores from nothing
#   bash scripts/test.sh lint cpp python  only these parts; by name only: asan, decoders and bundles under
#                                         AddressSanitizer and UndefinedBehaviorSanitizer
# POSEWIRE_DATA may name a folder of real pictures; tests that need it skip without it and say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --dev

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(lint cpp tsan tidy python)
bin="$PWD/.venv/bin"
jobs="$(nproc)"
say() { printf '\033[1m== %s\033[0m\n' "$*"; }

configure() { # preset, further arguments
  cmake --preset "$1" -DPython_EXECUTABLE="$bin/python" "${@:2}" >"build/configure-$1.log" 2>&1 || {
    cat "build/configure-$1.log"
    exit 1
  }
}
mkdir -p build

lint() {
  say "formats and linters"
  "$bin/ruff" check .
  "$bin/ruff" format --check .
  git ls-files '*.sh' .ci/run | xargs shellcheck
  git ls-files 'cpp/*.h' 'cpp/*.cpp' 'tests/*.h' 'tests/*.cpp' | xargs clang-format-14 --dry-run -Werror
  "$bin/python" scripts/typecheck.py
}

cpp() {
  say "C++ tests"
  configure dev
  cmake --build --preset dev --parallel "$jobs"
  (cd build/dev && ctest --output-on-failure --parallel "$jobs" --timeout 120)
}

tidy() {
  say "clang-tidy"
  configure dev
  bash scripts/tidy.sh
}

tsan() {
  say "flow under ThreadSanitizer"
  configure tsan -DPOSEWIRE_OPENVINO=OFF
  cmake --build --preset tsan --parallel "$jobs" \
    --target channel_test batcher_test graph_test source_stage_test payload_test
  for test in channel batcher graph source_stage payload; do "build/tsan/tests/cpp/${test}_test" --gtest_brief=1; done
}

# Not among the default parts: building takes minutes.
asan() {
  say "decode and bundle under AddressSanitizer and UndefinedBehaviorSanitizer"
  configure asan -DPOSEWIRE_OPENVINO=OFF
  local tests test
  mapfile -t tests < <(cd tests/cpp && ls decode*_test.cpp bundle_test.cpp)
  cmake --build --preset asan --parallel "$jobs" --target "${tests[@]%.cpp}"
  for test in "${tests[@]%.cpp}"; do UBSAN_OPTIONS=halt_on_error=1 "build/asan/tests/cpp/$test" --gtest_brief=1; done
}

python() {
  say "Python tests: the trainer"
  PYTHONSAFEPATH=1 "$bin/python" -m pytest -q tests/trainer tests/export tests/synthetic
  # Apart, as on a device, which never loads Keras.
  say "Python tests: everything else"
  PYTHONSAFEPATH=1 "$bin/python" -m pytest -q \
    --ignore tests/trainer --ignore tests/export --ignore tests/synthetic
}

for part in "${parts[@]}"; do
  case "$part" in
    lint | cpp | tsan | asan | python | tidy) "$part" ;;
    *)
      echo "test: unknown part '$part' (known: lint cpp tsan asan python tidy)" >&2
      exit 64
      ;;
  esac
done
