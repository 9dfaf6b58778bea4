# SPDX-License-Identifier: Apache-2.0
"""The manifest's reader over the corpus that the C++ reader shares, and over anything at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posewire.errors import BundleError
from posewire.manifest import check_manifest
from posewire.strict_json import parse_json

CORPUS = Path(__file__).parents[1] / "golden" / "bundles"
CASES = sorted(CORPUS.glob("*.json"))
GOOD: dict[str, Any] = json.loads((CORPUS / "good.json").read_text(encoding="utf-8"))["manifest"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    if not case["error"]:
        check_manifest(case["manifest"], "m.json")
        return
    with pytest.raises(BundleError) as caught:
        check_manifest(case["manifest"], "m.json")
    assert str(caught.value).startswith("m.json: ")
    assert case["error"] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_corpus_is_there() -> None:
    assert len(CASES) > 50


def test_typed_fields() -> None:
    manifest = check_manifest(GOOD, "m.json", "ab")
    assert (manifest.name, manifest.mode, manifest.sha256) == (GOOD["name"], "bottom_up", "ab")
    assert manifest.skeleton is not None
    assert manifest.skeleton.count == 18
    assert (manifest.input.width, manifest.input.height) == (432, 368)
    assert [output.channels for output in manifest.outputs] == [19, 38]
    assert [a.precision for a in manifest.artifacts] == ["fp32", "fp16", "int8", "int8-u8"]
    assert manifest.target is None
    assert manifest.files["model.onnx"].bytes == 1


def test_the_spec_example_of_a_message() -> None:
    data = json.loads((CORPUS / "output_stride_zero.json").read_text(encoding="utf-8"))["manifest"]
    with pytest.raises(BundleError) as caught:
        check_manifest(data, "models/x/manifest.json")
    expected = "models/x/manifest.json: outputs[1].stride: must be a positive integer"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"schema": ' + b"9" * 10_000 + b"}",
        b'{"schema": 1e999}',
        b"null",
        b"[]",
    ],
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"^m\.json: "):
        check_manifest(parse_json(text, "m.json"), "m.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(GOOD)), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_json_is_refused_and_nothing_else_happens(data: Any) -> None:
    with pytest.raises(BundleError):
        check_manifest(data, "m.json")


def places(data: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside."""
    found = [way] if way else []
    if isinstance(data, dict):
        for key, value in data.items():
            found += places(value, (*way, key))
    elif isinstance(data, list):
        for index, value in enumerate(data[:3]):
            found += places(value, (*way, index))
    return found


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(GOOD)), JSON)
def test_any_value_anywhere_is_read_or_refused(way: tuple[Any, ...], value: Any) -> None:
    data = json.loads(json.dumps(GOOD))
    place = data
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    message = ""
    try:
        check_manifest(data, "m.json")
    except BundleError as error:
        message = str(error)
    assert not message or message.startswith("m.json: ")
