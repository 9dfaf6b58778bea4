# SPDX-License-Identifier: Apache-2.0
"""``model.algorithm_options`` of a configuration, checked as an algorithm describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import TrainError

Options = TypeVar("Options", bound=BaseModel)


def checked(kind: type[Options], options: Mapping[str, Any]) -> Options:
    """The options as a ``kind``. Raises TrainError naming the key."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise TrainError(f"model.algorithm_options.{key}: {what}") from error
