# SPDX-License-Identifier: Apache-2.0
"""The model bundle: reader, writer and verifier. This is the format's specification, schema 1.

A bundle is a directory: ``manifest.json``, the files it lists, and optionally ``manifest.sig``
(ed25519 over manifest.json's bytes). Nothing else lies in it. All are regular files with plain
names, ``[A-Za-z0-9][A-Za-z0-9._-]{0,127}``: no folders, no links. A *portable* bundle
(target null) carries one network as several artifacts; a *compiled* one carries exactly one
artifact for one target. Neither is edited in place.

manifest.json is UTF-8 JSON of at most 4 MiB, no key twice, no NaN. Every key below must stand
(null only where said), an unknown key is an error, and a higher schema is refused as such::

    schema        1
    name, version words: [A-Za-z0-9][A-Za-z0-9._+-]{0,63}
    mode          "bottom_up" | "top_down" | "detector"
    skeleton      null for a detector, else {name, keypoints, limbs, flips, sigmas} (skeleton.py)
    input         {name, width, height (pixels), channels: "RGB" | "BGR", resize: "letterbox"}
    crop          {padding: 1..4, fit: "letterbox"}; in a top_down manifest, and only there
    outputs       [{name, channels, stride}], one or more; stride in input pixels. A sequence
                  (bins of a keypoint, rows of a detector) has {name, channels, length} instead
    decode        {algorithm, ...}: the rest is the decoder's own, parsed by cpp/decode/<algorithm>
    artifacts     [{files: [name], format, precision,
                    input: {layout, dtype, mean?, std?, scale?, zero_point?},
                    outputs: [{name, layout, dtype, scale?, zero_point?}]}], one or more
                  format     onnx | openvino | tensorrt | tensorrt_rtx | tflite | uff | fake
                  precision  fp32 | fp16 | bf16 | int8 | int8-u8
                  layout     NHWC | NCHW, of a sequence NWC | NCW
                  dtype      uint8 | int8 | float16 | float32
                  mean, std  3 numbers each, both or neither, float32 input only: the engine feeds
                             (x - mean) / std of x in 0..255
                  scale, zero_point  both or neither, integer tensors only (an integer output and
                             an int8 input must have them): value = (stored - zero_point) * scale
                  The outputs name each of the manifest's outputs once, in any order.
    target        null (portable) or {name, runtime, runtime_version, device, precision, max_batch,
                  kept_layers?}; kept_layers [name], one or more: the layers of a quantised network
                  that stayed in floating point
    gate          null or {kind: "ap" | "agreement" | "pending", value, limit, pictures,
                  keypoints?}; keypoints {name: drop of -1..1}: a keypoint's similarity is its OKS
                  term exp(-d^2 / (8 sigma^2 area)) averaged over the people who have it, 0 for one
                  not found (score.keypoint_similarity); the drop is the portable fp32's minus the
                  compiled one's
    accuracy      [{data, metric, value, artifact}]: what was measured; artifact is a precision
    training      {...}: provenance, free
    derived_from  null or {name, version, sha256}: the portable bundle, sha256 of its manifest.json
    files         {name: {sha256: 64 lower-case hex digits, bytes}}; lists every file but
                  manifest.json and manifest.sig

Files named ``selftest-…`` are the pictures of the agreement gate; ``README.md`` is the model card.
An ONNX file holds all of its weights: external data is refused by scanning the protobuf wire
format (onnx_check.py), before any library opens it. Sizes and digests are checked before that.

A bundle's identity on the wire is the sha256 of manifest.json's bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BundleError, ExitCode, PosewireError
from .manifest import PLAIN_NAME, RESERVED_FILES, FileEntry, Manifest, check_manifest
from .onnx_check import check_onnx, refuse_external_data
from .strict_json import parse_json

__all__ = [
    "Manifest",
    "check_manifest",
    "check_onnx",
    "read_manifest",
    "verify_bundle",
    "write_bundle",
]

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def _regular_file(path: Path, shown: str) -> Iterator[BinaryIO]:
    """Opens a regular file that is not a link; a pipe or device never blocks the reader."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{shown}: is a link; a bundle holds regular files only") from error
        raise BundleError(f"{shown}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{shown}: is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _read_limited(path: Path, limit: int, shown: str) -> bytes:
    with _regular_file(path, shown) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{shown}: is larger than {limit} bytes")
    return data


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Reads and checks a bundle's manifest.json; the other files are not looked at.

    Raises BundleError naming directory, file and key.
    """
    folder = Path(directory)
    if not folder.is_dir():
        missing = "is not a directory" if folder.exists() else "does not exist"
        raise BundleError(f"{folder}: {missing}; a bundle is a directory with a {MANIFEST}")
    shown = str(folder / MANIFEST)
    text = _read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES, shown)
    return check_manifest(parse_json(text, shown), shown, hashlib.sha256(text).hexdigest())


def _check_file(path: Path, entry: FileEntry, shown: str) -> None:
    """Size first, then the digest."""
    digest = hashlib.sha256()
    with _regular_file(path, shown) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.bytes:
            raise BundleError(f"{shown}: has {size} bytes, the manifest says {entry.bytes}")
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(f"{shown}: its sha256 is not the manifest's: damaged or tampered with")


def verify_bundle(directory: str | os.PathLike[str]) -> Manifest:
    """Reads a bundle and checks every file in it: present, regular, listed, size, sha256, and no
    external data in ONNX files.

    The signature is not this function's business. Raises BundleError naming directory and file.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    for name in sorted(os.listdir(folder)):
        if name not in manifest.files and name not in RESERVED_FILES:
            raise BundleError(f"{folder}: holds {name!a}, which {MANIFEST} does not list")
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry, str(folder / name))
    for artifact in manifest.artifacts:
        if artifact.format == "onnx":
            for name in artifact.files:
                shown = str(folder / name)
                data = _read_limited(folder / name, manifest.files[name].bytes, shown)
                refuse_external_data(data, shown)
    return manifest


def _one_line_per_entry(data: Mapping[str, Any]) -> str:
    """JSON that a person can read and diff: one line per key, lists of objects one per line."""

    def show(value: Any) -> str:
        compact = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if len(compact) <= 100 or not value:
            return compact
        if isinstance(value, dict):
            rows = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
            return "{\n    " + ",\n    ".join(rows) + "}"
        if isinstance(value, list):
            return "[\n    " + ",\n    ".join(json.dumps(item) for item in value) + "]"
        return compact

    return "{\n" + ",\n".join(f"  {json.dumps(k)}: {show(v)}" for k, v in data.items()) + "\n}\n"


def _store(target: Path, source: Path | bytes) -> FileEntry:
    """Writes one file durably and says what was written."""
    digest, size = hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(target, "xb"))
        if isinstance(source, bytes):
            chunks = iter((source,))
        else:
            file = stack.enter_context(_regular_file(source, str(source)))
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        for chunk in chunks:
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return FileEntry(digest.hexdigest(), size)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step (renameat2 of Linux); False where that is not offered."""
    at_cwd, exchange = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    result = rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)
    return bool(result == 0)


def _put_in_place(made: Path, out: Path) -> None:
    """Moves the finished directory to its name; what stood there is removed afterwards."""
    if not out.exists():
        os.rename(made, out)
        return
    if not _exchange(made, out):
        old = made.with_name(made.name + ".old")
        os.rename(out, old)
        os.rename(made, out)
        made = old
    shutil.rmtree(made)


def _refuse_to_replace(out: Path, replace: bool) -> None:
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise PosewireError(f"{out}: is in the way and no bundle", ExitCode.CANNOT_WRITE)
    if not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise PosewireError(f"{out}: is not empty and no bundle", ExitCode.CANNOT_WRITE)
    if not replace:
        raise PosewireError(f"{out}: exists already", ExitCode.CANNOT_WRITE)


def write_bundle(
    out_dir: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    files: Mapping[str, Path | bytes],
    *,
    replace: bool = False,
) -> Manifest:
    """Writes a bundle, all or nothing, and returns its verified manifest.

    ``manifest`` has no "files": sizes and digests are taken from ``files`` (plain name -> a path to
    copy or the bytes). The bundle is written aside, synced, verified and renamed, so ``out_dir``
    never holds half of one; with ``replace`` an existing bundle is exchanged for it in one step.
    Raises BundleError for a manifest that is not one, PosewireError (CANNOT_WRITE) where the file
    system refuses or ``out_dir`` is taken.
    """
    out = Path(os.path.abspath(out_dir))
    if "files" in manifest:
        raise BundleError(f"{out / MANIFEST}: files: is filled in by the writer")
    for name in files:
        if not PLAIN_NAME.fullmatch(name) or name in RESERVED_FILES:
            raise BundleError(f"{out}: {name!a} is not a plain file name of a bundle's file")
    _refuse_to_replace(out, replace)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise PosewireError(f"{out}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    try:
        return _write_aside(made, out, manifest, files)
    except OSError as error:
        raise PosewireError(f"{out}: {error.strerror}", ExitCode.CANNOT_WRITE) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_aside(
    made: Path, out: Path, manifest: Mapping[str, Any], files: Mapping[str, Path | bytes]
) -> Manifest:
    os.chmod(made, 0o755)  # mkdtemp's 0700 would hide a bundle from the daemon's user
    entries = {name: _store(made / name, files[name]) for name in sorted(files)}
    listed = {name: {"sha256": e.sha256, "bytes": e.bytes} for name, e in entries.items()}
    try:
        text = _one_line_per_entry({**manifest, "files": listed}).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BundleError(f"{out / MANIFEST}: cannot be written as JSON: {error}") from error
    # Checked under its future name first, so that a message names what the caller asked for.
    check_manifest(parse_json(text, str(out / MANIFEST)), str(out / MANIFEST))
    _store(made / MANIFEST, text)
    verified = verify_bundle(made)
    _sync_folder(made)
    _put_in_place(made, out)
    _sync_folder(out.parent)
    return verified
