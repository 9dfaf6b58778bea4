# SPDX-License-Identifier: Apache-2.0
"""A bundle's manifest as typed, frozen Python. The specification stands on top of bundle.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .skeleton import Skeleton
from .strict_json import At, brief

SCHEMA = 1
MODES = ("bottom_up", "top_down", "detector")
LAYOUTS = ("NHWC", "NCHW")
SEQUENCE_LAYOUTS = ("NWC", "NCW")
DTYPES = ("uint8", "int8", "float16", "float32")
FORMATS = ("onnx", "openvino", "tensorrt", "tensorrt_rtx", "tflite", "uff", "fake")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-u8")
GATES = ("ap", "agreement", "pending")
RESERVED_FILES = ("manifest.json", "manifest.sig")
MAX_SIDE_PX = 16384
MAX_CHANNELS = 65536
MAX_LENGTH = 1 << 20

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Input:
    """The network's input, the same for every artifact. Sizes in pixels."""

    name: str
    width: int
    height: int
    channels: str  # "RGB" | "BGR"
    resize: str  # "letterbox"


@dataclass(frozen=True)
class Output:
    """One output: a map with a stride in input pixels, or a sequence of ``length`` vectors."""

    name: str
    channels: int
    stride: int | None
    length: int | None

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """A frame's shape, channels first, for an input of that many pixels."""
        if self.stride is None:
            assert self.length is not None
            return (self.channels, self.length)
        return (self.channels, -(-height // self.stride), -(-width // self.stride))


@dataclass(frozen=True)
class Crop:
    """How a top-down network's crop is cut: the box grown by ``padding``, then fitted."""

    padding: float
    fit: str  # "letterbox"


@dataclass(frozen=True)
class ArtifactInput:
    """What an artifact's input tensor holds. mean and std only when dtype is float32."""

    layout: str
    dtype: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class ArtifactOutput:
    """What an artifact's output tensor holds; scale and zero_point when it is quantised."""

    name: str
    layout: str
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Artifact:
    """One form of the network: its files, their format, its precision and tensors."""

    files: tuple[str, ...]
    format: str
    precision: str
    input: ArtifactInput
    outputs: tuple[ArtifactOutput, ...]


@dataclass(frozen=True)
class Target:
    """The machine and precision that a compiled bundle was made for. ``kept_layers``: the layers
    of a quantised network that stayed in floating point."""

    name: str
    runtime: str
    runtime_version: str
    device: str
    precision: str
    max_batch: int
    kept_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """The accuracy gate's verdict: measured value, limit, number of pictures, and how much each
    keypoint lost."""

    kind: str
    value: float
    limit: float
    pictures: int
    keypoints: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    """One measured figure: on what data, which metric, of which artifact."""

    data: str
    metric: str
    value: float
    artifact: str


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: hex sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class DerivedFrom:
    """The portable bundle that a compiled one was made from; sha256 is its manifest's."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. ``raw`` is the parsed JSON, ``sha256`` the digest of its bytes."""

    raw: Mapping[str, Any]
    sha256: str
    name: str
    version: str
    mode: str
    skeleton: Skeleton | None
    input: Input
    crop: Crop | None
    outputs: tuple[Output, ...]
    decode: Mapping[str, Any]
    artifacts: tuple[Artifact, ...]
    target: Target | None
    gate: Gate | None
    accuracy: tuple[Accuracy, ...]
    training: Mapping[str, Any]
    derived_from: DerivedFrom | None
    files: Mapping[str, FileEntry]

    @property
    def selftest(self) -> tuple[str, ...]:
        """The pictures of the agreement gate, by name, sorted."""
        return tuple(sorted(name for name in self.files if name.startswith("selftest-")))


def _file_name(at: At) -> str:
    return at.text(PLAIN_NAME, "must be a plain file name: A-Z, a-z, 0-9, . _ -, no folders")


def _zero_point(at: At) -> int:
    return at.integer(-128, 255, "an integer of -128..255")


def _input(at: At) -> Input:
    at.object(("name", "width", "height", "channels", "resize"))
    return Input(
        at["name"].word(),
        at["width"].positive(MAX_SIDE_PX),
        at["height"].positive(MAX_SIDE_PX),
        at["channels"].choice(("RGB", "BGR")),
        at["resize"].choice(("letterbox",)),
    )


def _crop(at: At) -> Crop:
    at.object(("padding", "fit"))
    padding = at["padding"].number()
    if not 1.0 <= padding <= 4.0:
        at["padding"].fail("must be a number of 1..4")
    return Crop(padding, at["fit"].choice(("letterbox",)))


def _outputs(at: At) -> tuple[Output, ...]:
    outputs: list[Output] = []
    for item in at.items(least=1):
        sequence = "length" in item.mapping()
        item.object(("name", "channels", "length" if sequence else "stride"))
        name = item["name"].word()
        if any(name == other.name for other in outputs):
            item["name"].fail(f"{name} appears twice")
        channels = item["channels"].positive(MAX_CHANNELS)
        stride = None if sequence else item["stride"].positive(MAX_SIDE_PX)
        length = item["length"].positive(MAX_LENGTH) if sequence else None
        outputs.append(Output(name, channels, stride, length))
    return tuple(outputs)


def _decode(at: At) -> Mapping[str, Any]:
    at.mapping()
    if not at.has("algorithm"):
        at.fail("algorithm is missing")
    at["algorithm"].word()
    return at.mapping()


def _triple(at: At, read: Callable[[At], float]) -> tuple[float, ...]:
    values = tuple(read(item) for item in at.items())
    if len(values) != 3:
        at.fail("must have 3 numbers, one per channel")
    return values


def _artifact_input(at: At) -> ArtifactInput:
    at.object(("layout", "dtype"), ("mean", "std", "scale", "zero_point"))
    dtype = at["dtype"].choice(DTYPES)
    for one, other in (("mean", "std"), ("std", "mean")):
        if at.has(one) and not at.has(other):
            at.fail(f"{one} stands without {other}")
    if at.has("mean") and dtype != "float32":
        at["mean"].fail("mean and std stand only where the dtype is float32")
    _quantisation(at, dtype, required=dtype == "int8")
    return ArtifactInput(
        at["layout"].choice(LAYOUTS),
        dtype,
        at.optional("mean", lambda a: _triple(a, At.number)),
        at.optional("std", lambda a: _triple(a, At.above_zero)),
        at.optional("scale", At.above_zero),
        at.optional("zero_point", _zero_point),
    )


def _quantisation(at: At, dtype: str, *, required: bool) -> None:
    """scale and zero_point go together, with integers only."""
    given = [key for key in ("scale", "zero_point") if at.has(key)]
    if given and dtype not in ("int8", "uint8"):
        at[given[0]].fail(f"stands only with a quantised dtype, not {dtype}")
    if len(given) == 1 or (required and not given):
        at.fail("a quantised tensor needs both scale and zero_point")


def _artifact_output(at: At, outputs: tuple[Output, ...]) -> ArtifactOutput:
    at.object(("name", "layout", "dtype"), ("scale", "zero_point"))
    dtype = at["dtype"].choice(DTYPES)
    _quantisation(at, dtype, required=dtype in ("int8", "uint8"))
    name = at["name"].word()
    spec = next((output for output in outputs if output.name == name), None)
    if spec is None:
        at["name"].fail(f"{name} is not one of the manifest's outputs")
    return ArtifactOutput(
        name,
        at["layout"].choice(SEQUENCE_LAYOUTS if spec.stride is None else LAYOUTS),
        dtype,
        at.optional("scale", At.above_zero),
        at.optional("zero_point", _zero_point),
    )


def _artifact(at: At, outputs: tuple[Output, ...]) -> Artifact:
    at.object(("files", "format", "precision", "input", "outputs"))
    files = tuple(_file_name(item) for item in at["files"].items(least=1))
    tensors: list[ArtifactOutput] = []
    for item in at["outputs"].items():
        tensor = _artifact_output(item, outputs)
        if any(tensor.name == other.name for other in tensors):
            item["name"].fail(f"{tensor.name} appears twice")
        tensors.append(tensor)
    for output in outputs:
        if all(output.name != tensor.name for tensor in tensors):
            at["outputs"].fail(f"lacks the manifest's output {output.name}")
    return Artifact(
        files,
        at["format"].choice(FORMATS),
        at["precision"].choice(PRECISIONS),
        _artifact_input(at["input"]),
        tuple(tensors),
    )


def _target(at: At) -> Target:
    required = ("name", "runtime", "runtime_version", "device", "precision", "max_batch")
    at.object(required, ("kept_layers",))
    kept = at.optional("kept_layers", lambda a: tuple(item.text() for item in a.items(least=1)))
    return Target(
        at["name"].word(),
        at["runtime"].word(),
        at["runtime_version"].text(),
        at["device"].text(),
        at["precision"].choice(PRECISIONS),
        at["max_batch"].positive(4096),
        kept or (),
    )


def _gate(at: At, skeleton: Skeleton | None) -> Gate:
    at.object(("kind", "value", "limit", "pictures"), ("keypoints",))
    drops = at["keypoints"] if at.has("keypoints") else None
    for name in drops.mapping() if drops is not None else ():
        if skeleton is None or name not in skeleton.keypoints:
            at["keypoints"].fail(f"{brief(name)} is not a keypoint of the skeleton")
        if not -1.0 <= at["keypoints"][name].number() <= 1.0:
            at["keypoints"][name].fail("must be a number of -1..1")
    return Gate(
        at["kind"].choice(GATES),
        at["value"].number(),
        at["limit"].number(),
        at["pictures"].integer(0, 2**31 - 1, "an integer of 0"),
        {name: float(value) for name, value in drops.mapping().items()} if drops else {},
    )


def _accuracy(at: At) -> Accuracy:
    at.object(("data", "metric", "value", "artifact"))
    return Accuracy(
        at["data"].text(), at["metric"].text(), at["value"].number(), at["artifact"].text()
    )


def _derived_from(at: At) -> DerivedFrom:
    at.object(("name", "version", "sha256"))
    digest = at["sha256"].text(_SHA256, "must be 64 lower-case hex digits")
    return DerivedFrom(at["name"].word(), at["version"].word(), digest)


def _files(at: At) -> dict[str, FileEntry]:
    entries: dict[str, FileEntry] = {}
    for name in at.mapping():
        if not PLAIN_NAME.fullmatch(name):
            at.fail(f"{brief(name)} is not a plain file name: A-Z, a-z, 0-9, . _ -, no folders")
        if name in RESERVED_FILES:
            at.fail(f"{name} cannot list itself" if name == RESERVED_FILES[0] else f"lists {name}")
        item = at[name].object(("sha256", "bytes"))
        digest = item["sha256"].text(_SHA256, "must be 64 lower-case hex digits")
        entries[name] = FileEntry(digest, item["bytes"].integer(0, 2**53, "a size in bytes"))
    return entries


_REQUIRED = (
    "schema",
    "name",
    "version",
    "mode",
    "skeleton",
    "input",
    "outputs",
    "decode",
    "artifacts",
    "target",
    "gate",
    "accuracy",
    "training",
    "derived_from",
    "files",
)


def _check_schema(at: At) -> None:
    """First of all, so that a bundle of a later posewire is named as one."""
    if not at.has("schema"):
        at.fail("schema is missing")
    version = at["schema"].integer(1, 2**31 - 1, "a positive integer")
    if version > SCHEMA:
        at["schema"].fail(f"is {version}, from a newer posewire; this one reads {SCHEMA}")


def _skeleton(at: At, mode: str, file: str) -> Skeleton | None:
    if (at.value is None) != (mode == "detector"):
        at.fail("must be null for a detector, and an object for everything else")
    return None if at.value is None else Skeleton.from_dict(at.value, f"{file}: skeleton")


def check_manifest(data: object, file: str, sha256: str = "") -> Manifest:
    """Checks parsed JSON against the specification. ``file`` starts every message.

    Raises BundleError naming the file and the key.
    """
    at = At(data, file)
    at.mapping()
    _check_schema(at)
    mode = at["mode"].choice(MODES) if at.has("mode") else ""
    at.object(_REQUIRED, ("crop",))
    if at.has("crop") != (mode == "top_down"):
        at.fail("crop must stand in a top_down manifest, and only there")
    outputs = _outputs(at["outputs"])
    artifacts = tuple(_artifact(item, outputs) for item in at["artifacts"].items(least=1))
    target = at["target"].or_null(_target)
    if target is not None and len(artifacts) != 1:
        at["artifacts"].fail("a compiled bundle carries exactly one")
    skeleton = _skeleton(at["skeleton"], mode, file)
    files = _files(at["files"])
    for i, artifact in enumerate(artifacts):
        for j, name in enumerate(artifact.files):
            if name not in files:
                at.fail(f"artifacts[{i}].files[{j}]: {name} is not listed in files")
    return Manifest(
        raw=at.mapping(),
        sha256=sha256,
        name=at["name"].word(),
        version=at["version"].word(),
        mode=mode,
        skeleton=skeleton,
        input=_input(at["input"]),
        crop=at.optional("crop", _crop),
        outputs=outputs,
        decode=_decode(at["decode"]),
        artifacts=artifacts,
        target=target,
        gate=at["gate"].or_null(lambda gate: _gate(gate, skeleton)),
        accuracy=tuple(_accuracy(item) for item in at["accuracy"].items()),
        training=at["training"].mapping(),
        derived_from=at["derived_from"].or_null(_derived_from),
        files=files,
    )
