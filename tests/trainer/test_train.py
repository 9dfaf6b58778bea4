# SPDX-License-Identifier: Apache-2.0
"""Training end to end on a tiny data set: repeatable, resumable, interruptible, in two backends."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
from posewire.trainer.checkpoint import load_run, newest_checkpoint
from posewire.trainer.config import ScheduleConfig, load_config
from posewire.trainer.data.loader import Loader
from posewire.trainer.errors import TrainError
from posewire.trainer.model import PoseModel, build_network, build_trainer
from posewire.trainer.train import fraction_done, learning_rate, train

from posewire.errors import ExitCode
from posewire.skeleton import load_skeleton

Edit = Callable[[str, str], Path]
STEP = """
import sys, json
from pathlib import Path
from posewire.trainer.train import train
import keras
run = Path(sys.argv[2])
train(sys.argv[1], run, stop_after_steps=2, quiet=True)
rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
print(json.dumps({"backend": keras.backend.backend(), "losses": [row["loss"] for row in rows]}))
"""
TEACHER = """
[teacher]
onnx = "none.onnx"
skeleton = "coco17"
heatmaps = [0, 18]
pafs = [18, 38]
"""


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_a_resumed_run_equals_an_uninterrupted_one(tiny: Path) -> None:
    config = tiny / "config.toml"
    train(config, tiny / "whole", quiet=True)
    train(config, tiny / "parts", quiet=True, stop_after_steps=2)
    assert [row["step"] for row in history(tiny / "parts")] == [1, 2]
    train(config, tiny / "parts", quiet=True, resume=True)
    whole, parts = history(tiny / "whole"), history(tiny / "parts")
    assert [row["step"] for row in parts] == [1, 2, 3, 4]
    for one, other in zip(whole, parts, strict=True):
        assert one["learning_rate"] == other["learning_rate"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    # Every variable of network and optimiser, the running averages among them.
    ends = [newest_checkpoint(tiny / name) for name in ("whole", "parts")]
    assert ends[0] is not None
    assert ends[1] is not None
    with np.load(ends[0]) as one, np.load(ends[1]) as other:
        assert one.files == other.files
        for name in set(one.files) - {"head"}:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=2e-4)


def test_a_line_of_the_history_is_the_mean_since_the_last(
    edit: Edit, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras resets its metrics with every batch, so that its own figures are one batch's."""
    losses = iter([1.0, 2.0, 6.0, 5.0])

    def step(self: PoseModel, x: object, y: object, return_dict: bool) -> dict[str, float]:
        names = ("loss", "heatmaps", "heatmaps_zero", "pafs", "pafs_zero")
        return dict.fromkeys(names, next(losses))

    monkeypatch.setattr(PoseModel, "train_on_batch", step)
    train(edit("log_steps = 1", "log_steps = 3"), tiny / "run", quiet=True)
    assert [(row["step"], row["loss"]) for row in history(tiny / "run")] == [(3, 3.0), (4, 5.0)]


def test_loss_falls_on_one_batch_and_stages_are_reported(edit: Edit) -> None:
    path = edit("batch = 2", "batch = 3")
    config, folder = load_config(path), path.parent
    network = build_network(config, folder)
    batch = Loader(config, folder, network.skeleton).batch(0)
    model = build_trainer(config, network, None)
    before = {v.path: np.array(v) for v in network.keras.trainable_variables}
    losses = []
    for _ in range(15):
        model.reset_metrics()
        result = model.train_on_batch(batch.images, batch.labels, return_dict=True)
        losses.append(float(result["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    zero = float(result["heatmaps_zero"]) + float(result["pafs_zero"])
    # Before it learns, the network sees nobody: two stages' worth of what nobody loses.
    assert losses[0] == pytest.approx(2 * zero, rel=0.2)
    moved = {
        path: float(np.abs(np.asarray(v) - before[path]).max())
        for path, v in ((v.path, v) for v in network.keras.trainable_variables)
    }
    head = max(value for path, value in moved.items() if path not in network.backbone_variables)
    body = max(value for path, value in moved.items() if path in network.backbone_variables)
    # Adam moves every weight by about the rate: the backbone's is a quarter.
    assert 0.15 < body / head < 0.4


def test_network_follows_the_contract(tiny: Path) -> None:
    network = build_network(load_config(tiny / "config.toml"), tiny)
    model = network.inference()
    maps = model(np.zeros((1, 96, 64, 3), np.float32))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "heatmaps": (1, 12, 8, 18),
        "pafs": (1, 12, 8, 38),
    }
    known = {
        "InputLayer", "Rescaling", "Functional", "Conv2D", "DepthwiseConv2D", "ReLU", "Add",
        "Concatenate", "UpSampling2D", "BatchNormalization", "ZeroPadding2D", "Identity",
    }  # fmt: skip
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    layers = [*model.layers, *(layer for one in inner for layer in one.layers)]
    assert {type(layer).__name__ for layer in layers} <= known


def test_folding_keeps_the_function() -> None:
    from posewire.trainer.backbones.mobilenet import fold_batch_norm

    keras.utils.set_random_seed(1)
    full = keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=0.35, include_top=False, weights=None
    )
    rng = np.random.default_rng(1)
    for layer in full.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(0.5, 1.5, n) for _ in range(4)])
    image = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    folded = fold_batch_norm(full)
    expected = keras.ops.convert_to_numpy(full(image, training=False))
    found = keras.ops.convert_to_numpy(folded(image))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_frozen_blocks_do_not_train(edit: Edit) -> None:
    path = edit("alpha = 0.25", "alpha = 0.25\nfrozen_blocks = 3")
    network = build_network(load_config(path), path.parent)
    names = {v.path.split("/")[0] for v in network.keras.trainable_variables}
    assert not names & {"conv1", "conv_dw_1", "conv_pw_1", "conv_dw_2", "conv_pw_2"}
    assert {"conv_dw_3", "conv_pw_3"} <= names
    bad = edit("frozen_blocks = 3", "frozen_blocks = 40")
    config = load_config(bad)
    with pytest.raises(TrainError, match=r"model\.frozen_blocks: 40: .* has fewer blocks"):
        build_network(config, bad.parent)


def test_samples_depend_on_seed_and_index_alone(edit: Edit) -> None:
    path = edit("batch = 2", "batch = 3")
    skeleton = load_skeleton("coco17")
    one = Loader(load_config(path), path.parent, skeleton)
    batches = dict(zip(range(3, 6), one.batches(3, 6), strict=True))
    again = Loader(load_config(path), path.parent, skeleton)
    np.testing.assert_array_equal(batches[5].images, again.batch(5).images)
    np.testing.assert_array_equal(
        batches[5].labels["keypoints"], again.batch(5).labels["keypoints"]
    )
    assert (batches[4].images != batches[5].images).any()
    other = Loader(load_config(edit("seed = 7", "seed = 8")), path.parent, skeleton)
    assert (other.batch(5).images != batches[5].images).any()


def test_worker_processes_draw_what_threads_draw(edit: Edit) -> None:
    path = edit("batch = 2", 'batch = 3\nworkers = 2\nworker_kind = "process"\npad_people = 12')
    config, skeleton = load_config(path), load_skeleton("coco17")
    loader = Loader(config, path.parent, skeleton)
    for step, batch in zip(range(2, 5), loader.batches(2, 5), strict=True):
        expected = loader.batch(step)
        np.testing.assert_array_equal(batch.images, expected.images)
        assert batch.labels["keypoints"].shape[1] == 12
        for name, values in expected.labels.items():
            np.testing.assert_array_equal(batch.labels[name], values)


def test_data_sets_are_mixed_by_weight(tiny: Path) -> None:
    text = (tiny / "config.toml").read_text(encoding="utf-8")
    entry = text[text.index("[[dataset]]") :]
    text = text.replace(entry, entry + "weight = 3.0\nids = 'even'\n" + entry + "ids = 'odd'\n")
    (tiny / "config.toml").write_text(text, encoding="utf-8")
    loader = Loader(load_config(tiny / "config.toml"), tiny, load_skeleton("coco17"))
    rng = np.random.default_rng(0)
    even = sum(loader.draw(rng).image_id % 2 == 0 for _ in range(2000))
    assert even == pytest.approx(1500, abs=90)  # 4.6 standard deviations


def test_a_broken_picture_stops_the_run_with_its_name(tiny: Path) -> None:
    for path in (tiny / "images").iterdir():
        path.write_bytes(b"no picture")
    loader = Loader(load_config(tiny / "config.toml"), tiny, load_skeleton("coco17"))
    with pytest.raises(TrainError, match=r"\.png: missing or not a picture") as caught:
        next(loader.batches(0, 3))
    assert caught.value.code == ExitCode.SOURCE


def test_the_schedule_acts_by_step_and_by_clock() -> None:
    by_step = ScheduleConfig(steps=100, warmup_steps=10, final=0.1)
    rates = [learning_rate(by_step, 1.0, step, 0.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(rates[9], rel=0.03)
    assert rates[50] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    by_clock = ScheduleConfig(steps=100, minutes=2.0, warmup_steps=0, final=0.0)
    assert learning_rate(by_clock, 1.0, 0, 60.0) == pytest.approx(0.5)
    assert fraction_done(by_clock, 10, 90.0) == 0.75
    assert fraction_done(by_clock, 90, 30.0) == 0.9
    assert math.isclose(learning_rate(by_clock, 1.0, 0, 500.0), 0.0, abs_tol=1e-9)


def test_a_run_directory_is_not_overwritten(tiny: Path) -> None:
    config = tiny / "config.toml"
    with pytest.raises(TrainError, match="no run to resume"):
        train(config, tiny / "run", resume=True, quiet=True)
    (tiny / "run").mkdir()
    (tiny / "run" / "config.toml").write_bytes(config.read_bytes())
    with pytest.raises(TrainError, match="holds a run already"):
        train(config, tiny / "run", quiet=True)
    config.write_text(config.read_text().replace("seed = 7", "seed = 8"))
    with pytest.raises(TrainError, match=r"config\.toml: differs from .*run/config\.toml"):
        train(config, tiny / "run", resume=True, quiet=True)
    with pytest.raises(TrainError, match=r"missing; is .* a training run"):
        load_run(tiny / "run")


def test_a_damaged_checkpoint_is_named(tiny: Path) -> None:
    config = tiny / "config.toml"
    (tiny / "run" / "checkpoints").mkdir(parents=True)
    (tiny / "run" / "config.toml").write_bytes(config.read_bytes())
    (tiny / "run" / "checkpoints" / "step-00000003.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainError, match=r"step-00000003\.npz: damaged checkpoint") as caught:
        train(config, tiny / "run", resume=True, quiet=True)
    assert caught.value.code == ExitCode.SOURCE


def test_an_interrupt_leaves_a_checkpoint_to_resume_from(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    config = edit("steps = 4", "steps = 400")
    run = config.parent / "run"
    batch = Loader.batch

    def interrupting(self: Loader, step: int) -> object:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Loader, "batch", interrupting)
    with pytest.raises(TrainError, match="interrupted at step") as caught:
        train(config, run, quiet=True)
    assert caught.value.code == ExitCode.INTERRUPTED
    assert newest_checkpoint(run) is not None
    assert not list(run.rglob(".writing-*"))


def test_a_teacher_is_refused_where_the_loss_takes_none(edit: Edit) -> None:
    edit("[model]", '[model]\nalgorithm = "center"')
    edit("refinements = 1\ninitial_blocks = 1\nrefinement_blocks = 1\n", "")
    path = edit("[training]\n", TEACHER + "[training]\n")
    with pytest.raises(TrainError, match="teacher: algorithm 'center' takes no teacher") as caught:
        train(path, path.parent / "run", quiet=True)
    assert caught.value.code == ExitCode.CONFIG


@pytest.mark.timeout(600)  # JAX compiles slowly where the processor is shared
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_same_code_trains_in_either_backend(backend: str, edit: Edit) -> None:
    tiny = edit("refinements = 1", "refinements = 0").parent
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tiny / "config.toml"), str(tiny / "run")],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] == backend
    assert len(result["losses"]) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in result["losses"])
