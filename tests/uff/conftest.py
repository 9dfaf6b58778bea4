# SPDX-License-Identifier: Apache-2.0
"""The shipped network as UFF, converted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "coco17-paf-mobilenetv2" / "model.onnx"


@pytest.fixture(scope="session")
def shipped() -> Any:
    """(the ONNX file's bytes, the UffNetwork)."""
    from posewire.uff.from_onnx import onnx_to_uff

    data = SHIPPED.read_bytes()
    return data, onnx_to_uff(data, str(SHIPPED))
