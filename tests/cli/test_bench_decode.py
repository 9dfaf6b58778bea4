# SPDX-License-Identifier: Apache-2.0
"""bench decode: figures of drawn and of stored frames, the people written, everything refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from posewire.cli import program

from posewire.decode import Decoder
from posewire.encode import ENCODERS
from posewire.engine_core import core
from posewire.errors import ExitCode

KEYS = {"algorithm", "frames", "median_us", "p99_us", "people", "per_frame", "kernels", "rounds"}
SMALL = ["--frames", "3", "--rounds", "4"]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """bench(arguments…) -> exit code, figures, the last line of stderr."""

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
        code = program(["bench", "decode", *map(str, arguments), "--json"])
        said = capsys.readouterr()
        figures = json.loads(said.out.splitlines()[-1]) if said.out else {}
        return code, figures, said.err.strip().splitlines()[-1]

    return run


Bench = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def stored(bench: Bench, tmp_path: Path) -> Path:
    """Two frames of two people each, saved."""
    folder = tmp_path / "stored"
    code, _, _ = bench("paf", "--people", 2, "--frames", 2, "--rounds", 1, "--save", folder)
    assert code == ExitCode.OK
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Changes keys of manifest.json; None takes one away."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


@pytest.mark.parametrize("algorithm", ENCODERS)
def test_every_row_finds_the_people_it_is_shown(algorithm: str, bench: Bench) -> None:
    code, figures, _ = bench(algorithm, "--people", 3, "--noise", 0, *SMALL)
    assert code == ExitCode.OK
    assert set(figures) >= KEYS | {"recall", "precision", "error_cells", "people_drawn"}
    assert figures["algorithm"] == algorithm
    assert (figures["frames"], figures["rounds"]) == (3, 4)
    assert 0 < figures["median_us"] <= figures["p99_us"]
    assert figures["people"] == figures["people_drawn"] == 9
    assert figures["recall"] >= 0.99
    assert figures["precision"] >= 0.99
    assert figures["error_cells"] <= 0.05
    assert figures["kernels"] == core().decoder_kernels()[0]
    assert [frame["frame"] for frame in figures["per_frame"]] == [f"frame-00{i}" for i in range(3)]
    for frame in figures["per_frame"]:
        assert 0 < frame["median_us"] <= frame["p99_us"]
        assert frame["people"] == 3
    crops = 3 if ENCODERS[algorithm].mode == "top_down" else 1
    assert figures["calls_per_frame"] == crops


@pytest.mark.parametrize("algorithm", ENCODERS)
def test_saved_frames_replay_to_the_same_people(
    algorithm: str, bench: Bench, tmp_path: Path
) -> None:
    drawn, replayed = tmp_path / "drawn.jsonl", tmp_path / "replayed.jsonl"
    folder = tmp_path / "frames"
    one = bench(algorithm, "--people", 2, *SMALL, "--save", folder, "--poses", drawn)
    two = bench(algorithm, "--inputs", folder, "--rounds", 2, "--poses", replayed)
    assert one[0] == two[0] == ExitCode.OK
    assert one[1]["people"] == two[1]["people"] > 0
    assert drawn.read_text() == replayed.read_text()
    lines = [json.loads(line) for line in drawn.read_text().splitlines()]
    assert [line["frame"] for line in lines] == sorted(path.stem for path in folder.glob("*.npz"))
    assert sum(len(line["people"]) for line in lines) == one[1]["people"]
    assert not list(tmp_path.glob(".*"))


def test_poses_are_what_the_decoder_says(bench: Bench, stored: Path, tmp_path: Path) -> None:
    assert bench("paf", "--inputs", stored, "--poses", tmp_path / "p", "--rounds", 1)[0] == 0
    manifest = json.loads((stored / "manifest.json").read_text())
    for line in (tmp_path / "p").read_text().splitlines():
        frame = json.loads(line)
        with np.load(stored / f"{frame['frame']}.npz") as outputs:
            poses = Decoder(manifest).decode(dict(outputs))
        assert len(poses.scores) > 0
        np.testing.assert_allclose([p["score"] for p in frame["people"]], poses.scores, atol=1e-6)
        np.testing.assert_allclose([p["kp"] for p in frame["people"]], poses.keypoints, atol=1e-4)


def test_a_sparse_manifest_and_any_form_of_array(
    bench: Bench, stored: Path, tmp_path: Path
) -> None:
    """No mode, no algorithm, other layouts, a batch axis, deflated, Fortran order, more arrays."""
    plain = bench("paf", "--inputs", stored, "--poses", tmp_path / "plain", "--rounds", 1)
    manifest = json.loads((stored / "manifest.json").read_text())
    size = {key: manifest["input"][key] for key in ("width", "height")}
    heatmaps, pafs = manifest["outputs"]
    del heatmaps["layout"]
    pafs["layout"] = "NHWC"
    decode = {k: v for k, v in manifest["decode"].items() if k != "algorithm"}
    edit(stored, mode=None, input=size, outputs=[heatmaps, pafs], decode=decode, files={"x": 1})
    for path in stored.glob("*.npz"):
        with np.load(path) as archive:
            maps = dict(archive)
        maps["heatmaps"] = np.asfortranarray(maps["heatmaps"])[None]
        maps["pafs"] = np.moveaxis(maps["pafs"], 0, -1)
        np.savez_compressed(path, truth=np.zeros(3), **maps)
    sparse = bench("paf", "--inputs", stored, "--poses", tmp_path / "sparse", "--rounds", 1)
    assert plain[0] == sparse[0] == ExitCode.OK
    assert (tmp_path / "plain").read_text() == (tmp_path / "sparse").read_text()


def test_every_instruction_set_can_be_asked_for(bench: Bench, stored: Path) -> None:
    for kernels in core().decoder_kernels():
        figures = bench("paf", "--inputs", stored, "--rounds", 1, "--kernels", kernels)[1]
        assert figures["kernels"] == kernels
    code, _, said = bench("paf", "--inputs", stored, "--kernels", "magic")
    assert code == ExitCode.USAGE
    assert "magic" in said


def _damage_nothing(folder: Path) -> None:
    (folder / "frame-001.npz").write_bytes(b"")


def _damage_text(folder: Path) -> None:
    (folder / "frame-001.npz").write_text("no archive")


def _damage_single(folder: Path) -> None:
    with open(folder / "frame-001.npz", "wb") as file:
        np.save(file, np.zeros(3))


def _damage_bytes(folder: Path) -> None:
    path = folder / "frame-001.npz"
    data = bytearray(path.read_bytes())
    data[4000:4100] = bytes(100)
    path.write_bytes(data)


def _change(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "frame-001.npz"
        with np.load(path) as archive:
            maps = dict(archive)
        maps[name] = change(maps[name])
        np.savez(path, **{key: value for key, value in maps.items() if value is not None})

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_damage_nothing, "frame-001.npz: is not a readable .npz file"),
        (_damage_text, "frame-001.npz: is not a readable .npz file"),
        (_damage_single, "frame-001.npz: is not a readable .npz file: it holds a single array"),
        (_damage_bytes, "frame-001.npz: heatmaps: cannot be read"),
        (_change("pafs", lambda maps: None), "frame-001.npz: pafs: is missing; it holds heatmaps"),
        (_change("pafs", lambda maps: maps[:, :-1]), "frame-001.npz: pafs: has 38 x 45 x 54"),
        (_change("pafs", lambda maps: maps[None, None]), "frame-001.npz: pafs: must be one frame"),
        (_change("pafs", lambda maps: np.stack([maps, maps])), "pafs: must be one frame"),
        (_change("heatmaps", lambda maps: maps.astype("f8")), "heatmaps: must be float32, not flo"),
        (_change("heatmaps", lambda maps: maps.astype(">f4")), "heatmaps: must be float32, not >"),
        (lambda folder: [path.unlink() for path in folder.glob("*.npz")], "has no .npz file"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_data_that_cannot_be_read_is_66(
    damage: Callable[[Path], Any], said: str, bench: Bench, tmp_path: Path
) -> None:
    stored = tmp_path / "stored"
    bench("paf", "--people", 1, "--skeleton", "body18", "--frames", 2, "--save", stored)
    damage(stored)
    code, figures, error = bench("paf", "--inputs", stored, "--rounds", 1)
    assert code == ExitCode.SOURCE
    assert figures == {}
    assert said in error
    assert str(stored) in error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decode": {"algorithm": "magic"}}, 'decode.algorithm: is "magic", not "paf"'),
        ({"decode": {"algorithm": "paf", "magic": 1}}, "decode.magic"),
        ({"decode": 3}, "decode: must be an object"),
        ({"outputs": None}, "outputs"),
        ({"outputs": []}, "outputs"),
        ({"skeleton": None}, "skeleton"),
        ({"input": {"width": 432}}, "height"),
        ({"mode": "sideways"}, "mode"),
        ({"modes": "top_down"}, "modes"),
        ({"schema": 99}, "newer"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_65(
    changes: dict[str, Any], said: str, bench: Bench, stored: Path
) -> None:
    edit(stored, **changes)
    code, _, error = bench("paf", "--inputs", stored)
    assert code == ExitCode.BUNDLE
    assert said in error
    assert f"{stored / 'manifest.json'}: " in error


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mode": NaN}', None])
def test_no_manifest_at_all_is_65(text: str | None, bench: Bench, stored: Path) -> None:
    path = stored / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    code, _, error = bench("paf", "--inputs", stored)
    assert code == ExitCode.BUNDLE
    assert str(path) in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["magic", "--people", "1"], "known: "),
        (["paf"], "--inputs and --people are both absent"),
        (["paf", "--people", "1", "--inputs", "x"], "--inputs and --people exclude each other"),
        (["paf", "--inputs", "x", "--noise", "0"], "--noise stands only with --people"),
        (["paf", "--inputs", "x", "--save", "y"], "--save stands only with --people"),
        (["paf", "--people", "-1"], "Invalid value for '--people'"),
        (["paf", "--people", "1", "--skeleton", "magic"], "coco17"),
    ],
)
def test_a_wrong_call_is_64(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(["bench", "decode", *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_what_cannot_be_written_is_73(bench: Bench, stored: Path, tmp_path: Path) -> None:
    code, _, said = bench(
        "paf", "--inputs", stored, "--rounds", 1, "--poses", tmp_path / "no" / "p"
    )
    assert code == ExitCode.CANNOT_WRITE
    assert str(tmp_path / "no" / "p") in said
    before = sorted(path.name for path in stored.iterdir())
    code, _, said = bench("paf", "--people", 1, "--frames", 1, "--save", stored)  # not empty
    assert code == ExitCode.CANNOT_WRITE
    assert str(stored) in said
    assert sorted(path.name for path in stored.iterdir()) == before
    assert not list(tmp_path.glob(".*"))


def test_a_skeleton_of_ones_own(bench: Bench, tmp_path: Path) -> None:
    own = {
        "name": "own",
        "keypoints": ["hub", "spoke", "rim"],
        "limbs": [[0, 1], [1, 2]],
        "flips": [0, 1, 2],
        "sigmas": [0.05, 0.05, 0.05],
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(own))
    code, figures, _ = bench("paf", "--people", 2, "--skeleton", path, *SMALL)
    assert code == ExitCode.OK
    assert figures["people"] == 6
    assert bench("paf", "--people", 2, "--skeleton", tmp_path / "no.json")[0] == ExitCode.SOURCE


def test_bench_still_takes_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`decode` selects the other verb only as the first argument."""
    assert program(["bench", str(tmp_path / "decode"), "--source", "x.avi"]) == ExitCode.BUNDLE
    assert str(tmp_path / "decode") in capsys.readouterr().err
    for verb, argument in ((["bench"], "BUNDLE"), (["bench", "decode"], "ALGORITHM")):
        assert program([*verb, "--help"]) == ExitCode.OK
        text = capsys.readouterr().out
        assert argument in text
        assert "bench decode" in text
