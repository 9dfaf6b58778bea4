# SPDX-License-Identifier: Apache-2.0
"""``posewire serve --check``: what a config would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterator

from posewire.bundle import verify_bundle

from .config import Config
from .engine import engine_command
from .prepare import default_target
from .sources import is_finite, is_lossless, redacted


def plan(config: Config) -> Iterator[str]:
    """A line per fact. Raises what ``serve`` would raise before it starts anything: files that are
    missing, bundles that are damaged, an engine that is not installed. Connects to nothing."""
    mqtt = config.mqtt
    manifest = verify_bundle(config.bundle.path)
    engine = engine_command()[0]
    password = mqtt.password()
    target = manifest.target
    if target is None:
        how = (
            f"compiled here for {config.bundle.target or default_target()}, "
            f"precision {config.bundle.precision}"
        )
    else:
        how = f"compiled for {target.name}, {target.runtime} {target.precision}"
    tls = ("TLS, NOT verified" if mqtt.insecure else "TLS, verified") if mqtt.tls else "no TLS"
    user = f"as {mqtt.username}" if mqtt.username else "anonymously"
    secret = "" if password is None else " with a password"
    yield f"node     {config.node}: topics posewire/{config.node}/#"
    yield f"broker   {mqtt.host}:{mqtt.port} ({tls}), {user}{secret}, poses at QoS {mqtt.qos}"
    yield f"bundle   {manifest.name} {manifest.version} at {config.bundle.path}: {how}"
    yield f"engine   {engine}"
    for name, camera in config.cameras.items():
        if not camera.enabled:
            yield f"camera   {name}: disabled"
            continue
        end = "ends by itself" if is_finite(camera) else "runs for ever"
        loss = "every frame" if is_lossless(camera) else "the newest frames"
        yield f"camera   {name}: {redacted(camera.uri)} ({end}, {loss})"
    for sink in config.sinks:
        yield f"sink     {sink.kind}: {sink.path}"
