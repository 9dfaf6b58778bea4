# SPDX-License-Identifier: Apache-2.0
"""``posewire serve CONFIG.toml``: the file, its keys and what they mean.

::

    node = "n1"                          # [a-z0-9_-]{1,48}; the second level of every topic

    [bundle]
    path = "models/coco17-paf"           # relative to this file; portable ones are compiled here
    precision = "auto"                   # fp32 | fp16 | bf16 | int8 | auto
    target = "x86-cpu"                   # default: this machine's
    state = "/var/lib/posewire"          # where `posewire update` puts bundles; slots.py's default
    trial_s = 60.0                       # a new one must run so long before the old one is let go

    [mqtt]
    url = "mqtts://broker.local"         # mqtt://host[:1883] or mqtts://host[:8883]
    username = "posewire"
    password_file = "mqtt.password"      # or password_credential = "mqtt.password" (systemd)
    ca_file = "ca.pem"                   # default: the system's authorities
    cert_file = "me.pem"                 # client certificate
    key_file = "me.key"
    insecure = false                     # true: mqtts without verification; logged and in `info`
    version = "auto"                     # "5" | "3.1.1" | "auto": 5 first
    qos = 0                              # of poses: 0 or 1
    client_id = "posewire-n1"            # default: posewire-<node>

    [cameras.door]
    uri = "rtsp://camera.local/stream"   # the URIs of DESIGN 3.6; files relative to this file
    policy = "auto"                      # auto | block | drop_oldest
    enabled = true                       # false: its status says "disabled"
    loop = false                         # files: start again at the end
    fps = 0.0                            # files, synthetic: pace to this rate; 0 as fast as read
    realtime = false                     # files: at the pace at which they were taken
    timeout_ms = 5000                    # live: no data for so long is a failure

    [engine]
    requests = 0                         # in flight; 0 = the runtime's choice, so the next two
    threads = 0
    max_batch = 0
    min_score = 0.0                      # people below are not reported
    heartbeat_s = 10.0                   # no progress for so long: the engine is killed, restarted
    start_timeout_s = 180.0              # the same until it says that it is ready

    [health]
    interval_s = 30.0

    [[sinks]]                            # local files beside MQTT
    kind = "video"                       # video | ndjson
    path = "annotated.mp4"

Passwords stand in files or systemd credentials, never in this file, the environment or argv.
An unknown key is an error; every error names file, line and key.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import EdgeError
from .sources import absolute
from .toml_lines import line_of, lines_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESERVED = ("status", "info", "health", "cmd")
_NAME = re.compile(r"[a-z0-9_-]{1,48}")


def _name(value: object) -> object:
    if isinstance(value, str):
        if not _NAME.fullmatch(value):
            raise ValueError(f"{value!r} is no name: 1 to 48 of a-z, 0-9, _ and -")
        if value in RESERVED:
            raise ValueError(f"{value!r} is reserved")
    return value


def _text(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must not be empty" if not value else "holds a NUL byte")
    return value


def _file(value: object) -> object:
    """Strings only; made absolute later, when the config's folder is known."""
    return Path(str(_text(value))) if isinstance(value, str) else value


Name = Annotated[str, BeforeValidator(_name)]
Text = Annotated[str, BeforeValidator(_text)]
File = Annotated[Path, BeforeValidator(_file)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Bundle(_Section):
    path: File
    precision: Literal["fp32", "fp16", "bf16", "int8", "auto"] = "auto"
    target: Text | None = None
    state: File | None = None
    trial_s: Seconds = 60.0


class Mqtt(_Section):
    url: Text
    username: Text | None = None
    password_file: File | None = None
    password_credential: Text | None = None
    ca_file: File | None = None
    cert_file: File | None = None
    key_file: File | None = None
    insecure: bool = False
    version: Literal["auto", "5", "3.1.1"] = "auto"
    qos: Literal[0, 1] = 0
    client_id: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Mqtt:
        split_broker(self.url)
        if self.password_file and self.password_credential:
            raise ValueError("password_file and password_credential exclude each other")
        if (self.password_file or self.password_credential) and not self.username:
            raise ValueError("a password needs a username")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together")
        for key in ("ca_file", "cert_file", "insecure"):
            if getattr(self, key) and not self.tls:
                raise ValueError(f"{key} has no meaning without TLS (url mqtts://…)")
        return self

    @property
    def tls(self) -> bool:
        return split_broker(self.url)[2]

    @property
    def host(self) -> str:
        return split_broker(self.url)[0]

    @property
    def port(self) -> int:
        return split_broker(self.url)[1]

    def password(self) -> str | None:
        """Read now, not kept. Raises EdgeError naming the file."""
        path = self.password_file
        if self.password_credential:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise EdgeError(
                    "mqtt.password_credential: systemd gave no credentials "
                    "(LoadCredential= in the unit sets $CREDENTIALS_DIRECTORY)"
                )
            path = Path(folder) / self.password_credential
        if path is None:
            return None
        try:
            return path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EdgeError(f"{path}: cannot read the MQTT password: {_why(error)}") from None


class Camera(_Section):
    uri: Text
    policy: Literal["auto", "block", "drop_oldest"] = "auto"
    enabled: bool = True
    loop: bool = False
    realtime: bool = False
    fps: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    timeout_ms: Annotated[int, Field(ge=100, le=600_000)] = 5000


class Engine(_Section):
    requests: Annotated[int, Field(ge=0, le=64)] = 0
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    max_batch: Annotated[int, Field(ge=0, le=256)] = 0
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    heartbeat_s: Seconds = 10.0
    start_timeout_s: Seconds = 180.0


class Health(_Section):
    interval_s: Seconds = 30.0


class SinkFile(_Section):
    kind: Literal["video", "ndjson"]
    path: File


class Config(_Section):
    """The whole file, checked; paths in it are absolute."""

    node: Name
    bundle: Bundle
    mqtt: Mqtt
    cameras: Annotated[dict[Name, Camera], Field(min_length=1)]
    engine: Engine = Engine()
    health: Health = Health()
    sinks: tuple[SinkFile, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if not self.active:
            raise ValueError("cameras: every camera has enabled = false")
        return self

    @property
    def active(self) -> dict[str, Camera]:
        """The cameras that are not disabled."""
        return {name: camera for name, camera in self.cameras.items() if camera.enabled}


def load_config(path: Path) -> Config:
    """Reads and checks a config.

    Raises EdgeError (CONFIG): "posewire.toml:12: cameras.door.urI: unknown key (did you mean
    uri?)"; the first of several, and how many more there are.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise EdgeError(f"{path}: cannot read the config: {_why(error)}") from None
    except UnicodeDecodeError as error:
        raise EdgeError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise EdgeError(_syntax(path, str(error))) from None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise EdgeError(_first(path, text, error)) from None
    return _absolute(config, path.absolute().parent)


def split_broker(url: str) -> tuple[str, int, bool]:
    """mqtt[s]://host[:port] -> host, port, TLS. Raises ValueError saying what is wrong."""
    parts: SplitResult = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError("url: must be mqtt://host[:port] or mqtts://host[:port]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: holds credentials; they belong in username and password_file")
    if not parts.hostname:
        raise ValueError("url: names no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("url: nothing may follow the host and port")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("url: the port is no number from 1 to 65535") from None
    if port == 0:
        raise ValueError("url: the port is no number from 1 to 65535")
    tls = parts.scheme == "mqtts"
    return parts.hostname, port or (8883 if tls else 1883), tls


def _absolute(config: Config, folder: Path) -> Config:
    """Relative paths are relative to the config file, whatever the working directory is."""

    def deep(value: Any) -> Any:
        if isinstance(value, Path):
            return folder / value
        if isinstance(value, Camera):
            return value.model_copy(update={"uri": absolute(value.uri, folder)})
        if isinstance(value, BaseModel):
            return value.model_copy(
                update={key: deep(getattr(value, key)) for key in type(value).model_fields}
            )
        if isinstance(value, dict):
            return {key: deep(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(deep(item) for item in value)
        return value

    return deep(config)  # type: ignore[no-any-return]


def _first(path: Path, text: str, error: ValidationError) -> str:
    found = lines_of(text)
    told: list[tuple[bool, int, str]] = []
    for problem in error.errors():
        location = tuple(part for part in problem["loc"] if part != "[key]")
        line = line_of(found, location)
        unknown = problem["type"] == "extra_forbidden"  # first: a typo explains what is missing
        told.append((not unknown, line, f"{path}:{line}: {_said(location, problem)}"))
    told.sort(key=lambda item: item[:2])
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return told[0][2] + more


def _said(location: tuple[str | int, ...], problem: Any) -> str:
    key = ".".join(map(str, location))
    kind, message = problem["type"], problem["msg"]
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        close = difflib.get_close_matches(str(location[-1]).lower(), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
        return f"{key}: unknown key ({hint})"
    if kind == "missing":
        return f"{key}: required key is missing"
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
    if kind == "too_short" and key == "cameras":
        message = "needs at least one [cameras.<name>]"
    return f"{key}: {message[:1].lower()}{message[1:]}" if key else message


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    tables: dict[str, type[_Section]] = {
        "bundle": Bundle,
        "mqtt": Mqtt,
        "cameras": Camera,
        "engine": Engine,
        "health": Health,
        "sinks": SinkFile,
    }
    section = tables[str(location[0])] if location else Config
    return list(section.model_fields)


def _syntax(path: Path, message: str) -> str:
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message)
    if match:
        return f"{path}:{match[2]}: {match[1]} (column {match[3]})"
    return f"{path}: {message}"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


__all__ = ["Camera", "Config", "Mqtt", "load_config", "split_broker"]
