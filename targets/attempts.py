# SPDX-License-Identifier: Apache-2.0
"""Builds that never ended: a compiler that crashes takes this process with it, and a daemon would
start the next one, for ever. So each build leaves a mark in the cache while it runs; after three
marks that were left behind it is refused, or passed over by ``--precision auto``.

The mark belongs to the result's key, so another library, driver or bundle begins anew.
``--no-cache`` does, too. A build that is stopped from outside counts like one that crashed: nobody
can tell them apart afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from . import cache

LIMIT = 3


def left_behind(key: str) -> int:
    """How many builds of this key have begun and not ended."""
    try:
        text = (cache.folder() / f"{key}.attempts").read_text(encoding="ascii")
        return max(0, int(text))
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def counted(key: str) -> Iterator[None]:
    """While a build runs. One that ends, well or with an error that was raised, leaves nothing."""
    path = cache.folder() / f"{key}.attempts"
    path.write_text(f"{left_behind(key) + 1}\n", encoding="ascii")
    try:
        yield
    finally:
        forget(key)


def forget(key: str) -> None:
    """Begins anew."""
    with contextlib.suppress(FileNotFoundError):
        (cache.folder() / f"{key}.attempts").unlink()
