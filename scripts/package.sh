#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes dist/posewire_VERSION_ARCH.deb: engine, Python packages, units, the shipped network; nothing is fetched when it is
# installed. A package belongs to one distribution (its FFmpeg, OpenCV and Python), so VERSION names it.
#   bash scripts/package.sh                          for this machine's distribution
#   bash scripts/package.sh --arch arm64 --root DIR  for the root file system in DIR (scripts/arm_proof.sh makes one)
#   bash scripts/package.sh --help                   the rest
# Needs the packages that scripts/setup.sh installs, dpkg-deb, and for arm64 g++-aarch64-linux-gnu.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
command -v dpkg-deb >/dev/null || {
  echo "package: dpkg-deb is missing: .deb packages are made on Debian, Ubuntu or JetPack" >&2
  exit 69
}
exec python3 "$repository/scripts/package.py" "$@"
