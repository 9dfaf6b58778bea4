# SPDX-License-Identifier: Apache-2.0
"""posewire._core: arrays in and out, errors, threads; and that its stub tells the truth."""

from __future__ import annotations

import ast
import gc
import hashlib
import inspect
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import posewire
from posewire import _core
from posewire.bundle import write_bundle
from posewire.errors import ExitCode, PosewireError
from posewire.preprocess import letterbox

SKELETON = {
    "name": "stick2",
    "keypoints": ["a", "b"],
    "limbs": [[0, 1]],
    "flips": [0, 1],
    "sigmas": [0.1, 0.1],
}
WIDTH, HEIGHT, STRIDE = 64, 48, 8
CELLS = (HEIGHT // STRIDE, WIDTH // STRIDE)


def manifest(**changes: Any) -> dict[str, Any]:
    base = {
        "schema": 1,
        "name": "stick",
        "version": "1",
        "mode": "bottom_up",
        "skeleton": SKELETON,
        "input": {
            "name": "image",
            "width": WIDTH,
            "height": HEIGHT,
            "channels": "RGB",
            "resize": "letterbox",
        },
        "outputs": [
            {"name": "heatmaps", "channels": 2, "stride": STRIDE},
            {"name": "pafs", "channels": 2, "stride": STRIDE},
        ],
        "decode": {"algorithm": "paf", "background": False, "min_keypoints": 2},
        "artifacts": [
            {
                "files": ["fake.json", "maps.f32"],
                "format": "fake",
                "precision": "fp32",
                "input": {"layout": "NHWC", "dtype": "uint8"},
                "outputs": [
                    {"name": "heatmaps", "layout": "NCHW", "dtype": "float32"},
                    {"name": "pafs", "layout": "NCHW", "dtype": "float32"},
                ],
            }
        ],
        "target": {
            "name": "fake",
            "runtime": "fake",
            "runtime_version": "1",
            "device": "",
            "precision": "fp32",
            "max_batch": 1,
        },
        "gate": None,
        "accuracy": [],
        "training": {},
        "derived_from": None,
    }
    return {**base, **changes}


def person(column: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Maps of one upright person: a at row 1, b at row 4 of ``column``."""
    heatmaps = np.zeros((2, *CELLS), np.float32)
    pafs = np.zeros((2, *CELLS), np.float32)
    for k, row in enumerate((1, 4)):
        heatmaps[k, row, column] = 0.9
        for side in (-1, 1):
            heatmaps[k, row, column + side] = heatmaps[k, row + side, column] = 0.4
    pafs[1, :, column] = 1.0
    return {"heatmaps": heatmaps, "pafs": pafs}


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., str]:
    """A compiled bundle of the fake runtime that sees the person of column 3, then of column 5."""

    def make(name: str = "fake", **parameters: Any) -> str:
        maps = b"".join(
            person(column)[output].tobytes() for column in (3, 5) for output in ("heatmaps", "pafs")
        )
        files: dict[str, Path | bytes] = {
            "fake.json": json.dumps(parameters).encode(),
            "maps.f32": maps,
        }
        write_bundle(tmp_path / name, manifest(), files)
        return str(tmp_path / name)

    return make


def centre(cell: int) -> float:
    return STRIDE * cell + (STRIDE - 1) / 2


def test_the_decoder_finds_the_person_in_every_layout_and_type() -> None:
    partial = {k: v for k, v in manifest().items() if k not in ("artifacts", "target")}
    decoder = _core.Decoder(json.dumps(partial))
    maps = person(3)
    scores, keypoints = decoder.decode(maps)
    assert scores.dtype == keypoints.dtype == np.float32
    assert scores.shape == (1,)
    assert keypoints.shape == (1, 2, 3)
    assert np.allclose(keypoints[0, :, 0], centre(3), atol=0.5)
    assert np.allclose(keypoints[0, :, 1], [centre(1), centre(4)], atol=0.5)

    batch = {name: array[None] for name, array in maps.items()}
    strided = {name: np.repeat(array, 2, axis=2)[:, :, ::2] for name, array in maps.items()}
    frozen = {name: array.copy() for name, array in maps.items()}
    for array in frozen.values():
        array.flags.writeable = False
    for same in (batch, strided, frozen):
        assert np.array_equal(decoder.decode(same)[1], keypoints)
    half = {name: array.astype(np.float16) for name, array in maps.items()}
    assert np.allclose(decoder.decode(half)[1], keypoints, atol=0.02)

    for output in partial["outputs"]:
        output["layout"] = "NHWC"
    last = {name: array.transpose(1, 2, 0) for name, array in maps.items()}
    assert np.array_equal(_core.Decoder(json.dumps(partial)).decode(last)[1], keypoints)


def test_the_decoder_reads_quantised_outputs() -> None:
    quantised = manifest()
    for output in quantised["artifacts"][0]["outputs"]:
        output.update(dtype="int8", scale=1 / 100, zero_point=-20)
    decoder = _core.Decoder(json.dumps(quantised))
    maps = {name: np.round(a * 100 - 20).astype(np.int8) for name, a in person(3).items()}
    scores, keypoints = decoder.decode(maps)
    assert len(scores) == 1
    assert np.allclose(keypoints[0, :, 0], centre(3), atol=0.5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pafs": None}, "pafs is missing"),
        ({"pafs": np.zeros((2, 6, 9), np.float32)}, "2 x 6 x 9 .* the manifest says 2 x 6 x 8"),
        ({"pafs": np.zeros((6, 8), np.float32)}, "three axes"),
        ({"pafs": np.zeros((2, 2, 6, 8), np.float32)}, "batch of one"),
        ({"pafs": np.zeros((2, 6, 8), np.float64)}, "pafs: must be float32, float16"),
    ],
)
def test_the_decoder_refuses_other_arrays(change: dict[str, Any], match: str) -> None:
    maps = {**person(3), **change}
    maps = {name: array for name, array in maps.items() if array is not None}
    with pytest.raises(_core.EngineError, match=match) as caught:
        _core.Decoder(json.dumps(manifest())).decode(maps)
    assert caught.value.code == ExitCode.USAGE


def test_engine_errors_are_posewire_errors() -> None:
    with pytest.raises(PosewireError) as caught:
        _core.Decoder('{"schema": 99}')
    assert isinstance(caught.value, _core.EngineError)
    assert caught.value.code is ExitCode.BUNDLE
    assert "99" in str(caught.value) or "missing" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(_core.EngineError) as missing:
        _core.Estimator("/nowhere")
    assert missing.value.where == "/nowhere"
    with pytest.raises(_core.EngineError, match="no artifact 7"):
        _core.Decoder(json.dumps(manifest()), 7)


def test_letterbox_and_back() -> None:
    image = np.random.default_rng(1).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    fitted, box = _core.letterbox(image, 432, 368)
    assert fitted.shape == (368, 432, 3)
    assert (box.left, box.top, box.width, box.height) == (0, 22, 432, 324)
    assert box.scale_x == pytest.approx(0.675)
    assert (fitted[:22] == 114).all()
    assert (fitted[346:] == 114).all()
    points = np.array([[0, 0], [639, 479], [100.5, 7.25]], np.float32)
    assert np.allclose(box.to_frame(box.to_network(points)), points, atol=1e-3)
    corner = box.to_frame(np.array([[-0.5, 21.5]], np.float32))
    assert np.allclose(corner, -0.5, atol=1e-4)
    same, geometry = letterbox(image, 432, 368)  # the typed door says the same
    assert np.array_equal(same, fitted)
    assert np.allclose(geometry.to_frame(points), box.to_frame(points), atol=1e-2)
    with pytest.raises(_core.EngineError):
        _core.letterbox(image, 0, 10)
    with pytest.raises(_core.EngineError):
        _core.letterbox(image[:0], 32, 32)
    flipped = image[::-1, ::-1, ::-1]
    assert np.array_equal(
        _core.letterbox(flipped, 432, 368)[0],
        _core.letterbox(np.ascontiguousarray(flipped), 432, 368)[0],
    )
    with pytest.raises(TypeError):
        _core.letterbox(image.astype(np.float32), 32, 32)  # type: ignore[arg-type]


def test_the_estimator_maps_poses_to_the_picture(fake: Callable[..., str]) -> None:
    estimator = _core.Estimator(fake())
    picture = np.zeros((480, 640, 3), np.uint8)  # ten times the network's input
    _, first = estimator.estimate(picture)
    _, second = estimator.estimate(picture)
    for keypoints, column in ((first, 3), (second, 5)):
        expected = (centre(column) + 0.5) * 10 - 0.5
        assert np.allclose(keypoints[0, :, 0], expected, atol=5)
    raw = estimator.network(picture)
    assert raw["heatmaps"].shape == (2, *CELLS)
    assert np.array_equal(raw["pafs"], person(3)["pafs"])
    assert json.loads(estimator.manifest_json)["name"] == "stick"


def test_files_come_back_in_order_and_a_bad_one_is_named(
    fake: Callable[..., str], tmp_path: Path
) -> None:
    paths = []
    for i in range(9):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], np.zeros((48 * (i + 1), 64 * (i + 1), 3), np.uint8))
    results = _core.Estimator(fake(), requests=3).estimate_files(paths)
    lows = [float(keypoints[0, 0, 1]) for _, keypoints in results]
    for i, low in enumerate(lows):  # y does not depend on which recording a picture was given
        assert abs(low - ((centre(1) + 0.5) * (i + 1) - 0.5)) < 0.5 * (i + 1)
    Path(paths[4]).write_bytes(b"not a picture")
    with pytest.raises(_core.EngineError, match=r"4\.png") as caught:
        _core.Estimator(fake("again")).estimate_files(paths)
    assert caught.value.code == ExitCode.SOURCE


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:10] = 255
    jpeg = bytes(cv2.imencode(".jpg", upright)[1])
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # 6: turn by 90 degrees
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01" + orientation + b"\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + marker + jpeg[2:])
    picture = _core.read_picture(str(tmp_path / "turned.jpg"))
    assert picture.shape == (40, 20, 3)
    assert picture[:, 12:].mean() > 250
    assert picture[:, :8].mean() < 5


def test_a_failing_device_raises_and_nan_finds_nobody(fake: Callable[..., str]) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    broken = _core.Estimator(fake("broken", fail_at=1))
    assert len(broken.estimate(picture)[0]) == 1
    for _ in range(2):
        with pytest.raises(_core.EngineError, match="injected") as caught:
            broken.estimate(picture)
        assert caught.value.code == ExitCode.UNAVAILABLE
    blind = _core.Estimator(fake("blind", nan_every=1))
    scores, keypoints = blind.estimate(picture)
    assert keypoints.shape == (0, 2, 3)
    assert scores.shape == (0,)


def test_heavy_calls_release_the_gil(fake: Callable[..., str]) -> None:
    estimator = _core.Estimator(fake(infer_ms=300))
    picture = np.zeros((48, 64, 3), np.uint8)
    thread = threading.Thread(target=estimator.estimate, args=(picture,))
    begin = time.monotonic()
    thread.start()
    turns = 0
    while thread.is_alive():
        turns += 1
        time.sleep(0.001)
    assert time.monotonic() - begin >= 0.3
    assert turns > 10


def test_threads_share_an_estimator(fake: Callable[..., str]) -> None:
    estimator = _core.Estimator(fake(infer_ms=1), requests=2)
    found: list[int] = []

    def work() -> None:
        for _ in range(20):
            found.append(len(estimator.estimate(np.zeros((48, 64, 3), np.uint8))[0]))

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 100


def test_arrays_outlive_what_made_them(fake: Callable[..., str]) -> None:
    estimator = _core.Estimator(fake())
    raw = estimator.network(np.zeros((48, 64, 3), np.uint8))
    digest = hashlib.sha256(raw["pafs"].tobytes()).hexdigest()
    del estimator
    gc.collect()
    assert hashlib.sha256(raw["pafs"].tobytes()).hexdigest() == digest


def test_bench_inference_measures_the_fake(fake: Callable[..., str]) -> None:
    run = _core.bench_inference(fake(infer_ms=10), 0.3)
    assert 60 < run["fps"] <= 101
    assert run["pictures"] == pytest.approx(run["fps"] * run["seconds"], rel=1e-6)


def test_the_rows_of_the_tables() -> None:
    rows = {row["name"]: row for row in _core.runtimes()}
    assert {"fake", "openvino"} <= set(rows)
    assert rows["fake"]["available"]
    for row in rows.values():
        assert row["available"] or row["why"]
    assert "paf" in _core.decoders()
    assert _core.version()


def test_the_stub_names_what_the_module_has() -> None:
    stub = next(Path(folder) / "_core.pyi" for folder in posewire.__path__)
    if not stub.is_file():  # an editable install keeps it in the sources
        stub = Path(str(inspect.getsourcefile(posewire))).with_name("_core.pyi")
    told: dict[str, set[str]] = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ):
            members = node.body if isinstance(node, ast.ClassDef) else []
            told[node.name] = {
                member.name for member in members if isinstance(member, ast.FunctionDef)
            }
    there = {name for name in dir(_core) if not name.startswith("_")}
    assert set(told) == there
    for name, members in told.items():
        missing = {member for member in members if not hasattr(getattr(_core, name), member)}
        assert not missing, f"{name}: {missing}"
        if name != "EngineError" and inspect.isclass(getattr(_core, name)):
            public = {m for m in dir(getattr(_core, name)) if not m.startswith("_")}
            assert public == members - {"__init__"}
