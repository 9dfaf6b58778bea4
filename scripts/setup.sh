#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what posewire needs and builds it: packages of the distribution, .venv at the repository's root, the engine.
# Run it as often as you like: what is there already is left alone. Debian 12; Ubuntu 24.04 should work (untried).
#   bash scripts/setup.sh         what the demo, training and the daemon need
#   bash scripts/setup.sh --dev   also what the tests, linters and sanitizers need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras="train"
packages=(
  build-essential cmake ninja-build pkg-config python3 python3-venv python3-dev
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev
  libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev
  nlohmann-json3-dev libssl-dev mosquitto
)
case "${1:-}" in
  "") ;;
  --dev)
    extras="train,test"
    packages+=(
      ccache clang-14 libclang-rt-14-dev clang-format-14 clang-tidy-14 shellcheck
      libgtest-dev libgmock-dev libbenchmark-dev ffmpeg gir1.2-gst-rtsp-server-1.0 python3-gi
      nodejs
    )
    ;;
  *)
    echo "usage: bash scripts/setup.sh [--dev]" >&2
    exit 64
    ;;
esac

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() {
  printf 'setup: %s\n' "$1" >&2
  exit "${2:-69}"
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    fail "'$*' needs root: run as root or install sudo"
  fi
}

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "no apt-get here: install yourself: ${missing[*]}"
  say "installing ${#missing[@]} packages of the distribution"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  # The package starts a system broker; posewire's demo and tests start private ones, so it may stay or go.
fi

# A Python with venv and headers; the distribution's own unless the first one on PATH has both.
python=""
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import ensurepip, os, sys, sysconfig
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(sysconfig.get_path("include") + "/Python.h")))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
[ -n "$python" ] || fail "no Python >= 3.11 with venv and headers found (the trainer needs 3.11)"

[ -x .venv/bin/python ] || "$python" -m venv .venv
digest="$(sha256sum pyproject.toml | cut -d' ' -f1)"
wanted="$extras $digest"
# What --dev installed serves the plain call too.
if ! grep -qxF -e "$wanted" -e "train,test $digest" .venv/posewire-requirements 2>/dev/null; then
  say "installing Python packages into .venv (some minutes, about 3 GB)"
  .venv/bin/python scripts/requirements.py "$extras" >.venv/requirements.txt
  .venv/bin/pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
  rm -f .venv/posewire-built
  printf '%s\n' "$wanted" >.venv/posewire-requirements
fi

# The editable install sees new Python files by itself; only C++ and build files ask for another build.
if [ ! -e .venv/posewire-built ] ||
  [ -n "$(find CMakeLists.txt cmake cpp pyproject.toml -newer .venv/posewire-built -type f -print -quit)" ]; then
  say "building the engine and posewire._core"
  touch .venv/posewire-building
  # scikit-build gives CMake seconds to say its version, with CI set four times as many: a busy machine needs them.
  CI="${CI:-1}" .venv/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . ||
    fail "the build failed (see above)" 70
  mv .venv/posewire-building .venv/posewire-built
fi
