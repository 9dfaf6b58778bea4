# SPDX-License-Identifier: Apache-2.0
"""TensorRT-RTX really compiles: every shipped bundle and a bundle per algorithm, in each precision.

No GPU is needed to build, and none to be had here: the gate is pending, which is part of the test.
Needs the extra `rtx` (the libraries are NVIDIA's: installed for the test, never shipped).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posewire.targets import TargetError, compile_bundle, load_recipe, tensorrt_rtx
from posewire.targets.compiler import compiler_of

from posewire.bundle import read_manifest, verify_bundle, write_bundle
from posewire.encode import ENCODERS
from posewire.errors import ExitCode

trt = pytest.importorskip("tensorrt_rtx")
onnx = pytest.importorskip("onnx")
SHIPPED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "models").glob("*/manifest.json")
)
RECIPE = load_recipe("x86-rtx")
PRECISIONS = ("fp32", "fp16", "int8")


def compiled(folder: Path, precision: str) -> Path:
    """Compiles, checks what every result must have, and returns its folder."""
    result = compile_bundle(folder, "x86-rtx", precision)
    why = tensorrt_rtx.runs_here(RECIPE)
    assert result.pending == why
    assert result.gate is not None
    if why is not None:
        assert result.gate.kind == "pending"
    made, source = verify_bundle(result.path), read_manifest(folder)
    assert made.target is not None
    assert made.target.runtime == "tensorrt_rtx"
    assert made.target.runtime_version == ".".join(trt.__version__.split(".")[:3])
    assert (made.target.precision, made.target.max_batch) == (precision, RECIPE.max_batch)
    (artifact,) = made.artifacts
    assert (artifact.format, artifact.files) == ("tensorrt_rtx", ("model.plan",))
    assert (artifact.input.layout, artifact.input.dtype) == ("NHWC", "uint8")
    assert [one.name for one in artifact.outputs] == [one.name for one in source.outputs]
    assert made.derived_from is not None
    assert made.derived_from.sha256 == source.sha256
    return result.path


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("algorithm", ENCODERS)
def test_every_algorithm(
    algorithm: str, precision: str, contract_bundle: Callable[..., Path]
) -> None:
    compiled(contract_bundle(algorithm), precision)


def test_what_the_engine_depends_on_makes_it_again(
    contract_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another library, driver or device: the old entry is left alone, a new one is built."""
    folder = contract_bundle("simcc")
    first = compile_bundle(folder, "x86-rtx", "fp16")
    assert compile_bundle(folder, "x86-rtx", "fp16").cached
    paths = {first.path}
    for name in ("version", "driver", "device"):
        with monkeypatch.context() as changed:
            changed.setattr(tensorrt_rtx, name, lambda recipe: "another")
            result = compile_bundle(folder, "x86-rtx", "fp16")
        assert not result.cached
        paths.add(result.path)
        own = compile_bundle(folder, "x86-rtx", "fp16")
        assert (own.cached, own.path) == (True, first.path)
    assert len(paths) == 4
    smaller = compile_bundle(folder, "x86-rtx", "fp16", max_batch=2)
    assert not smaller.cached


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_bundle(folder: Path) -> None:
    sizes = {}
    for precision in PRECISIONS:
        plan = compiled(folder, precision) / "model.plan"
        sizes[precision] = plan.stat().st_size
    weights = (folder / "model.onnx").stat().st_size
    assert sizes["fp32"] > 0.9 * weights
    assert sizes["fp16"] < 0.7 * sizes["fp32"]  # typed as it should be, not converted back
    assert compile_bundle(folder, "x86-rtx", "fp16").cached


def test_float_inputs_get_their_normalisation_inside(
    contract_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    """A network from elsewhere: float32 NCHW in, mean and std in the manifest."""
    whole = contract_bundle("paf", ("fp32",))
    model = onnx.load(whole / "model.onnx")
    # Without cast, transpose, scale and offset: what follows the Add takes the planes themselves.
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    kept = list(model.graph.node)[list(model.graph.node).index(first) :]
    first.input[0] = "image"
    del model.graph.node[:]
    model.graph.node.extend(kept)
    width, height = 96, 64
    shape = ["batch", 3, height, width]
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)
    model.graph.input[0].CopyFrom(value)
    raw = {key: value for key, value in read_manifest(whole).raw.items() if key != "files"}
    given = {"layout": "NCHW", "dtype": "float32", "mean": [127.5] * 3, "std": [127.5] * 3}
    raw["artifacts"] = [{**raw["artifacts"][0], "input": given}]
    write_bundle(tmp_path / "other", raw, {"model.onnx": model.SerializeToString()})
    compiled(tmp_path / "other", "fp32")

    from posewire.targets.onnx_input import with_picture_input

    manifest = read_manifest(tmp_path / "other")
    adapted = with_picture_input(tmp_path / "other" / "model.onnx", manifest, manifest.artifacts[0])
    onnxruntime = pytest.importorskip("onnxruntime")
    pictures = np.random.default_rng(5).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    results = [
        onnxruntime.InferenceSession(graph).run(["heatmaps", "pafs"], {"image": pictures})
        for graph in ((whole / "model.onnx").read_bytes(), adapted)
    ]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("capabilities", "why"),
    [([75, 89, 120], None), ([90], "not for sm_90"), ([87], "not for sm_87")],
)
def test_the_kinds_of_gpu(
    capabilities: list[int], why: str | None, contract_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, options={"compute_capabilities": capabilities})
    missing = compiler_of(recipe).missing("fp16", recipe)
    folder = contract_bundle("paf")
    manifest = read_manifest(folder)
    artifact = manifest.artifacts[1]

    def build() -> Any:
        source = folder / artifact.files[0]
        return tensorrt_rtx.build(source, manifest, artifact, "fp16", tmp_path, recipe, 4)

    if why is None:
        assert missing is None
        assert build()[0]["model.plan"].stat().st_size > 10_000
        return
    assert missing is not None
    assert why in missing
    with pytest.raises(TargetError, match="does not build for sm_") as caught:
        build()
    assert caught.value.code == ExitCode.CONFIG


def test_a_network_it_refuses_is_named(contract_bundle: Callable[..., Path]) -> None:
    """Asymmetric activations: the parser says which operator."""
    folder = contract_bundle("paf", ("fp32", "int8-u8"))
    manifest = read_manifest(folder)
    artifact = manifest.artifacts[1]
    with pytest.raises(TargetError, match=r"model\.int8-u8\.onnx: .*parser refuses") as caught:
        tensorrt_rtx.build(
            folder / artifact.files[0], manifest, artifact, "int8", folder, RECIPE, 4
        )
    assert caught.value.code == ExitCode.BUNDLE
    assert not (folder / "model.plan").exists()
