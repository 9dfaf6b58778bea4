#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ARM without a board: cross-compiles for arm64 and runs the result in an arm64 Debian 12, emulated by qemu's user mode.
# Not a part of test.sh: it needs root (chroot, mounts, binfmt_misc), 4 GB of disk and the better part of an hour.
#   sudo bash scripts/arm_proof.sh              every part in turn; call it again to go on where it was cut off
#   sudo bash scripts/arm_proof.sh ctest install    only these
# Parts: root     an arm64 Debian 12 with the development packages, by debootstrap
#        build    engine and C++ tests, cross-compiled
#        ctest    the C++ tests, there
#        tflite   real inferences through the engine's TFLite row, there: fp32 and int8, with ai-edge-litert's library
#        package  posewire_VERSION_arm64.deb
#        install  install.sh on a root dressed as a Jetson: package, rules, first start; then purge
# docs/arm.md has the figures and says what this proves and what it does not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository="$PWD"
work="$repository/build/arm64"
root="$work/root"
tree="$work/cmake"
handler=/proc/sys/fs/binfmt_misc/posewire-aarch64
say() { printf '\033[1m== %s (%s)\033[0m\n' "$*" "$(date +%T)"; }
fail() {
  printf 'arm_proof: %s\n' "$1" >&2
  exit "${2:-69}"
}
[ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts"

prerequisites() {
  local name missing=()
  for name in g++-aarch64-linux-gnu qemu-user-static debootstrap cmake ninja-build python3-venv; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] || {
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  }
}

# arm64 programs run anywhere, also as children and in the chroot: F opens the emulator now, so that no path of it is
# looked up there. A handler that is registered already (Debian's own, when systemd runs) serves as well.
emulator() {
  local bits=/proc/sys/fs/binfmt_misc
  mountpoint -q "$bits" || mount -t binfmt_misc binfmt_misc "$bits" || fail "binfmt_misc cannot be mounted"
  if grep -qs '^flags:.*F' "$bits"/qemu-aarch64 "$handler"; then return; fi
  printf '%s' ':posewire-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' >"$bits/register"
}

mounts() {
  mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
  mkdir -p "$root$repository"
  mountpoint -q "$root$repository" || mount --bind "$repository" "$root$repository"
}

leave() {
  umount "$root$repository" 2>/dev/null || true
  umount "$root/proc" 2>/dev/null || true
  [ ! -e "$handler" ] || echo -1 >"$handler"
}

inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root "$@"; }

root_() {
  local packages=(
    python3 python3-dev pkg-config libstdc++-12-dev libgtest-dev libgmock-dev nlohmann-json3-dev libssl-dev
    libavformat-dev libavcodec-dev libavutil-dev libswscale-dev
    libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libopencv-videoio-dev
  )
  if [ ! -e "$root/posewire-root" ]; then
    say "root: a bare Debian 12 for arm64"
    rm -rf --one-file-system "$root"
    mkdir -p "$work"
    debootstrap --arch=arm64 --variant=minbase bookworm "$root" >"$work/debootstrap.log" ||
      fail "debootstrap failed: $work/debootstrap.log"
    touch "$root/posewire-root"
  fi
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service is started in a folder
  chmod 755 "$root/usr/sbin/policy-rc.d"
  mounts
  if ! inside dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    say "root: ${#packages[@]} development packages and theirs"
    inside apt-get update -qq
    inside apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$work/packages.log" 2>&1 ||
      fail "apt-get failed: $work/packages.log"
  fi
}

build() {
  say "build: engine and tests"
  local launcher=()
  if command -v ccache >/dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  # OpenVINO is left out: its wheel cross-links, but an inference did not finish in 200 s under emulation.
  cmake -S . -B "$tree" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPOSEWIRE_OPENVINO=OFF \
    -DCMAKE_TOOLCHAIN_FILE="$repository/targets/jetson/aarch64.cmake" -DPOSEWIRE_SYSROOT="$root" \
    "-DCMAKE_CROSSCOMPILING_EMULATOR=chroot;$root" "${launcher[@]}" >"$work/configure.log" 2>&1 ||
    fail "cmake failed: $work/configure.log" 70
  cmake --build "$tree" --parallel "${POSEWIRE_JOBS:-$(nproc)}"
  file -b "$tree/cpp/app/posewire-engine" | grep -q aarch64 || fail "the engine is not for arm64" 70
}

# Program by program, not case by case: the emulator's own start would be most of the time.
ctest_() {
  local program name began bad=0
  for program in "$tree"/tests/cpp/*_test; do
    name="$(basename "$program")"
    began=$SECONDS
    if timeout 1800 chroot "$root" "$program" --gtest_brief=1 >"$work/$name.log" 2>&1; then
      printf '%-36s %s  %4d s\n' "$name" "$(grep -o '[0-9]* tests from' "$work/$name.log" | head -n 1)" $((SECONDS - began))
    else
      bad=1
      printf '%-36s FAILED: %s\n' "$name" "$work/$name.log"
    fi
  done
  [ $bad = 0 ] || fail "C++ tests failed" 1
}

tflite() {
  local site="$work/litert" version log="$work/infer_tflite.log" program
  version="$(sed -n 's/^ *"\(ai-edge-litert==[^";]*\)".*/\1/p' pyproject.toml | head -n 1)"
  [ -n "$version" ] || fail "pyproject.toml does not pin ai-edge-litert"
  say "tflite: $version for arm64"
  if [ ! -d "$site/ai_edge_litert" ]; then
    python3 -m venv "$work/pip"
    "$work/pip/bin/pip" install -q --target "$site" --no-deps --only-binary :all: --implementation cp \
      --python-version 3.11 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
      --platform manylinux_2_35_aarch64 "$version"
  fi
  # Both networks (fp32, int8) through the engine's row, figures compared; then the contract that every row must keep.
  for program in infer_tflite_test infer_test; do
    inside env LD_LIBRARY_PATH="$site/ai_edge_litert" timeout 1800 "$tree/tests/cpp/$program" >"$log" 2>&1 || {
      tail -n 40 "$log"
      fail "$program failed: $log" 1
    }
    grep -E 'tests? ran|PASSED|SKIPPED' "$log" | head -n 4
    [ "$program" = infer_test ] || ! grep -q SKIPPED "$log" || fail "LiteRT was not found: $log" 1
  done
}

package() {
  say "package"
  bash scripts/package.sh --arch arm64 --root "$root" --out "$work" --compression 1 \
    --jobs "${POSEWIRE_JOBS:-$(nproc)}"
}

# NVIDIA's packages cannot be had here: empty ones of their names stand for them, so that apt has something to install.
stand_ins() {
  local name folder="$work/stand-ins"
  rm -rf "$folder"
  for name in tensorrt python3-libnvinfer; do
    mkdir -p "$folder/$name/DEBIAN"
    printf 'Package: %s\nVersion: 10.3.0~empty\nArchitecture: arm64\nMaintainer: nobody <n@example.invalid>\nDescription: empty, for arm_proof.sh\n' \
      "$name" >"$folder/$name/DEBIAN/control"
    dpkg-deb -Znone --build "$folder/$name" "$folder/$name.deb" >/dev/null
    cp "$folder/$name.deb" "$root/tmp/"
    inside dpkg -i "/tmp/$name.deb" >/dev/null
  done
}

install_() {
  local deb overlay="$work/overlay" device="$work/device.toml" unit
  deb="$(find "$work" -maxdepth 1 -name "posewire_*_arm64.deb" -printf "%T@ %p\n" | sort -n | tail -n 1 | cut -d" " -f2-)"
  [ -n "$deb" ] || fail "no package yet: part 'package' makes it"
  say "install: the root is dressed as a Jetson with JetPack 6"
  inside apt-get install -y -qq --no-install-recommends systemd udev >/dev/null 2>&1
  inside dpkg --purge posewire >/dev/null 2>&1 || true
  rm -rf "$root/etc/posewire" "$root/var/lib/posewire" "$root/opt/posewire" "$root/usr/share/posewire"
  echo '# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64' >"$root/etc/nv_tegra_release"
  printf '< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=15W >\n' >"$root/etc/nvpmodel.conf"
  [ -e "$root/dev/nvmap" ] || mknod -m 0600 "$root/dev/nvmap" c 1 3 # the null device by that name
  echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
  stand_ins
  printf 'node = "auto"\n[bundle]\npath = "/usr/share/posewire/bundle"\ntarget = "arm-cpu"\n[mqtt]\nurl = "mqtt://localhost"\n[cameras.door]\nuri = "synthetic:?people=2"\n' >"$device"
  rm -rf "$overlay"
  bash targets/jetson/overlay.sh "$overlay" --deb "$deb" --bundle models/coco17-paf-mobilenetv2 --config "$device" \
    --power-mode MAXN
  cp -a "$overlay/." "$root/"
  chown -R root:root "$root/opt/posewire" "$root/etc/posewire"

  say "install: what posewire-install.service runs at the first start"
  unit="$root/etc/systemd/system/posewire-install.service"
  # shellcheck disable=SC2046  # the line's words are the command
  inside $(sed -n 's/^ExecStart=\(.*install\.sh.*\)/\1/p' "$unit") | tee "$work/install.log"
  inside posewire --version
  inside posewire-engine --version
  grep -q 'DeviceAllow=/dev/nvmap rw' "$root/etc/systemd/system/posewire.service.d/10-jetson.conf"
  grep -q 'KERNEL=="nvmap"' "$root/etc/udev/rules.d/70-posewire.rules"
  [ -L "$root/etc/systemd/system/multi-user.target.wants/posewire-power.service" ] || fail "the power unit is not enabled" 1
  inside systemd-analyze verify /usr/lib/systemd/system/posewire.service \
    /usr/lib/systemd/system/posewire-first-boot.service /etc/systemd/system/posewire-install.service \
    2> >(grep -v -e nvpmodel -e jetson_clocks >&2 || true) || true

  say "install: again, which changes nothing"
  # shellcheck disable=SC2046
  inside $(sed -n 's/^ExecStart=\(.*install\.sh.*\)/\1/p' "$unit") >"$work/again.log"
  ! grep wrote: "$work/again.log" || fail "the second run wrote something" 1

  say "install: the first start's identity"
  inside posewire first-boot --step identity
  [ "$(inside stat -c '%a %U' /etc/posewire/keys/node.key)" = "600 posewire" ] || fail "node.key has another mode or owner" 1
  inside posewire serve --check /etc/posewire/posewire.toml

  say "install: purged"
  inside dpkg --purge posewire >/dev/null 2>&1
  ! inside getent passwd posewire || fail "purge left the user" 1
  [ ! -e "$root/usr/lib/posewire" ] || fail "purge left /usr/lib/posewire" 1
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(root build ctest tflite package install)
for part in "${parts[@]}"; do
  case "$part" in root | build | ctest | tflite | package | install) ;; *) fail "unknown part '$part' (root build ctest tflite package install)" 64 ;; esac
done
prerequisites
trap leave EXIT
emulator
if [ -e "$root/posewire-root" ]; then mounts; elif [ "${parts[0]}" != root ]; then fail "no root yet: part 'root' makes it"; fi
for part in "${parts[@]}"; do
  began=$SECONDS
  case "$part" in
    root) root_ ;;
    ctest) ctest_ ;;
    install) install_ ;;
    *) "$part" ;;
  esac
  say "$part: $((SECONDS - began)) s"
done
