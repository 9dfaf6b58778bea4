# SPDX-License-Identifier: Apache-2.0
"""install.sh against folders that look like Jetsons; scripts/arm_proof.sh runs it for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from posewire.targets.errors import TargetError
from posewire.targets.jetpack import jetpacks, l4t_release, this_jetpack

from .conftest import ROOT, Jetson

Make = Callable[[str | None], Jetson]
DROP_IN = "etc/systemd/system/posewire.service.d/10-jetson.conf"
RULES = "etc/udev/rules.d/70-posewire.rules"


@pytest.mark.parametrize(
    ("l4t", "name", "verdict"),
    [
        ("32.7.4", "jetpack-4", "refused"),
        ("35.4.1", "jetpack-5", "engine"),
        ("36.3.0", "jetpack-6", "whole"),
        ("36.4.3", "jetpack-6", "whole"),
        ("38.2.0", "jetpack-7", "whole"),
        ("39.2.0", "jetpack-7", "whole"),
    ],
)
def test_every_jetpack_gets_its_verdict(jetson: Make, l4t: str, name: str, verdict: str) -> None:
    device = jetson(l4t)
    row = this_jetpack(device.root)
    assert row is not None
    assert (row.name, row.verdict) == (name, verdict)
    assert l4t_release(device.root) == l4t
    done = device.install("--no-start")
    assert f"{name} " in done.stdout
    assert row.reason in done.stdout + done.stderr
    if verdict == "refused":
        assert done.returncode == 69
        assert "would run" not in done.stdout
        assert device.files() == {}
    else:
        assert done.returncode == 0, done.stderr
        assert f"apt-get install -y -qq --no-install-recommends {device.deb}" in done.stdout


def test_shell_and_python_read_the_same_table(jetson: Make) -> None:
    device = jetson("36.4.3")
    rows = [row for row in jetpacks().values() if row.verdict != "refused"]
    assert len(rows) == 3
    for row in rows:
        device.write(
            "etc/nv_tegra_release", f"# R{row.l4t[-1]} (release), REVISION: 1.0, GCID: 1\n"
        )
        done = device.install()
        wanted = next(line for line in done.stdout.splitlines() if "recommends" in line)
        assert wanted.split("recommends ")[1].split() == [name.split("|")[-1] for name in row.apt]
        if row.verdict == "whole":  # without a package one is made here, which needs more
            done = device.install(deb=False)
            wanted = next(line for line in done.stdout.splitlines() if "recommends" in line)
            names = [name.split("|")[-1] for name in (*row.apt, *row.apt_build)]
            assert wanted.split("recommends ")[1].split() == names
            assert "would run: bash " in done.stdout
            assert "scripts/package.sh" in done.stdout


def test_prerequisites_that_are_there_are_left_alone(jetson: Make) -> None:
    device = jetson("36.4.3")
    row = jetpacks()["jetpack-6"]
    entries = (*row.apt, *row.apt_build)
    device.has("libopencv-dev", *(entry for entry in entries if "|" not in entry))
    done = device.install(deb=False)  # NVIDIA's libopencv-dev stands for four packages of Ubuntu
    assert "prerequisites are there" in done.stdout
    assert "apt-get update" not in done.stdout


def test_no_jetson_and_an_unknown_one(jetson: Make) -> None:
    device = jetson(None)
    assert this_jetpack(device.root) is None
    done = device.install()
    assert done.returncode == 69
    assert "this is no Jetson" in done.stderr
    device.write("etc/nv_tegra_release", "# R99 (release), REVISION: 1.0\n")
    with pytest.raises(
        TargetError, match=r"R99\.1\.0 is unknown; known are R32, R35, R36, R38, R39"
    ):
        this_jetpack(device.root)
    done = device.install()
    assert done.returncode == 69
    assert "R99 is unknown" in done.stderr
    device.write("etc/nv_tegra_release", "nonsense\n")
    assert "names no release" in device.install().stderr


def test_device_rules_come_from_the_nodes_present(jetson: Make) -> None:
    device = jetson("36.4.3")
    assert DROP_IN not in device.files()
    done = device.install()
    assert "no NVIDIA device nodes" in done.stdout
    device.write("dev/nvmap", "", 0o666)
    device.write("dev/nvhost-gpu", "", 0o660)  # of a group that the service is not in
    device.write("dev/nvgpu/igpu0/ctrl", "", 0o666)
    device.write("dev/video0", "", 0o660)  # a class of its own: not by name
    done = device.install()
    assert done.returncode == 0, done.stderr
    files = device.files()
    allowed = [line for line in files[DROP_IN].splitlines() if line.startswith("DeviceAllow")]
    assert allowed == [
        "DeviceAllow=/dev/nvmap rw",
        "DeviceAllow=/dev/nvhost-gpu rw",
        "DeviceAllow=/dev/nvgpu/igpu0/ctrl rw",
    ]
    rules = [line for line in files[RULES].splitlines() if not line.startswith("#")]
    assert rules == ['KERNEL=="nvhost-gpu", GROUP="video", MODE="0660"']
    assert "would run: udevadm control --reload" in done.stdout


def test_running_it_again_changes_nothing(jetson: Make) -> None:
    device = jetson("36.4.3")
    device.write("dev/nvmap", "", 0o666)
    options = ("--power-mode", "MAXN", "--jetson-clocks")
    assert device.install(*options).returncode == 0
    first = device.files()
    again = device.install(*options)
    assert "wrote:" not in again.stdout
    assert again.stdout.count("unchanged: ") == 2
    assert device.files() == first


def test_power_mode_by_name_and_number(jetson: Make) -> None:
    device = jetson("36.4.3")
    unit = "etc/systemd/system/posewire-power.service"
    done = device.install("--power-mode", "15W")
    assert "ExecStart=/usr/sbin/nvpmodel -m 1" in device.files()[unit].splitlines()
    assert "jetson_clocks" not in device.files()[unit]
    assert "would run: systemctl enable posewire-power.service" in done.stdout
    device.install("--power-mode", "0", "--jetson-clocks")
    assert "ExecStart=/usr/sbin/nvpmodel -m 0" in device.files()[unit].splitlines()
    assert "ExecStart=/usr/bin/jetson_clocks" in device.files()[unit].splitlines()
    before = device.files()
    done = device.install("--power-mode", "turbo")
    assert done.returncode == 64
    assert "known are 0 MAXN, 1 15W" in done.stderr
    assert device.files() == before


def test_a_dry_run_writes_nothing(jetson: Make) -> None:
    device = jetson("36.4.3")
    device.write("dev/nvmap", "", 0o600)
    done = device.install("--dry-run", "--jetson-clocks")
    assert done.returncode == 0, done.stderr
    assert f"would write: /{DROP_IN}" in done.stdout
    assert device.files() == {}


def test_a_configuration_is_installed_once(jetson: Make) -> None:
    device = jetson("36.4.3")
    config = device.root.parent / "mine.toml"
    config.write_text('node = "a"\n')
    done = device.install()
    assert "next: write /etc/posewire/posewire.toml" in done.stdout
    assert "systemctl enable posewire.service" not in done.stdout
    done = device.install("--config", str(config))
    assert "would run: posewire serve --check /etc/posewire/posewire.toml" in done.stdout
    assert "would run: systemctl enable posewire.service" in done.stdout
    assert device.files()["etc/posewire/posewire.toml"] == 'node = "a"\n'
    assert (device.root / "etc/posewire/posewire.toml").stat().st_mode & 0o777 == 0o640
    config.write_text('node = "b"\n')
    assert "yours stays" in device.install("--config", str(config)).stdout
    assert device.files()["etc/posewire/posewire.toml"] == 'node = "a"\n'


def test_jetpack_5_gets_the_engine_and_no_service(jetson: Make) -> None:
    device = jetson("35.4.1")
    device.write("dev/nvmap", "", 0o600)
    done = device.install("--jetson-clocks")
    assert done.returncode == 0, done.stderr
    assert "posewire.service" not in done.stdout
    assert DROP_IN not in device.files()
    done = device.install(deb=False)
    assert done.returncode == 69
    assert "--engine-only" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--turbo",), 64, "unknown option '--turbo'"),
        (("--power-mode",), 64, "--power-mode needs a value"),
        (("--config", "/nowhere.toml"), 66, "/nowhere.toml: no such file"),
    ],
)
def test_bad_calls(jetson: Make, options: tuple[str, ...], code: int, words: str) -> None:
    device = jetson("36.4.3")
    done = device.install(*options, deb=False)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert device.files() == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("verdict =", "verdikt ="), r"jetpack-4\.verdikt: unknown key"),
        (("l4t =", "# l4t ="), r"jetpack-4\.l4t: is missing"),
        (('l4t = ["32"]', "l4t = 32"), r"jetpack-4\.l4t: must be a list of strings"),
        (('"refused"', '"whole"'), r"jetpack-4\.reason: must say why"),
        (('"refused"', '"maybe"'), r"jetpack-4\.verdict: must be whole, engine or refused"),
        (("[jetpack-4]", "[jetpack-4"), "table.toml"),
    ],
)
def test_a_table_with_a_flaw_is_refused(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = (ROOT / "targets/jetson/jetpack.toml").read_text()
    assert change[0] in text
    (tmp_path / "table.toml").write_text(text.replace(*change))
    with pytest.raises(TargetError, match=words):
        jetpacks(tmp_path / "table.toml")
