#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs posewire on a running Jetson. Run it as often as you like: what is there already is left alone.
#   sudo bash targets/jetson/install.sh [OPTIONS]
#     --dry-run           say what would be done; change nothing (needs no root)
#     --deb FILE          install this package; without it one is made here by scripts/package.sh (JetPack 6 and 7)
#     --config FILE       becomes /etc/posewire/posewire.toml where there is none yet
#     --power-mode MODE   number or name of a mode in /etc/nvpmodel.conf; set again at every start of the device
#     --jetson-clocks     fixes the clocks at their maximum at every start
#     --no-start          installs and enables, but starts nothing
#     --root DIR          read and write files below DIR and run no command of the device (tests, images)
# JetPack 6 and 7 get everything, 5 the C++ engine alone, 4 is refused (targets/jetson/jetpack.toml says why).
# Unproven on hardware: docs/jetson.md.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
table="$here/jetpack.toml"

dry_run=no deb="" config="" power_mode="" clocks=no start=yes root=""
fail() { # why, exit code
  printf 'install: %s\n' "$1" >&2
  exit "${2:-69}"
}
say() { printf 'install: %s\n' "$*"; }

while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=yes ;;
    --jetson-clocks) clocks=yes ;;
    --no-start) start=no ;;
    --deb | --config | --power-mode | --root)
      [ $# -ge 2 ] || fail "$1 needs a value" 64
      case "$1" in
        --deb) deb="$2" ;;
        --config) config="$2" ;;
        --power-mode) power_mode="$2" ;;
        --root) root="${2%/}" ;;
      esac
      shift
      ;;
    --help | -h)
      sed -n '3,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "unknown option '$1' (--help lists them)" 64 ;;
  esac
  shift
done
[ -z "$deb" ] || [ -f "$deb" ] || fail "--deb $deb: no such file" 66
[ -z "$config" ] || [ -f "$config" ] || fail "--config $config: no such file" 66
[ -z "$root" ] || [ -d "$root" ] || fail "--root $root: no such folder" 66

# A command of the device: told in a dry run and for a root elsewhere, run otherwise.
act() {
  if [ "$dry_run" = yes ] || [ -n "$root" ]; then say "would run: $*"; else
    say "running: $*"
    "$@"
  fi
}

# Text on stdin becomes a file, written aside and renamed; the same text again changes nothing.
changed=no
put() { # path, mode
  local path="$root$1" text
  text="$(cat)"
  if [ -f "$path" ] && [ "$text" = "$(cat "$path")" ]; then
    say "unchanged: $1"
    return
  fi
  changed=yes
  if [ "$dry_run" = yes ]; then
    say "would write: $1"
    return
  fi
  mkdir -p "$(dirname "$path")"
  printf '%s\n' "$text" >"$path.partial"
  chmod "$2" "$path.partial"
  mv "$path.partial" "$path"
  say "wrote: $1"
}

# A key of a table of jetpack.toml, without quotes; a list as one item a line.
field() { # table, key
  awk -v table="[$1]" -v key="$2" '
    $0 == table { on = 1; next }
    /^\[/ { on = 0 }
    on && $1 == key { sub(/^[^=]*= */, ""); print }' "$table" |
    sed -e 's/^\[//' -e 's/\]$//' -e 's/", *"/\n/g' -e 's/"//g' | sed '/^$/d'
}

# Which JetPack: the row whose l4t holds the release's major.
identify() {
  local release="$root/etc/nv_tegra_release" major row known=""
  [ -r "$release" ] || fail "$release is missing: this is no Jetson. On other machines install the package: apt-get install ./posewire_*.deb"
  major="$(sed -n 's/^# R\([0-9]*\) (release).*/\1/p' "$release" | head -n 1)"
  [ -n "$major" ] || fail "$release: its first line names no release (# R36 (release), …)"
  while read -r row; do
    if field "$row" l4t | grep -qx "$major"; then
      jetpack="$row"
      return
    fi
    known="$known $(field "$row" l4t | sed 's/^/R/' | tr '\n' ' ')"
  done < <(sed -n 's/^\[\(.*\)\]$/\1/p' "$table")
  fail "L4T R$major is unknown here; known are$known"
}

# A mode's number, from its number or name.
power_mode_id() {
  local modes="$root/etc/nvpmodel.conf" listed
  [ -r "$modes" ] || fail "--power-mode: $modes is missing"
  listed="$(sed -n 's/^< *POWER_MODEL *ID=\([0-9]*\) *NAME=\([^ >]*\).*/\1 \2/p' "$modes")"
  awk -v wanted="$power_mode" '$1 == wanted || $2 == wanted { print $1; found = 1; exit }
    END { exit !found }' <<<"$listed" ||
    fail "--power-mode $power_mode: unknown; known are $(tr '\n' ',' <<<"$listed" | sed 's/,$//; s/,/, /g')" 64
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# "a|b" is there when either is; else b is what to install.
prerequisites() {
  local entry name missing=()
  while read -r entry; do
    for name in ${entry//|/ }; do
      if installed "$name"; then continue 2; fi
    done
    missing+=("${entry##*|}")
  done < <(field "$jetpack" apt && { [ -n "$deb" ] || field "$jetpack" apt_build; })
  if [ ${#missing[@]} -eq 0 ]; then
    say "prerequisites are there"
    return
  fi
  act apt-get update -qq
  act env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

package() {
  local repository
  if [ -z "$deb" ] && [ "$verdict" = engine ]; then
    fail "JetPack 5's tools are too old to build posewire: make the engine's package on a desktop (bash scripts/package.sh --arch arm64 --engine-only --root JETPACK_5_ROOTFS) and give it with --deb"
  fi
  if [ -z "$deb" ]; then
    repository="$(cd "$here/../.." && pwd)"
    [ -f "$repository/scripts/package.sh" ] || fail "no package to install: give one with --deb (this is no checkout to make it from)"
    act bash "$repository/scripts/package.sh" --out "$repository/dist"
    deb="$(find "$repository/dist" -name 'posewire_*.deb' -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-)"
    [ -n "$deb" ] || deb="$repository/dist/posewire_VERSION_arm64.deb" # a dry run made none
  fi
  act env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$(readlink -f "$deb" || echo "$deb")"
}

# NVIDIA's nodes that are there now. New ones (another JetPack) need another run.
nodes() {
  local pattern node
  for pattern in nvmap 'nvhost-*' 'nvgpu/igpu0/*' 'nvidia*' 'nvsciipc' 'host1x-fence' 'v4l2-nv*' 'dri/renderD*'; do
    for node in "$root"/dev/$pattern; do
      if [ -e "$node" ] && [ ! -d "$node" ]; then echo "${node#"$root"}"; fi
    done
  done
}

# The unit closes every device but cameras and GPUs by class; NVIDIA's nodes belong to no class and are opened by name.
device_rules() {
  local found node mode group rules=""
  found="$(nodes)"
  if [ -z "$found" ]; then
    say "no NVIDIA device nodes in $root/dev: no rules for them"
    return
  fi
  {
    echo "# Made by targets/jetson/install.sh from the nodes that it found; run it again after an update of JetPack."
    echo "[Unit]"
    echo "PartOf=nvargus-daemon.service"
    echo "[Service]"
    while read -r node; do echo "DeviceAllow=$node rw"; done <<<"$found"
    echo "# CSI cameras are spoken to through this socket, which PrivateTmp would hide."
    echo "BindPaths=-/tmp/argus_socket"
  } | put /etc/systemd/system/posewire.service.d/10-jetson.conf 0644
  while read -r node; do
    # 0440 root:video, as nvmap has it, is enough; so is 0666.
    read -r mode group < <(stat -c '%a %G' "$root$node")
    case "$group" in video | render) [ $((8#$mode & 8#040)) -eq 0 ] || continue ;; esac
    [ $((8#$mode & 8#004)) -eq 0 ] || continue
    rules+="KERNEL==\"$(basename "$node")\", GROUP=\"video\", MODE=\"0660\""$'\n'
  done <<<"$found"
  if [ -n "$rules" ]; then
    { echo "# Made by targets/jetson/install.sh: nodes that neither video nor render may open." && printf '%s' "$rules"; } |
      put /etc/udev/rules.d/70-posewire.rules 0644
    if [ -n "$root" ] || [ -S /run/udev/control ]; then # no udev in an image that is being made
      act udevadm control --reload
      act udevadm trigger
    fi
  fi
}

power() {
  [ -n "$power_mode" ] || [ "$clocks" = yes ] || return 0
  {
    echo "# Made by targets/jetson/install.sh."
    echo "[Unit]"
    echo "Description=power mode and clocks for posewire"
    echo "After=nvpmodel.service"
    echo "Before=posewire.service"
    echo "[Service]"
    echo "Type=oneshot"
    echo "RemainAfterExit=yes"
    echo "# Some modes ask on the terminal whether to restart; with nothing to read they change at the next start."
    echo "StandardInput=null"
    [ -z "$power_mode" ] || echo "ExecStart=/usr/sbin/nvpmodel -m $mode_id"
    [ "$clocks" = no ] || echo "ExecStart=/usr/bin/jetson_clocks"
    echo "[Install]"
    echo "WantedBy=multi-user.target"
  } | put /etc/systemd/system/posewire-power.service 0644
  act systemctl enable posewire-power.service
  [ "$start" = no ] || [ ! -d /run/systemd/system ] || act systemctl start posewire-power.service
}

service() {
  local running=no
  [ ! -d /run/systemd/system ] || running=yes
  if [ -n "$config" ]; then
    if [ -e "$root/etc/posewire/posewire.toml" ]; then
      say "unchanged: /etc/posewire/posewire.toml (yours stays; --config $config is not used)"
    else
      put /etc/posewire/posewire.toml 0640 <"$config"
      act chown root:posewire /etc/posewire/posewire.toml
    fi
  fi
  [ "$running" = no ] || [ "$changed" = no ] || act systemctl daemon-reload
  if [ ! -e "$root/etc/posewire/posewire.toml" ] && { [ -z "$config" ] || [ "$dry_run" = no ]; }; then
    say "next: write /etc/posewire/posewire.toml (example: /usr/share/posewire/posewire.toml.example) and run this again"
    return
  fi
  act posewire serve --check /etc/posewire/posewire.toml
  act systemctl enable posewire.service
  if [ "$start" = no ] || [ "$running" = no ]; then
    say "not started; it starts with the device, or now: systemctl start posewire"
  else
    act systemctl restart posewire.service
  fi
}

identify
verdict="$(field "$jetpack" verdict)" reason="$(field "$jetpack" reason)"
say "$jetpack (Ubuntu $(field "$jetpack" ubuntu), TensorRT $(field "$jetpack" tensorrt)): $verdict"
[ "$verdict" != refused ] || fail "$reason"
[ -z "$reason" ] || say "$reason"
mode_id=""
if [ -n "$power_mode" ]; then mode_id="$(power_mode_id)"; fi
[ "$dry_run" = yes ] || [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "needs root: sudo bash $0 …, or --dry-run"
prerequisites
package
if [ "$verdict" = whole ]; then device_rules; fi
power
if [ "$verdict" = whole ]; then service; else
  say "the engine is /usr/bin/posewire-engine: posewire-engine --config engine.json (docs/jetson.md)"
fi
say "done"
