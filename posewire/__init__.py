# SPDX-License-Identifier: Apache-2.0
"""posewire: trains a pose network, compiles it for a device, and puts poses on the wire."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from .errors import BundleError, ExitCode, PosewireError

__all__ = ["BundleError", "ExitCode", "PosewireError", "__version__", "engine_path"]


def _version() -> str:
    try:
        return metadata.version("posewire")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"


__version__ = _version()


def engine_path() -> Path:
    """The ``posewire-engine`` binary that was installed with this package.

    Raises PosewireError (UNAVAILABLE) where it is missing, naming where it was looked for.
    """
    # An editable install spreads the package over several folders, all of them in __path__.
    places = [Path(folder) / "bin" / "posewire-engine" for folder in __path__]
    try:
        distribution = metadata.distribution("posewire")
    except metadata.PackageNotFoundError:
        pass
    else:
        places.append(Path(str(distribution.locate_file("posewire/bin/posewire-engine"))))
    for place in places:
        if place.is_file():
            return place
    raise PosewireError(
        "posewire-engine is not installed; looked for " + ", ".join(map(str, places)),
        ExitCode.UNAVAILABLE,
    )
