# SPDX-License-Identifier: Apache-2.0
"""What can be said of a source by its address alone; opening it is the engine's business."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from .config import Camera

LIVE = ("v4l2", "rtsp", "rtsps", "http", "https", "csi", "gst")
_SCHEME = re.compile(r"([A-Za-z0-9+-]+):")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def scheme_of(uri: str) -> str:
    """The same rule as the engine's: letters, digits, + and - before the first colon."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def is_finite(camera: Camera) -> bool:
    """Whether the source ends by itself: files and folders that do not loop, counted synthetics."""
    scheme = scheme_of(camera.uri)
    if camera.loop or scheme in LIVE:
        return False
    if scheme == "synthetic":
        return bool(_synthetic_frames(camera.uri))
    return True


def _synthetic_frames(uri: str) -> int | None:
    told = parse_qs(uri.partition("?")[2]).get("frames", [""])[0]
    return int(told) or None if told.isdigit() else None


def is_lossless(camera: Camera) -> bool:
    """Whether the source waits for us, so that no frame need be dropped."""
    if camera.policy == "auto":
        return is_finite(camera)
    return camera.policy == "block"


def path_of(uri: str) -> Path | None:
    """The path of a file or folder; None for another kind of source."""
    scheme = scheme_of(uri)
    if scheme not in ("", "file"):
        return None
    rest = uri.partition(":")[2] if scheme else uri
    return Path(rest[2:] if scheme and rest.startswith("///") else rest)


def absolute(uri: str, folder: Path) -> str:
    """Files and folders relative to ``folder``; other addresses as they are."""
    path = path_of(uri)
    if path is None or path.is_absolute():
        return uri
    return "file:" + str(folder / path) if scheme_of(uri) else str(folder / path)


def redacted(uri: str) -> str:
    """The address without its credentials, for people and logs."""
    return re.sub(r"//[^/@\s]*(?:@[^/@\s]*)*@", "//***@", uri)


def frames_in(uri: str) -> int | None:
    """How many frames a finite source will give, where that can be known: for progress bars.

    A container's own count may be off by a few. None when unknown; opens local files only.
    """
    if scheme_of(uri) == "synthetic":
        return _synthetic_frames(uri)
    path = path_of(uri)
    if path is None:
        return None
    if path.is_dir():
        names = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        return sum(entry.suffix.lower() in _PICTURES for entry in names) or None
    if not path.is_file():
        return None
    if path.suffix.lower() in _PICTURES:
        return 1
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        video.release()
    return count if count > 0 else None
