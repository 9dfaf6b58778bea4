# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about this machine: temperature and memory, for the health message."""

from __future__ import annotations

from pathlib import Path


def temperature_c(root: Path = Path("/sys/class/thermal")) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where there is none."""
    readings = []
    for zone in sorted(root.glob("thermal_zone*/temp")):
        try:
            readings.append(int(zone.read_text()) / 1000.0)
        except (OSError, ValueError):  # a zone that is switched off reads as an error
            continue
    return max(readings, default=None)


def memory_mb(pid: int, root: Path = Path("/proc")) -> float | None:
    """Resident memory of a process in MB (10^6 bytes); None when it has gone."""
    try:
        status = (root / str(pid) / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None
