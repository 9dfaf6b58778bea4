# SPDX-License-Identifier: Apache-2.0
"""What several folders of tests share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def contract_bundles() -> ModuleType:
    """The module tests/contract_bundles.py (tests are no package: it cannot be imported)."""
    pytest.importorskip("onnx")
    path = Path(__file__).with_name("contract_bundles.py")
    spec = importlib.util.spec_from_file_location("contract_bundles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def contract_bundle(
    contract_bundles: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """contract_bundle(algorithm, precisions=("fp32", "fp16", "int8")) -> the folder of a portable
    bundle, made once a session; never write there."""
    made: dict[tuple[str, tuple[str, ...]], Path] = {}

    def bundle(algorithm: str, precisions: tuple[str, ...] = ("fp32", "fp16", "int8")) -> Path:
        key = (algorithm, precisions)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"contract-{algorithm}") / "bundle"
            made[key] = contract_bundles.write_contract_bundle(folder, algorithm, precisions)
        return made[key]

    return bundle
