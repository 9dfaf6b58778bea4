#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a tree to be copied over the root file system that NVIDIA's flash tools write (Linux_for_Tegra/rootfs), so that
# a device that was flashed with it installs posewire at its first start, names itself, makes its keys, compiles the
# bundle and starts the daemon.
#   bash targets/jetson/overlay.sh OUT_DIR --deb FILE --bundle DIR --config FILE [OPTIONS]
#     --deb FILE          posewire's package for that JetPack (scripts/package.sh --arch arm64 --root …/rootfs)
#     --bundle DIR        a portable bundle; it comes to lie in /usr/share/posewire/bundle
#     --config FILE       posewire.toml for every device: node = "auto", [bundle] path = "/usr/share/posewire/bundle"
#     --public-key FILE   becomes /etc/posewire/bundle.pub
#     --ca FILE           becomes /etc/posewire/ca.pem
#     --password FILE     becomes /etc/posewire/mqtt.password
#     --power-mode MODE, --jetson-clocks    handed to install.sh on the device
# OUT_DIR must not exist; it appears when it is whole. Unproven on hardware: docs/jetson.md.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
fail() { # why, exit code
  printf 'overlay: %s\n' "$1" >&2
  exit "${2:-64}"
}

out="" deb="" bundle="" config="" public_key="" ca="" password="" install_options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --deb | --bundle | --config | --public-key | --ca | --password | --power-mode)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$1" in
        --deb) deb="$2" ;;
        --bundle) bundle="$2" ;;
        --config) config="$2" ;;
        --public-key) public_key="$2" ;;
        --ca) ca="$2" ;;
        --password) password="$2" ;;
        --power-mode)
          [[ "$2" =~ ^[A-Za-z0-9_.-]+$ ]] || fail "--power-mode $2: is no mode's number or name"
          install_options+=(--power-mode "$2")
          ;;
      esac
      shift
      ;;
    --jetson-clocks) install_options+=(--jetson-clocks) ;;
    --help | -h)
      sed -n '3,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*) fail "unknown option '$1' (--help lists them)" ;;
    *)
      [ -z "$out" ] || fail "more than one OUT_DIR: $out, $1"
      out="${1%/}"
      ;;
  esac
  shift
done
if [ -z "$out" ] || [ -z "$deb" ] || [ -z "$bundle" ] || [ -z "$config" ]; then
  fail "OUT_DIR, --deb, --bundle and --config are needed (--help)"
fi
[ ! -e "$out" ] || fail "$out exists; name a folder that does not" 73
for file in "$deb" "$config" $public_key $ca $password; do [ -f "$file" ] || fail "$file: no such file" 66; done

# What would only fail on the device, weeks later and far away, fails here.
name="$(dpkg-deb -f "$deb" Package 2>/dev/null)" || fail "$deb: is no Debian package" 65
arch="$(dpkg-deb -f "$deb" Architecture)"
[ "$name" = posewire ] || fail "$deb: holds $name, not posewire" 65
[ "$arch" = arm64 ] || fail "$deb: is for $arch; a Jetson is arm64" 65
[ -f "$bundle/manifest.json" ] || fail "$bundle/manifest.json: no such file: is it a bundle?" 65
python3 - "$bundle" <<'PYTHON' || exit 65
import hashlib, json, os, sys
folder = sys.argv[1]
try:
    manifest = json.load(open(os.path.join(folder, "manifest.json"), encoding="utf-8"))
    if manifest.get("target") is not None:
        sys.exit(f"overlay: {folder}: is compiled; a device compiles a portable bundle itself")
    for name, entry in manifest["files"].items():
        with open(os.path.join(folder, name), "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != entry["sha256"]:
                sys.exit(f"overlay: {folder}/{name}: is not what the manifest says (sha256)")
except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    sys.exit(f"overlay: {folder}: is no whole bundle: {error!r}")
PYTHON
grep -Eq '^node *= *"' "$config" || fail "$config: no line 'node = \"auto\"' (or a name)" 78
grep -Eq '^path *= *"/usr/share/posewire/bundle"' "$config" ||
  fail "$config: [bundle] must say path = \"/usr/share/posewire/bundle\", where the bundle will lie" 78

tree="$out.partial"
rm -rf "$tree"
mkdir -p "$tree/opt/posewire" "$tree/usr/share/posewire/bundle" \
  "$tree/etc/systemd/system/multi-user.target.wants"
install -d -m 0750 "$tree/etc/posewire"
install -m 0644 "$deb" "$tree/opt/posewire/posewire.deb"
install -m 0755 "$here/install.sh" "$tree/opt/posewire/install.sh"
install -m 0644 "$here/jetpack.toml" "$tree/opt/posewire/jetpack.toml"
for file in "$bundle"/*; do install -m 0644 "$file" "$tree/usr/share/posewire/bundle/"; done
install -m 0640 "$config" "$tree/etc/posewire/first-boot.toml"
[ -z "$public_key" ] || install -m 0644 "$public_key" "$tree/etc/posewire/bundle.pub"
[ -z "$ca" ] || install -m 0644 "$ca" "$tree/etc/posewire/ca.pem"
[ -z "$password" ] || install -m 0600 "$password" "$tree/etc/posewire/mqtt.password"
cat >"$tree/etc/systemd/system/posewire-install.service" <<UNIT
# Made by targets/jetson/overlay.sh. Once, at the first start: the package and this device's rules, then
# posewire-first-boot.service, which the package brings. Tried again until it works: packages may have to be fetched.
[Unit]
Description=posewire: installation at the first start
ConditionPathExists=!/var/lib/posewire-installed
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/opt/posewire/install.sh --deb /opt/posewire/posewire.deb --no-start${install_options[*]:+ ${install_options[*]}}
ExecStart=/usr/bin/touch /var/lib/posewire-installed
ExecStartPost=/usr/bin/env systemctl enable --now --no-block posewire-first-boot.service
TimeoutStartSec=infinity
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=64 65

[Install]
WantedBy=multi-user.target
UNIT
chmod 0644 "$tree/etc/systemd/system/posewire-install.service"
ln -s ../posewire-install.service "$tree/etc/systemd/system/multi-user.target.wants/posewire-install.service"
mv "$tree" "$out"
printf 'overlay: %s: %s\n' "$out" "$(du -sh "$out" | cut -f1)"
printf 'overlay: next: sudo rsync -a --chown=root:root %s/ Linux_for_Tegra/rootfs/\n' "$out"
