# SPDX-License-Identifier: Apache-2.0
"""TensorRT-RTX parses and builds every ONNX file that a fresh export makes for Jetsons.

Shipped bundles and the other algorithms are compiled in tests/targets/test_tensorrt_rtx.py.

Needs `pip install tensorrt-rtx-cu13==1.7.1.116`, here or in the environment of the interpreter
that POSEWIRE_RTX_PYTHON names (the libraries are NVIDIA's: installed for the test, never shipped).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posewire.bundle import read_manifest

CHECK = Path(__file__).with_name("rtx_check.py")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def python() -> str:
    interpreter = os.environ.get("POSEWIRE_RTX_PYTHON", sys.executable)
    probe = [interpreter, "-c", "import tensorrt_rtx"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"tensorrt_rtx is not installed for {interpreter}")
    return interpreter


def built(python: str, folder: Path, precisions: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """rtx_check.py's verdict by precision, for a bundle's artifacts."""
    manifest = read_manifest(folder)
    files = {
        str(folder / artifact.files[0]): artifact.precision
        for artifact in manifest.artifacts
        if artifact.format == "onnx" and artifact.precision in precisions
    }
    command = [python, str(CHECK), str(manifest.input.width), str(manifest.input.height), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(files), done.stderr[-400:]
    return {files[line["file"]]: line for line in lines}


def test_a_fresh_export_builds(python: str, exported: Any) -> None:
    verdicts = built(python, exported[0], ("fp32", "fp16", "int8"))
    assert {p: v["built"] for p, v in verdicts.items()} == dict.fromkeys(verdicts, True), verdicts
    assert set(verdicts) == {"fp32", "fp16", "int8"}


def test_asymmetric_activations_are_what_it_refuses(python: str, exported: Any) -> None:
    """Why there are two quantised files; should this ever pass, one would do."""
    verdict = built(python, exported[0], ("int8-u8",))["int8-u8"]
    assert not verdict["parsed"]
    assert "zeroPoint" in verdict["why"]
