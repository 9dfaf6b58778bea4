#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy over every C++ file of ours, or over the files named; one a core. Needs build/dev (scripts/test.sh cpp) and,
# for the Python module, the editable install's build (scripts/setup.sh).
# A file that was clean is not looked at again until it, a header or the rules change.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/tidy
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(git ls-files 'cpp/*.cpp'); fi
common="$(git ls-files 'cpp/*.h' 'cpp/*.inc' .clang-tidy | xargs cat | sha256sum | cut -d' ' -f1)"
export common
check() {
  local stamp
  stamp="build/tidy/$(echo "$common $1 $(sha256sum <"$1")" | sha256sum | cut -d' ' -f1)"
  [ -e "$stamp" ] && return 0
  local commands
  for commands in build/dev/compile_commands.json build/cp3*/compile_commands.json; do
    if grep -qsF "/$1\"" "$commands"; then
      clang-tidy-14 -p "$(dirname "$commands")" --quiet "$1" 2>/dev/null && touch "$stamp"
      return
    fi
  done # a file that every build leaves out (an optional runtime) has no compile command
}
export -f check
# shellcheck disable=SC2016  # the inner shell expands it
printf '%s\0' "${files[@]}" | xargs -0 -n1 -P"$(nproc)" bash -c 'check "$1"' _
