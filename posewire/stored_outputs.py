# SPDX-License-Identifier: Apache-2.0
"""Network outputs on disk without their network: what ``posewire bench decode --inputs`` reads.

A folder of::

    manifest.json  a manifest (bundle.py) of which only these are read:
                   mode (absent: bottom_up), skeleton, input (its width and height in pixels),
                   outputs, each with its ``layout`` (NCHW when absent; of a sequence NCW), and
                   decode, whose algorithm may be absent. Unknown keys are errors all the same.
    NAME.npz       one frame (of a top-down network one crop) each, decoded in the order of their
                   names: an array per output, named as it, float32, [C, H, W] or [H, W, C]
                   ([C, length] or [length, C]) as the layout says, a batch axis of 1 accepted.
                   Stored or deflated (numpy.savez, numpy.savez_compressed).
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, ExitCode, PosewireError
from .strict_json import parse_json

MANIFEST = "manifest.json"
_NOT_READ = (
    "name",
    "version",
    "artifacts",
    "target",
    "gate",
    "accuracy",
    "training",
    "derived_from",
    "files",
)
# What numpy's reader and the zip reader below it raise for a file that is none or is damaged.
_UNREADABLE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_stored_manifest(folder: Path, algorithm: str) -> dict[str, Any]:
    """The folder's manifest as :class:`posewire.decode.Decoder` takes it, its algorithm filled in.

    The decoder checks the values. Raises PosewireError: SOURCE without the folder, BUNDLE for a
    manifest that is missing, no JSON object, or of another algorithm.
    """
    if not folder.is_dir():
        missing = "is not a directory" if folder.exists() else "does not exist"
        raise PosewireError(f"{folder}: {missing}", ExitCode.SOURCE)
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    raw = parse_json(text, str(path))
    if not isinstance(raw, dict):
        raise BundleError(f"{path}: must be an object")
    manifest = {key: value for key, value in raw.items() if key not in _NOT_READ}
    decode = manifest.get("decode", {})
    if not isinstance(decode, dict):
        raise BundleError(f"{path}: decode: must be an object")
    named = decode.get("algorithm", algorithm)
    if named != algorithm:
        raise BundleError(f"{path}: decode.algorithm: is {dumps(named)}, not {dumps(algorithm)}")
    return {**manifest, "decode": {**decode, "algorithm": algorithm}}


def frame_files(folder: Path) -> list[Path]:
    """The folder's frames in order. Raises PosewireError (SOURCE) where there is none."""
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise PosewireError(f"{folder}: has no .npz file, one per frame", ExitCode.SOURCE)
    return paths


def read_frame(path: Path, names: Iterable[str]) -> tuple[dict[str, NDArray[np.float32]], set[str]]:
    """One frame's outputs ``names``, and the names of further arrays, which nobody asked for.

    Raises PosewireError (SOURCE) naming file and array: unreadable, missing or not float32. Shapes
    are the decoder's to check.
    """
    frame: dict[str, NDArray[np.float32]] = {}
    try:
        archive = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise _refused(path, f"is not a readable .npz file: {_words(error)}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _refused(path, "is not a readable .npz file: it holds a single array")
    with archive:
        for name in names:
            if name not in archive.files:
                raise _refused(path, f"{name}: is missing; it holds {_listed(archive.files)}")
            try:
                values = archive[name]
            except _UNREADABLE as error:
                raise _refused(path, f"{name}: cannot be read: {_words(error)}") from error
            if not isinstance(values, np.ndarray) or values.dtype != np.dtype("=f4"):
                dtype = getattr(values, "dtype", "no array")
                raise _refused(path, f"{name}: must be float32, not {dtype}")
            frame[name] = values
        return frame, set(archive.files) - set(frame)


def write_frames(
    folder: Path,
    manifest: Mapping[str, Any],
    frames: Iterable[tuple[str, Mapping[str, NDArray[np.float32]]]],
) -> None:
    """Writes such a folder, aside and renamed: ``manifest`` and each frame under its name.

    Raises PosewireError (CANNOT_WRITE), also where the folder is there already and not empty.
    """
    aside: Path | None = None
    try:
        parent = folder.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=parent))
        aside.chmod(0o755)
        (aside / MANIFEST).write_text(dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for name, outputs in frames:
            # Not numpy.savez: its own parameters would hide outputs of their names.
            with zipfile.ZipFile(aside / f"{name}.npz", "x") as archive:
                for output, values in outputs.items():
                    with archive.open(f"{output}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, values, allow_pickle=False)
        os.rename(aside, folder)
    except OSError as error:
        if aside is not None:
            for path in aside.iterdir():
                path.unlink()
            aside.rmdir()
        raise PosewireError(f"{folder}: {error.strerror}", ExitCode.CANNOT_WRITE) from error


def _refused(path: Path, what: str) -> PosewireError:
    return PosewireError(f"{path}: {what}", ExitCode.SOURCE)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _words(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)
