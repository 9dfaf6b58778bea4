# SPDX-License-Identifier: Apache-2.0
"""posewire doctor on machines that are written down: what each is, compiles, runs, and lacks."""

from __future__ import annotations

import ctypes
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest
from posewire.cli import doctor, program
from posewire.edge import surroundings
from posewire.edge.surroundings import BrokerState, CameraDevice, cameras
from posewire.targets import cuda, examine, machine
from posewire.targets.cuda import Cuda, Gpu

import posewire
from posewire import _core
from posewire.errors import ExitCode

ORIN = Cuda((Gpu("Orin", 87, 64_000),), "12.6", "540.4.0")
THOR = Cuda((Gpu("Thor", 110, 128_000),), "13.0", "580.00")
XAVIER = Cuda((Gpu("Xavier", 72, 32_000),), "11.4", "")
NANO = Cuda((Gpu("NVIDIA Tegra X1", 53, 4_000),), "10.2", "")
RTX = Cuda((Gpu("NVIDIA GeForce RTX 4090", 89, 24_000),), "13.0", "580.95.05")
NOTHING = Cuda(why="no NVIDIA driver (libcuda.so.1)")


def root(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def jetson(folder: Path, model: str, release: str, system: str) -> Path:
    major, revision = release.split(".", 1)
    return root(
        folder,
        {
            "proc/device-tree/model": model + "\0",
            "etc/nv_tegra_release": f"# R{major} (release), REVISION: {revision}, GCID: 1\n",
            "etc/os-release": f'NAME="Ubuntu"\nPRETTY_NAME="{system}"\n',
            "proc/cpuinfo": "".join(f"processor\t: {i}\nBogoMIPS\t: 62.50\n\n" for i in range(8)),
            "proc/meminfo": "MemTotal:       31250000 kB\nMemFree: 1 kB\n",
        },
    )


Make = Callable[..., machine.Machine]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(what=Cuda, architecture=, files or a root) -> the machine, and as such to the rest."""

    def one(where: Path, what: Cuda, architecture: str) -> machine.Machine:
        monkeypatch.setattr(cuda, "look", lambda *_, **__: what)
        monkeypatch.setattr(machine, "look", lambda *_, **__: what)
        monkeypatch.setattr(platform, "machine", lambda: architecture)
        return machine.this_machine(where)

    return one


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """runtimes(tensorrt="10.3.0") -> Python's bindings and the engine's row of that version."""

    def bring(**versions: str) -> None:
        rows = [row for row in _core.runtimes() if row["name"] not in versions]
        for name, version in versions.items():
            module = ModuleType(name)
            module.__version__ = version  # type: ignore[attr-defined]
            module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
            module.ComputeCapability = SimpleNamespace(__members__={})  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, name, module)
            rows.append({"name": name, "version": version, "available": True, "why": ""})
        monkeypatch.setattr(_core, "runtimes", lambda: rows)

    return bring


def states(one: machine.Machine) -> dict[str, str]:
    return {verdict.name: verdict.state for verdict in examine.examine(one)}


def test_an_orin_with_everything(tmp_path: Path, make: Make, runtimes: Callable[..., None]) -> None:
    here = jetson(tmp_path, "NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "Ubuntu 22.04.5 LTS")
    one = make(here, ORIN, "aarch64")
    assert one.model == "NVIDIA Jetson AGX Orin Developer Kit"
    assert (one.cores, one.memory_mb, one.system) == (8, 32_000, "Ubuntu 22.04.5 LTS")
    assert one.jetson == machine.Jetson("36.4.3", "JetPack 6", "whole", "")
    runtimes(tensorrt="10.3.0")
    found = {verdict.name: verdict for verdict in examine.examine(one)}
    assert found["jetson-orin"].state == "runs"
    assert found["jetson-orin"].compiles == ("fp16", "int8", "fp32")
    for name in ("jetson-thor", "jetson-xavier", "jetson-nano", "x86-cpu"):
        assert found[name].state == "other"
    assert found["jetson-thor"].why == "GPUs of sm_101, sm_110"


def test_an_orin_without_tensorrt(tmp_path: Path, make: Make) -> None:
    here = jetson(tmp_path, "NVIDIA Jetson Orin Nano", "36.4.3", "Ubuntu 22.04.5 LTS")
    one = make(here, ORIN, "aarch64")
    found = {verdict.name: verdict for verdict in examine.examine(one)}
    assert found["jetson-orin"].state == "no"
    assert "bindings cannot be loaded" in found["jetson-orin"].why
    assert "sudo apt install tensorrt python3-libnvinfer" in found["jetson-orin"].install[0]


def test_an_engine_of_another_tensorrt(
    tmp_path: Path, make: Make, runtimes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would build plans that the engine refuses is told, not found out in the night."""
    one = make(jetson(tmp_path, "Orin", "36.4.3", "Ubuntu"), ORIN, "aarch64")
    runtimes(tensorrt="10.3.0")
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "8.6.2")
    found = {verdict.name: verdict for verdict in examine.examine(one)}
    assert found["jetson-orin"].state == "no"
    assert "Python's TensorRT is 8.6.2, the engine runs 10.3.0" in found["jetson-orin"].why


def test_a_thor(tmp_path: Path, make: Make, runtimes: Callable[..., None]) -> None:
    here = jetson(tmp_path, "NVIDIA Jetson AGX Thor", "38.4.0", "Ubuntu 24.04.3 LTS")
    one = make(here, THOR, "aarch64")
    assert one.jetson is not None
    assert (one.jetson.jetpack, one.jetson.verdict) == ("JetPack 7", "whole")
    runtimes(tensorrt="10.13.3.9")
    assert states(one)["jetson-thor"] == "runs"
    assert states(one)["jetson-orin"] == "other"


@pytest.mark.parametrize(
    ("model", "release", "gpu", "target", "verdict", "why"),
    [
        ("NVIDIA Jetson AGX Xavier", "35.4.1", XAVIER, "jetson-xavier", "engine", "JetPack 5"),
        ("NVIDIA Jetson Nano", "32.7.4", NANO, "jetson-nano", "refused", "JetPack 4"),
    ],
)
def test_boards_that_are_not_whole(
    model: str,
    release: str,
    gpu: Cuda,
    target: str,
    verdict: str,
    why: str,
    tmp_path: Path,
    make: Make,
    runtimes: Callable[..., None],
) -> None:
    """Also with TensorRT there: it is too old, or has no bindings for our Python."""
    one = make(jetson(tmp_path, model, release, "Ubuntu"), gpu, "aarch64")
    runtimes(tensorrt="8.5.2.2")
    assert one.jetson is not None
    assert (one.jetson.verdict, one.jetson.jetpack) == (verdict, why)
    found = {one.name: one for one in examine.examine(one)}
    assert (found[target].state, found[target].install) == ("no", ())
    assert why in found[target].why
    assert found["jetson-orin"].state == "other"


def test_an_unknown_release_is_said(tmp_path: Path, make: Make) -> None:
    one = make(jetson(tmp_path, "Orin", "99.1", "Ubuntu"), ORIN, "aarch64")
    assert one.jetson is not None
    assert one.jetson.verdict == "unknown"
    assert "R99.1" in one.jetson.reason


def pc(folder: Path) -> Path:
    return root(
        folder,
        {
            "sys/class/dmi/id/sys_vendor": "ACME\n",
            "sys/class/dmi/id/product_name": "Tower 7\n",
            "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
            "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
            "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",
            "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: A Processor @ 4 GHz\n",
            "etc/os-release": "PRETTY_NAME=Debian GNU/Linux 12\n",
        },
    )


def test_a_pc_whose_gpu_has_no_driver(tmp_path: Path, make: Make) -> None:
    one = make(pc(tmp_path), NOTHING, "x86_64")
    assert (one.model, one.processor, one.jetson) == ("ACME Tower 7", "A Processor @ 4 GHz", None)
    assert one.nvidia_without_driver
    broker = BrokerState("mqtt://localhost:1883", False, True, "", True)
    advice = list(doctor._advice(one, [], [], broker, [{}]))
    assert advice == ["for the NVIDIA GPU: its driver, from your distribution"]


def test_a_pc_with_an_rtx_gpu(tmp_path: Path, make: Make, runtimes: Callable[..., None]) -> None:
    one = make(pc(tmp_path), RTX, "x86_64")
    assert not one.nvidia_without_driver
    runtimes(tensorrt_rtx="1.7.1.116")
    assert states(one)["x86-rtx"] == "runs"
    assert states(one)["x86-cpu"] == "runs"
    assert states(one)["jetson-orin"] == "other"


def test_a_broken_library_stops_nobody(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(jetson(tmp_path, "Orin", "39.2.0", "Ubuntu"), ORIN, "aarch64")
    from posewire.targets import tensorrt

    def broken(name: str) -> Any:
        raise OSError("libnvdla_compiler.so: cannot open shared object file")

    monkeypatch.setattr(tensorrt, "import_module", broken)
    found = {verdict.name: verdict for verdict in examine.examine(one)}
    assert found["jetson-orin"].state == "no"
    assert "libnvdla_compiler.so" in found["jetson-orin"].why


# ---- CUDA's own library


class Driver:
    """libcuda as far as cuda.py calls it."""

    def __init__(self, status: int = 0, count: int = 1) -> None:
        self.status, self.count = status, count

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, to: Any) -> None:  # noqa: N802
        to._obj.value = 12060

    def cuDeviceGetCount(self, to: Any) -> None:  # noqa: N802
        to._obj.value = self.count

    def cuDeviceGet(self, to: Any, index: int) -> None:  # noqa: N802
        to._obj.value = index

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> None:  # noqa: N802
        ctypes.memmove(name, b"Orin\0", 5)

    def cuDeviceGetAttribute(self, to: Any, which: int, device: Any) -> None:  # noqa: N802
        to._obj.value = {75: 8, 76: 7}[which]

    def cuDeviceTotalMem_v2(self, to: Any, device: Any) -> None:  # noqa: N802
        to._obj.value = 64_000_000_000


def test_what_the_driver_says(tmp_path: Path) -> None:
    here = root(tmp_path, {"proc/driver/nvidia/version": "NVRM version: NVIDIA 540.4.0 Release"})
    found = cuda.look(lambda name: Driver(), here)
    assert found == Cuda((Gpu("Orin", 87, 64_000),), "12.6", "540.4.0")
    assert str(found.gpus[0]) == "Orin (sm_87)"
    assert "CUDA error 3" in cuda.look(lambda name: Driver(status=3), tmp_path).why
    assert "sees no GPU" in cuda.look(lambda name: Driver(status=100), tmp_path).why
    assert "sees no GPU" in cuda.look(lambda name: Driver(count=0), tmp_path).why

    def absent(name: str) -> Any:
        raise OSError(name)

    assert cuda.look(absent, tmp_path).why == "no NVIDIA driver (libcuda.so.1)"


# ---- cameras


def test_cameras(tmp_path: Path) -> None:
    here = root(
        tmp_path,
        {
            "dev/video10": "",
            "dev/video0": "",
            "dev/video1": "",
            "tmp/argus_socket": "",
            "sys/class/video4linux/video0/name": "A camera: A camera\n",
        },
    )
    found = cameras(here, lambda path: path.name != "video1")
    assert [device.uri for device in found] == ["v4l2:/dev/video0", "v4l2:/dev/video10", "csi://0"]
    assert found[0] == CameraDevice("v4l2:/dev/video0", "A camera: A camera", "")
    assert surroundings._can_capture(here / "dev/video0") is None  # no device answers there


# ---- the verb


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        surroundings,
        "broker_state",
        lambda config: BrokerState("mqtt://localhost:1883", False, False, "refused", False),
    )


@pytest.mark.usefixtures("no_broker")
def test_the_report_follows_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert program(["doctor", "--json"]) == ExitCode.OK  # OpenVINO runs where the tests run
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    folder = Path(str(posewire.__file__)).parent / "schemas"
    jsonschema.validate(report, json.loads((folder / "doctor.json").read_text()))
    assert {one["name"] for one in report["targets"]} >= {"x86-cpu", "x86-rtx", "jetson-orin"}
    assert any("mosquitto" in line for line in report["advice"])


@pytest.mark.usefixtures("no_broker")
def test_the_report_for_a_person(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make(jetson(tmp_path, "NVIDIA Jetson Nano", "32.7.4", "Ubuntu 18.04"), NANO, "aarch64")
    monkeypatch.setattr(machine, "this_machine", lambda: one)
    monkeypatch.setenv("COLUMNS", "100")
    searched = "its plug-in was not found (/usr/lib/one.so, /usr/lib/two.so): build it"
    absent = [
        {"name": "openvino", "version": "", "available": False, "why": "not built in"},
        {"name": "tensorrt", "version": "", "available": False, "why": f"tensorrt: {searched}"},
    ]
    monkeypatch.setattr(_core, "runtimes", lambda: absent)
    assert program(["doctor"]) == ExitCode.NO  # nothing runs there
    text = capsys.readouterr().out
    for said in ("NVIDIA Jetson Nano", "JetPack 4 (L4T 32.7.4)", "✗  jetson-nano", "elsewhere"):
        assert said in text
    assert "sudo apt install mosquitto" in text
    assert "not OpenVINO: not built in" in text
    assert "not TensorRT: its plug-in was not found: build it" in text
