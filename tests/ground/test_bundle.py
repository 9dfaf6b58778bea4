# SPDX-License-Identifier: Apache-2.0
"""Bundles on disk: round trip, tampering of every kind, and writing all or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posewire import bundle as bundle_module
from posewire.bundle import read_manifest, verify_bundle, write_bundle
from posewire.errors import BundleError, ExitCode, PosewireError
from posewire.onnx_check import refuse_external_data

CORPUS = Path(__file__).parents[1] / "golden" / "bundles"


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited protobuf field."""
    size, length = len(payload), b""
    while size >= 0x80:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return _tag(number, 2) + length + bytes((size,)) + payload


def _tag(number: int, kind: int) -> bytes:
    value = number << 3 | kind
    return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))


# A graph with one tensor of four raw bytes: enough of an ONNX file for the scanner.
TENSOR = field(9, b"\0\0\0\0")
ONNX = field(7, field(5, TENSOR))


def small_manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((CORPUS / "good.json").read_text(encoding="utf-8"))[
        "manifest"
    ]
    data["artifacts"] = data["artifacts"][:1]
    del data["files"]
    return data


FILES: dict[str, Path | bytes] = {"model.onnx": ONNX, "README.md": b"A card.\n"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b", small_manifest(), FILES)
    return tmp_path / "b"


def test_round_trip(bundle: Path) -> None:
    manifest = verify_bundle(bundle)
    assert manifest == read_manifest(bundle)
    assert {k: v for k, v in manifest.raw.items() if k != "files"} == small_manifest()
    assert sorted(os.listdir(bundle)) == ["README.md", "manifest.json", "model.onnx"]
    assert (bundle / "model.onnx").read_bytes() == ONNX
    assert len(manifest.sha256) == 64
    assert os.listdir(bundle.parent) == ["b"]  # nothing is left beside it


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
            lambda name: name not in ("manifest.json", "manifest.sig", "model.onnx")
        ),
        st.binary(max_size=300),
        max_size=4,
    ),
    training=st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(), max_size=3),
)
def test_round_trip_of_any_files(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], training: dict[str, Any]
) -> None:
    out = tmp_path_factory.mktemp("any") / "b"
    sources: dict[str, Path | bytes] = {**files, "model.onnx": ONNX}
    written = write_bundle(out, {**small_manifest(), "training": training}, sources)
    assert verify_bundle(out) == written
    assert written.training == training
    assert {name: (out / name).read_bytes() for name in written.files} == sources


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_flipped_bit_is_refused(bundle: Path, data: st.DataObject) -> None:
    """Also in the manifest, where a flip may still be JSON: then the identity differs."""
    before = verify_bundle(bundle)
    name = data.draw(st.sampled_from([*sorted(FILES), "manifest.json"]))
    path = bundle / name
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        if name == "manifest.json":
            with contextlib.suppress(BundleError):
                assert verify_bundle(bundle).sha256 != before.sha256
        else:
            with pytest.raises(BundleError, match="sha256"):
                verify_bundle(bundle)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [*sorted(FILES), "manifest.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(bundle: Path, name: str, keep: float) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: min(int(len(content) * keep), len(content) - 1)])
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        verify_bundle(bundle)


def test_a_grown_or_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "README.md").write_bytes(b"A card.\n!")
    with pytest.raises(BundleError, match=r"README\.md: has 9 bytes, the manifest says 8"):
        verify_bundle(bundle)
    (bundle / "README.md").unlink()
    with pytest.raises(BundleError, match=r"README\.md: cannot be read"):
        verify_bundle(bundle)


def test_an_unlisted_file_is_refused(bundle: Path) -> None:
    (bundle / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra\.bin.*does not list"):
        verify_bundle(bundle)


def test_links_folders_and_pipes_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "model.onnx"
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"model\.onnx: is a link"):
        verify_bundle(bundle)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx: is not a regular file"):
        verify_bundle(bundle)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(BundleError, match=r"model\.onnx: is not a regular file"):
        verify_bundle(bundle)


def test_a_linked_manifest_is_refused(bundle: Path) -> None:
    (bundle / "manifest.json").rename(bundle.parent / "m.json")
    (bundle / "manifest.json").symlink_to(bundle.parent / "m.json")
    with pytest.raises(BundleError, match=r"manifest\.json: is a link"):
        read_manifest(bundle)


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist") as caught:
        verify_bundle(tmp_path / "none")
    assert caught.value.code == ExitCode.BUNDLE
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
        verify_bundle(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b" " * (4 << 20) + b"{}")
    with pytest.raises(BundleError, match="larger than"):
        verify_bundle(tmp_path)


# --- ONNX files -------------------------------------------------------------------------------

EXTERNAL = field(13, field(1, b"location") + field(2, b"/etc/passwd"))
LOCATED = _tag(14, 0) + b"\x01"


@pytest.mark.parametrize("outside", [EXTERNAL, LOCATED], ids=["external_data", "data_location"])
@pytest.mark.parametrize(
    "way",
    [
        (7, 5),  # an initializer
        (7, 1, 5, 5),  # a node's tensor attribute (Constant)
        (7, 1, 5, 10),  # a list of tensors
        (7, 1, 5, 6, 5),  # a subgraph's initializer (If, Loop)
        (7, 1, 5, 11, 1, 5, 5),
        (7, 15, 1),  # a sparse initializer's values
        (25, 7, 5, 5),  # a function's node
        (20, 2, 5),  # a training graph
    ],
    ids=str,
)
def test_external_data_is_refused_wherever_it_hides(way: tuple[int, ...], outside: bytes) -> None:
    inner = TENSOR + outside
    for number in reversed(way):
        inner = field(number, inner)
    with pytest.raises(BundleError, match="external data"):
        refuse_external_data(ONNX + inner, "m.onnx")


def test_a_bundle_with_external_data_is_neither_written_nor_read(tmp_path: Path) -> None:
    bad = field(7, field(5, TENSOR + EXTERNAL))
    with pytest.raises(BundleError, match="external data"):
        write_bundle(tmp_path / "b", small_manifest(), {"model.onnx": bad})
    assert os.listdir(tmp_path) == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_scanned_without_a_crash(data: bytes) -> None:
    for prefix in (b"", b"\x3a\x7f", ONNX):
        message = ""
        try:
            refuse_external_data(prefix + data, "m.onnx")
        except BundleError as error:
            message = str(error)
        assert not message or message.startswith("m.onnx: ")


def test_deep_nesting_ends() -> None:
    inner = b""
    for _ in range(60):
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(BundleError, match="nested too deeply"):
        refuse_external_data(field(7, inner), "m.onnx")


def test_real_onnx_with_external_data_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import numpy as np

    weight = onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    value = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [64, 64])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [value], [weight]))
    refuse_external_data(model.SerializeToString(), "m.onnx")
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(BundleError, match="external data"):
        refuse_external_data(path.read_bytes(), "m.onnx")


# --- writing ----------------------------------------------------------------------------------


def test_an_existing_bundle_stays_unless_replaced(bundle: Path) -> None:
    before = verify_bundle(bundle)
    with pytest.raises(PosewireError, match="exists already") as caught:
        write_bundle(bundle, {**small_manifest(), "version": "2"}, FILES)
    assert caught.value.code == ExitCode.CANNOT_WRITE
    assert verify_bundle(bundle) == before
    write_bundle(bundle, {**small_manifest(), "version": "2"}, FILES, replace=True)
    assert verify_bundle(bundle).version == "2"
    assert os.listdir(bundle.parent) == ["b"]


def test_replacing_works_without_the_kernels_exchange(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "_exchange", lambda one, other: False)
    write_bundle(bundle, {**small_manifest(), "version": "2"}, FILES, replace=True)
    assert verify_bundle(bundle).version == "2"
    assert os.listdir(bundle.parent) == ["b"]


@pytest.mark.parametrize(
    ("manifest", "files"),
    [
        ({"mode": "sideways"}, {}),
        ({"training": {"when": object()}}, {}),
        ({"training": {"loss": float("nan")}}, {}),
        ({"files": {}}, {}),
        ({}, {"../x": b""}),
        ({}, {"manifest.json": b"{}"}),
        ({}, {"model.onnx": b"not onnx"}),
        ({}, {"README.md": Path("/nonexistent/card")}),
    ],
)
def test_a_failed_write_leaves_the_old_bundle(
    bundle: Path, manifest: dict[str, Any], files: dict[str, Path | bytes]
) -> None:
    before = verify_bundle(bundle)
    with pytest.raises(BundleError):
        write_bundle(bundle, {**small_manifest(), **manifest}, {**FILES, **files}, replace=True)
    assert verify_bundle(bundle) == before
    assert os.listdir(bundle.parent) == ["b"]


def test_a_full_disk_is_an_error_of_writing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = verify_bundle(bundle)
    monkeypatch.setattr(bundle_module, "_store", full)
    with pytest.raises(PosewireError, match="No space left") as caught:
        write_bundle(bundle, small_manifest(), FILES, replace=True)
    assert caught.value.code == ExitCode.CANNOT_WRITE
    monkeypatch.undo()
    assert verify_bundle(bundle) == before
    assert os.listdir(bundle.parent) == ["b"]


def test_somebody_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(PosewireError, match="is not empty and no bundle"):
        write_bundle(tmp_path / "home", small_manifest(), FILES, replace=True)
    assert (tmp_path / "home" / "thesis.txt").read_text(encoding="utf-8") == "precious"
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(PosewireError, match="in the way"):
        write_bundle(tmp_path / "file", small_manifest(), FILES, replace=True)
