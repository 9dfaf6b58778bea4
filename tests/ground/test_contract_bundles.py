# SPDX-License-Identifier: Apache-2.0
"""The contract bundles are bundles: each verifies, and its networks are what its manifest says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posewire import _core
from posewire.bundle import check_onnx, verify_bundle
from posewire.encode import ENCODERS

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxconverter_common")


@pytest.mark.parametrize("algorithm", ENCODERS)
def test_a_bundle_per_algorithm(algorithm: str, contract_bundle: Callable[..., Path]) -> None:
    precisions = ("fp32", "fp16", "int8", "int8-u8")
    folder = contract_bundle(algorithm, precisions)
    manifest = verify_bundle(folder)
    check_onnx(manifest, folder)
    assert tuple(artifact.precision for artifact in manifest.artifacts) == precisions
    decoder = _core.Decoder((folder / "manifest.json").read_text(), 0)
    picture = _core.read_picture(str(folder / manifest.selftest[0]))
    found = {}
    for artifact in manifest.artifacts:
        session = onnxruntime.InferenceSession(folder / artifact.files[0])
        names = [output.name for output in artifact.outputs]
        arrays = session.run(names, {"image": np.stack([picture, picture])})
        found[artifact.precision] = dict(zip(names, arrays, strict=True))
    decoder.decode({name: array[:1] for name, array in found["fp32"].items()})
    for name, expected in found["fp32"].items():
        spread = float(np.abs(expected - expected.mean()).mean())
        assert spread > 0.01, f"{name} says nothing"
        for precision in precisions[1:]:
            difference = np.abs(found[precision][name] - expected).mean()
            assert 0 < difference < 0.5 * spread, (name, precision)
