# SPDX-License-Identifier: Apache-2.0
"""The daemon's config: what is accepted, and that every refusal names file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posewire.edge.config import load_config, split_broker
from posewire.edge.errors import EdgeError
from posewire.edge.toml_lines import line_of, lines_of

from posewire.errors import ExitCode

GOOD = """\
node = "n1"

[bundle]
path = "models/paf"

[mqtt]
url = "mqtt://localhost"

[cameras.door]
uri = "rtsp://camera/1"
"""


def refused(folder: Path, text: str) -> str:
    path = folder / "posewire.toml"
    path.write_text(text)
    with pytest.raises(EdgeError) as caught:
        load_config(path)
    assert caught.value.code == ExitCode.CONFIG
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value).removeprefix(f"{path}:")


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "posewire.toml"
    path.write_text(GOOD + '[cameras.clip]\nuri = "a/clip.mp4"\n[cameras.abs]\nuri = "file:/x.mp4"')
    config = load_config(path)
    assert config.bundle.path == tmp_path / "models/paf"
    assert config.bundle.precision == "auto"
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.tls) == ("localhost", 1883, False)
    assert config.cameras["door"].uri == "rtsp://camera/1"
    assert config.cameras["clip"].uri == str(tmp_path / "a/clip.mp4")
    assert config.cameras["abs"].uri == "file:/x.mp4"
    assert config.health.interval_s == 30
    with pytest.raises(ValueError, match="frozen"):
        config.node = "other"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'uri = "',
            'urI = "',
            "10: cameras.door.urI: unknown key (did you mean uri?) (and 1 more)",
        ),
        ('node = "n1"', "", "1: node: required key is missing"),
        ('node = "n1"', 'node = "N 1"', "1: node: 'N 1' is no name: 1 to 48 of a-z, 0-9, _ and -"),
        ('node = "n1"', 'node = "status"', "1: node: 'status' is reserved"),
        ("[cameras.door]", "[cameras.health]", "9: cameras.health: 'health' is reserved"),
        ("[cameras.door]", '[cameras."Door 1"]', "9: cameras.Door 1: 'Door 1' is no name: 1 to"),
        ("[cameras.door]", "[engine]\nthreads = -1\n[cameras.door]", "10: engine.threads: input"),
        ("[mqtt]", '[mqtt]\nqos = "1"', "7: mqtt.qos: input should be 0 or 1"),
        ("[mqtt]", "[mqtt]\nqos = 2", "7: mqtt.qos: input should be 0 or 1"),
        ("[mqtt]", "[mqtt]\ninsecure = true", "6: mqtt: insecure has no meaning without TLS"),
        ("[mqtt]", '[mqtt]\npassword_file = "x"', "6: mqtt: a password needs a username"),
        ("mqtt://localhost", "http://localhost", "6: mqtt: url: must be mqtt://host[:port] or"),
        ("mqtt://localhost", "mqtt://me:pass@host", "6: mqtt: url: holds credentials; they belong"),
        ("mqtt://localhost", "mqtt://host:99999", "6: mqtt: url: the port is no number"),
        ('uri = "', 'fps = nan\nuri = "', "10: cameras.door.fps: input should be"),
        ('uri = "', 'enabled = false\nuri = "', "1: cameras: every camera has enabled = false"),
        ("[mqtt]", "[mqtt", "6: Expected ']' at the end of a table declaration (column 6)"),
        ("[mqtt]", '[[sinks]]\nkind = "audio"\npath = "a"\n[mqtt]', "7: sinks.0.kind: input"),
        ("[mqtt]", "[node]\nx = 1\n[mqtt]", "6: Cannot"),
    ],
)
def test_refusals(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert refused(tmp_path, GOOD.replace(old, new)).startswith(said)


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(EdgeError, match="cannot read the config: No such file"):
        load_config(path)
    path.write_bytes(b"\xff")
    with pytest.raises(EdgeError, match="not UTF-8"):
        load_config(path)


def test_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "posewire.toml"
    secret = '[mqtt]\nusername = "me"\npassword_'
    path.write_text(GOOD.replace("[mqtt]", secret + 'file = "secret"'))
    mqtt = load_config(path).mqtt
    with pytest.raises(EdgeError, match=f"{tmp_path}/secret: cannot read the MQTT password"):
        mqtt.password()
    (tmp_path / "secret").write_text("s3\n")
    assert mqtt.password() == "s3"
    path.write_text(GOOD.replace("[mqtt]", secret + 'credential = "secret"'))
    mqtt = load_config(path).mqtt
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(EdgeError, match="LoadCredential"):
        mqtt.password()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert mqtt.password() == "s3"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://h", ("h", 1883, False)),
        ("mqtts://h", ("h", 8883, True)),
        ("mqtts://[::1]:1", ("::1", 1, True)),
    ],
)
def test_broker_addresses(url: str, parts: tuple[str, int, bool]) -> None:
    assert split_broker(url) == parts


def test_lines_of_keys() -> None:
    text = '''\
# [not.a.table]
a = 1
"b c".d = """
[not.a.table]
e = 2
"""
f = [
  "[", # ]
  "x = 1",
]
[t]
a = '\\'
"a.b" = { c = 1 }
[t.u]
a = 3
[[l]]
a = 4
[[l]]
a = 5
[l.m]
a = 6
'''
    found = lines_of(text)
    assert {path: line for path, line in found.items() if path} == {
        ("a",): 2,
        ("b c",): 3,
        ("b c", "d"): 3,
        ("f",): 7,
        ("t",): 11,
        ("t", "a"): 12,
        ("t", "a.b"): 13,
        ("t", "u"): 14,
        ("t", "u", "a"): 15,
        ("l",): 16,
        ("l", 0): 16,
        ("l", 0, "a"): 17,
        ("l", 1): 18,
        ("l", 1, "a"): 19,
        ("l", 1, "m"): 20,
        ("l", 1, "m", "a"): 21,
    }
    assert line_of(found, ("t", "a.b", "c")) == 13
    assert line_of(found, ("nowhere",)) == 1


@given(st.text(alphabet="abx=.[]{}\"'#\n \\", max_size=200))
def test_any_text_is_scanned_without_a_crash(text: str) -> None:
    lines = text.splitlines()
    assert all(1 <= line <= max(1, len(lines)) for line in lines_of(text).values())
