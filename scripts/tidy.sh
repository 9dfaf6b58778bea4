#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over every C++ file of ours, or over the files named; two at a time. Needs build/dev (scripts/test.sh cpp).
# A file that was clean is not looked at again until it, a header or the rules change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/tidy
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(git ls-files 'cpp/*.cpp'); fi
common="$(git ls-files 'cpp/*.h' .clang-tidy | xargs cat | sha256sum | cut -d' ' -f1)"
export common
check() {
  local stamp
  stamp="build/tidy/$(echo "$common $1 $(sha256sum <"$1")" | sha256sum | cut -d' ' -f1)"
  [ -e "$stamp" ] && return 0
  # Files that this build leaves out (an optional runtime) have no compile command.
  grep -qF "/$1\"" build/dev/compile_commands.json || return 0
  clang-tidy-14 -p build/dev --quiet "$1" 2>/dev/null && touch "$stamp"
}
export -f check
# shellcheck disable=SC2016  # the inner shell expands it
printf '%s\0' "${files[@]}" | xargs -0 -n1 -P"$(nproc)" bash -c 'check "$1"' _
