# SPDX-License-Identifier: Apache-2.0
"""Layers kept in floating point: asked for, of heads, and after the gate has refused a network of
which one layer is quantised wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from posewire.cli import program
from posewire.targets import TargetError, compile_bundle, qdq, sensitivity

from posewire.bundle import read_manifest, verify_bundle
from posewire.errors import ExitCode

MakeBundle = Callable[..., Path]
BLIND = 0.001  # a layer whose weights' scale is a thousandth of what it should be


def networks(bundle: Path) -> tuple[qdq.Network, qdq.Network]:
    return (
        qdq.Network.read(bundle / "model.int8-u8.onnx"),
        qdq.Network.read(bundle / "model.onnx"),
    )


def test_layers_and_heads_of_a_network(make_bundle: MakeBundle) -> None:
    quantised, plain = networks(make_bundle(ruined={}, heads=True))
    assert quantised.layers() == ["mix0", "mix1", "mix2", "mix3", "dots"]
    assert quantised.heads() == ["dots"]
    assert plain.layers() == plain.heads() == []


def test_keeping_takes_the_pairs_away_and_brings_the_weights_back(make_bundle: MakeBundle) -> None:
    quantised, plain = networks(make_bundle(ruined={"mix1": BLIND}))
    changed = qdq.Network(qdq.keep(quantised.model, plain, ["mix1"]))
    onnx.checker.check_model(changed.model)
    assert changed.layers() == ["mix0", "mix2", "mix3"]
    assert changed.nodes["mix1"].input[0] == "mix0_out"
    weights = numpy_helper.to_array(changed.constants[changed.nodes["mix1"].input[1]])
    np.testing.assert_array_equal(weights[:, :, 0, 0], np.eye(3))
    left = [node.op_type for node in changed.model.graph.node]
    assert left.count("QuantizeLinear") == 3
    assert "mix1_int8" not in changed.constants
    assert quantised.layers() == ["mix0", "mix1", "mix2", "mix3"]  # the original is as it was

    everything = qdq.keep(quantised.model, plain, quantised.layers())
    assert sensitivity.errors(qdq.Network(everything), plain, [], lambda *_: None) == {}


def test_a_real_network_of_which_everything_is_kept_is_the_fp32_one() -> None:
    """The quantiser left out the Clips whose range the type enforces; they come back."""
    bundle = Path(__file__).parents[2] / "models" / "coco17-paf-mobilenetv2"
    manifest = read_manifest(bundle)
    quantised = qdq.Network.read(bundle / "model.int8-u8.onnx")
    plain = qdq.Network.read(bundle / "model.onnx")
    feeds = sensitivity.drawn(manifest, manifest.artifacts[0])[:1]
    everything = qdq.keep(quantised.model, plain, quantised.layers())
    reference = sensitivity.outputs_of(plain.model, feeds)
    assert sensitivity.error_of(reference, sensitivity.outputs_of(everything, feeds)) < 1e-5
    half = qdq.keep(quantised.model, plain, quantised.layers()[::2])
    whole = sensitivity.error_of(reference, sensitivity.outputs_of(quantised.model, feeds))
    assert 0 < sensitivity.error_of(reference, sensitivity.outputs_of(half, feeds)) < 1.2 * whole


def test_where_the_fp32_network_does_not_fit_the_range_is_kept(make_bundle: MakeBundle) -> None:
    quantised, plain = networks(make_bundle(ruined={}))
    plain.producers.clear()
    changed = qdq.Network(qdq.keep(quantised.model, plain, ["mix2"]))
    onnx.checker.check_model(changed.model)
    (clip,) = (node for node in changed.model.graph.node if node.name.startswith("mix2_q"))
    assert clip.op_type == "Clip"
    high = numpy_helper.to_array(changed.constants[clip.input[2]])
    np.testing.assert_allclose(high, 1.0, atol=1e-6)


def test_without_a_twin_the_weights_are_dequantised(make_bundle: MakeBundle) -> None:
    quantised, plain = networks(make_bundle(ruined={}))
    plain.nodes.clear()
    changed = qdq.Network(qdq.keep(quantised.model, plain, ["mix2"]))
    weights = numpy_helper.to_array(changed.constants[changed.nodes["mix2"].input[1]])
    np.testing.assert_allclose(weights[:, :, 0, 0], np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "outliers", "first", "second"),
    [(1, 0, 0, 0), (2, 0, 1, 1), (4, 2, 2, 2), (4, 3, 1, 2), (40, 0, 1, 10), (40, 6, 6, 12)],
)
def test_how_many_are_kept(count: int, outliers: int, first: int, second: int) -> None:
    ranked = {f"l{i}": 1.0 if i < outliers else 0.01 for i in range(count)}
    assert sensitivity.choose(ranked, 0) == list(ranked)[:first]
    assert sensitivity.choose(ranked, 1) == list(ranked)[:second]


def test_the_gate_refuses_and_keeping_the_ruined_layer_rescues(make_bundle: MakeBundle) -> None:
    portable = make_bundle(ruined={"mix2": BLIND})
    with pytest.raises(TargetError, match="gate: int8: poses disagree") as caught:
        compile_bundle(portable, precision="int8", keep_layers="none")
    assert caught.value.code == ExitCode.NO
    assert "sensitive" not in str(caught.value)

    log: list[str] = []
    result = compile_bundle(
        portable, precision="int8", progress=lambda phase, done, total: log.append(phase)
    )
    assert result.kept == ("mix2",)
    assert result.gate is not None
    assert result.gate.passed
    assert set(result.gate.keypoints) == {"top", "middle", "bottom"}
    assert all(abs(drop) < 0.05 for drop in result.gate.keypoints.values())
    assert any("tried again with mix2 in floating point" in phase for phase in log)
    made = verify_bundle(result.path)
    assert made.target is not None
    assert made.target.kept_layers == ("mix2",)
    assert made.gate is not None
    assert made.gate.keypoints == result.gate.keypoints
    again = compile_bundle(portable, precision="int8")
    assert (again.cached, again.kept, again.gate) == (True, ("mix2",), result.gate)


def test_two_ruined_layers_are_found_one_by_one(make_bundle: MakeBundle) -> None:
    result = compile_bundle(make_bundle(ruined={"mix0": BLIND, "mix3": BLIND}), precision="int8")
    assert set(result.kept) == {"mix0", "mix3"}


def test_more_than_half_is_not_kept_and_the_layers_are_listed(make_bundle: MakeBundle) -> None:
    portable = make_bundle(ruined=dict.fromkeys(("mix0", "mix1", "mix2"), BLIND))
    with pytest.raises(TargetError, match=r"sensitive layers: mix\d \(") as caught:
        compile_bundle(portable, precision="int8")
    assert caught.value.code == ExitCode.NO


def test_auto_builds_and_times_again_what_can_be_rescued(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[list[str]] = []

    def fastest_is_int8(job: object, made: dict[str, object]) -> dict[str, float]:
        timed.append(sorted(made))
        return {name: 9.0 if name == "int8" else 1.0 for name in made}

    monkeypatch.setattr("posewire.targets.compile._timed", fastest_is_int8)
    result = compile_bundle(make_bundle(ruined={"mix2": BLIND}))
    assert (result.precision, result.kept) == ("int8", ("mix2",))
    assert len(timed) == 2
    assert timed[0] == timed[1]
    assert "int8" not in result.rejected

    bad = dict.fromkeys(("mix0", "mix1", "mix2"), BLIND)
    other = compile_bundle(make_bundle("lost", ruined=bad))
    assert other.precision != "int8"
    assert "sensitive layers: " in other.rejected["int8"]


def test_asked_for_by_name(make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    portable = make_bundle(ruined={"mix2": BLIND})
    asked = ["compile", str(portable), "--target", "x86-cpu", "--precision", "int8"]
    assert program([*asked, "--keep-layers", "mix1,mix2", "--json"]) == ExitCode.OK
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["kept_layers"] == ["mix1", "mix2"]
    assert program([*asked, "--keep-layers", "mix1"]) == ExitCode.NO
    assert "sensitive layers: mix2" in capsys.readouterr().err
    assert program([*asked, "--keep-layers", "mixt"]) == ExitCode.USAGE
    assert "no quantised layer 'mixt' (did you mean mix" in capsys.readouterr().err
    asked[-1] = "fp32"
    assert program([*asked, "--keep-layers", "mix1"]) == ExitCode.USAGE
    assert "a network that is in floating point" in capsys.readouterr().err


def test_heads_are_kept_by_themselves(make_bundle: MakeBundle) -> None:
    portable = make_bundle(ruined={}, heads=True)
    assert compile_bundle(portable, precision="int8").kept == ("dots",)
    made = compile_bundle(portable, precision="int8", keep_layers="none")
    assert made.kept == ()
    assert read_manifest(made.path).raw["target"].get("kept_layers") is None
