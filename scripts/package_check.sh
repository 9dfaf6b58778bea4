#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs, uses, upgrades and purges a posewire .deb in a bare Debian 12 made for it. Needs root and debootstrap; for a
# package of another architecture also qemu-user-static, registered (scripts/arm_proof.sh does it). Not a part of test.sh.
#   sudo bash scripts/package_check.sh dist/posewire_0.1.0+debian12_amd64.deb [ROOT]
# ROOT (default build/root-ARCH) is kept for the next call; delete it to start anew.
set -euo pipefail
[ $# -ge 1 ] || {
  echo "usage: package_check.sh FILE.deb [ROOT]" >&2
  exit 64
}
deb="$(readlink -f "$1")"
arch="$(dpkg-deb -f "$deb" Architecture)"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
root="${2:-$repository/build/root-$arch}"
say() { printf '\033[1m== %s\033[0m\n' "$*"; }
fail() {
  printf 'package_check: %s\n' "$1" >&2
  exit 1
}
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
# Everything but logs, caches and the package lists.
tree() { find "$root" -xdev \( -path "$root/var/cache" -o -path "$root/var/log" -o -path "$root/var/lib/apt" \
  -o -path "$root/tmp" -o -path "$root/proc" -o -path "$root/var/lib/dpkg" -o -path "$root/run" \) -prune -o -printf '%P\n' | sort; }

if [ ! -e "$root/etc/debian_version" ]; then
  say "a bare Debian 12 in $root"
  debootstrap --arch="$arch" --variant=minbase bookworm "$root" >"$root.log" || fail "debootstrap failed: $root.log"
fi
cp /etc/resolv.conf /etc/hosts "$root/etc/"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service is started in a folder
chmod 755 "$root/usr/sbin/policy-rc.d"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
trap 'umount "$root/proc" 2>/dev/null || true' EXIT
cp "$deb" "$root/tmp/posewire.deb"

inside dpkg --purge posewire >/dev/null 2>&1 || true
say "dependencies"
inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends systemd >/dev/null
inside apt-get install -y -qq --no-install-recommends /tmp/posewire.deb >/dev/null
inside dpkg --purge posewire >/dev/null
before="$(tree)"

say "dpkg -i"
inside dpkg -i /tmp/posewire.deb
inside posewire --version
inside posewire-engine --version
inside id posewire
[ "$(inside stat -c '%a %U:%G' /etc/posewire)" = "750 root:posewire" ] || fail "/etc/posewire has another mode or owner"

say "units"
inside systemd-analyze verify /usr/lib/systemd/system/posewire.service
if [ -e "$root/usr/lib/systemd/system/posewire-first-boot.service" ]; then
  inside systemd-analyze verify /usr/lib/systemd/system/posewire-first-boot.service
fi

say "the example's configuration is accepted"
cp "$root/usr/share/posewire/posewire.toml.example" "$root/etc/posewire/posewire.toml"
inside posewire serve --check /etc/posewire/posewire.toml

if [ "$arch" = "$(dpkg --print-architecture)" ]; then
  say "the shipped network runs, as the service's user"
  inside setpriv --reuid posewire --regid posewire --clear-groups env XDG_CACHE_HOME=/tmp/posewire-cache \
    posewire run --model /usr/share/posewire/models/coco17-paf-mobilenetv2 \
    --source 'synthetic:?people=3&frames=20' --json /tmp/poses.jsonl
  [ "$(wc -l <"$root/tmp/poses.jsonl")" = 20 ] || fail "20 frames went in, others came out"
fi

say "enabled and upgraded"
inside systemctl enable posewire.service
inside dpkg -i /tmp/posewire.deb >/dev/null
[ -e "$root/etc/posewire/posewire.toml" ] || fail "an upgrade took the configuration away"
[ "$(inside systemctl is-enabled posewire.service)" = enabled ] || fail "an upgrade disabled the service"

say "removed: configuration stays; purged: nothing stays"
inside dpkg --remove posewire >/dev/null
[ -e "$root/etc/posewire/posewire.toml" ] || fail "removing took the configuration away"
inside dpkg --purge posewire >/dev/null
left="$(diff <(echo "$before") <(tree) || true)"
[ -z "$left" ] || fail "purge left or took something: $left"
! inside getent passwd posewire || fail "purge left the user"
say "whole"
