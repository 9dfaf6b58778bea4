# SPDX-License-Identifier: Apache-2.0
"""What a daemon would find around it: cameras and the broker. For ``posewire doctor``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .config import load_config
from .errors import EdgeError
from .link import Broker, Link, LinkError
from .listen import broker_at

LOCAL_BROKER = "mqtt://localhost:1883"
# linux/videodev2.h: VIDIOC_QUERYCAP reads struct v4l2_capability, 104 bytes, device_caps at 88.
_QUERYCAP, _SIZE, _CAPS_AT = 0x80685600, 104, 88
_CAPTURE = 0x1 | 0x1000  # V4L2_CAP_VIDEO_CAPTURE, …_MPLANE


@dataclass(frozen=True)
class CameraDevice:
    """A device that takes pictures. ``why`` it cannot be used; "" where it can."""

    uri: str
    name: str
    why: str


@dataclass(frozen=True)
class BrokerState:
    """Whether a broker answers. ``configured``: the address is a config's, not the default."""

    url: str
    configured: bool
    answers: bool
    why: str
    installed: bool  # mosquitto is here and could be started


def cameras(
    root: Path = Path("/"), can_capture: Callable[[Path], bool | None] | None = None
) -> list[CameraDevice]:
    """V4L2 devices that take pictures, and CSI where NVIDIA's daemon serves it; by name.

    ``can_capture(device)``: False for a device that only gives metadata, None where it cannot be
    asked; for tests.
    """
    ask = can_capture or _can_capture
    found = []
    devices = root / "dev"
    for path in sorted(devices.glob("video[0-9]*"), key=lambda p: int(re.sub(r"\D", "", p.name))):
        if ask(path) is False:
            continue
        label = root / "sys/class/video4linux" / path.name / "name"
        name = ""
        with contextlib.suppress(OSError):
            name = label.read_text(encoding="utf-8", errors="replace").strip()
        why = "" if os.access(path, os.R_OK | os.W_OK) else _WITHOUT_RIGHTS
        found.append(CameraDevice(f"v4l2:/dev/{path.name}", name, why))
    if (root / "tmp/argus_socket").exists():
        found.append(CameraDevice("csi://0", "NVIDIA Argus", ""))
    return found


_WITHOUT_RIGHTS = "no right to open it: sudo usermod -aG video $USER, then log in again"


def _can_capture(path: Path) -> bool | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(_SIZE))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    capabilities: int = struct.unpack_from("=I", answer, _CAPS_AT)[0]
    return bool(capabilities & _CAPTURE)


def broker_state(config: Path | None = None) -> BrokerState:
    """Connects to the config's broker, with its credentials, or to the one on this machine.

    Raises EdgeError for a config that is wrong. Takes some seconds where nothing answers.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin"  # where Debian keeps it, not a user's
    installed = shutil.which("mosquitto", path=path) is not None
    broker = _configured(config) if config is not None else broker_at(LOCAL_BROKER)
    why = ""
    for version in ("5", "3.1.1"):
        link = Link(broker, "", version)
        try:
            link.open()
            link.close()
        except EdgeError as error:
            why = str(error).removeprefix(f"{broker}: ")
            link.drop()
            if isinstance(error, LinkError) and error.cause == "protocol":
                continue
        else:
            why = ""
        break
    return BrokerState(str(broker), config is not None, not why, why, installed)


def _configured(path: Path) -> Broker:
    mqtt = load_config(path).mqtt
    return Broker(
        host=mqtt.host,
        port=mqtt.port,
        tls=mqtt.tls,
        insecure=mqtt.insecure,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        username=mqtt.username,
        password=mqtt.password(),
    )
