# SPDX-License-Identifier: Apache-2.0
"""Whether a broker answers: the one of a config, with its password, and where none is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from posewire.edge import surroundings
from posewire.edge.errors import EdgeError


def config(folder: Path, port: int, more: str = "") -> Path:
    path = folder / "posewire.toml"
    path.write_text(
        f'node = "n1"\n[bundle]\npath = "bundle"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n{more}\n'
        '[cameras.one]\nuri = "synthetic:"\n'
    )
    return path


def test_a_broker_that_answers(broker: Any, tmp_path: Path) -> None:
    state = surroundings.broker_state(config(tmp_path, broker.port))
    assert state.answers
    assert (state.configured, state.why) == (True, "")
    assert state.url == f"mqtt://127.0.0.1:{broker.port}"


def test_a_broker_that_is_not_there(
    broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.stop()
    state = surroundings.broker_state(config(tmp_path, broker.port))
    assert not state.answers
    assert "refused" in state.why
    monkeypatch.setattr(surroundings, "LOCAL_BROKER", f"mqtt://127.0.0.1:{broker.port}")
    local = surroundings.broker_state()
    assert (local.configured, local.answers) == (False, False)


def test_a_config_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="colour"):
        surroundings.broker_state(config(tmp_path, 1883, 'colour = "red"'))
