# SPDX-License-Identifier: Apache-2.0
"""`posewire update` without processes: the disk after a power cut at every step, and every turn
that an update can take."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from posewire.edge import prepare
from posewire.edge import slots as slots_module
from posewire.edge import updates as module
from posewire.edge.errors import EdgeError
from posewire.edge.slots import CONFIG, PREVIOUS, Outcome, Slots, Store, state_folder
from posewire.edge.updates import STARTS, Updates

from posewire.bundle import read_manifest, verify_bundle, write_bundle
from posewire.errors import BundleError, ExitCode

CORPUS = Path(__file__).parent.parent / "golden" / "bundles"


class Cut(BaseException):
    """The power fails here."""


def portable(place: Path, version: str) -> Path:
    manifest = json.loads((CORPUS / "good.json").read_text("utf-8"))["manifest"]
    del manifest["files"]
    network = {**manifest["artifacts"][0], "files": ["model.tflite"], "format": "tflite"}
    values = {**manifest, "version": version, "artifacts": [network]}
    write_bundle(place, values, {"model.tflite": version.encode()})
    return place


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return portable(tmp_path / "one", "1")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return portable(tmp_path / "two", "2")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", "n1")


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        self.now += 2.0  # every look is due
        return self.now


class Running:
    """A supervisor, as far as an update looks at one."""

    def __init__(self, state: str = "running", **row: int) -> None:
        self.state = state
        cameras = [{"captured": 0, "dropped": 0, "published": 0, **row}]
        self.watch = type("Watch", (), {"stats": {"cameras": cameras}})()


@pytest.fixture
def node(
    store: Store, one: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Updates, list[Outcome]]]:
    """node(prepare) -> a daemon's updates as after a start of it, and what they told."""
    monkeypatch.setattr(module, "time", Clock())

    def make(
        prepare: Callable[..., Path] = lambda path, stopping: path, *, trial_s: float = 5.0
    ) -> tuple[Updates, list[Outcome]]:
        told: list[Outcome] = []
        updates = Updates(store, one, prepare=prepare, trial_s=trial_s, tell=told.append)
        return updates, told

    return make


Node = Callable[..., tuple[Updates, list[Outcome]]]


def prepared(updates: Updates) -> None:
    """The wish is seen and its compilation is over, well or not."""
    updates.look(Running())  # type: ignore[arg-type]
    if updates._preparing is not None:
        updates._preparing._thread.join(10)
    if not updates.must_end():
        updates.look(Running())  # type: ignore[arg-type]


def states(told: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in told]


def test_without_updates_nothing_is_written(node: Node, store: Store, one: Path) -> None:
    updates, told = node()
    assert updates.choose() == one
    updates.look(Running())  # type: ignore[arg-type]
    assert not updates.must_end()
    assert told == []
    assert not store.folder.exists()


def test_prepared_exchanged_confirmed_and_back(
    node: Node, store: Store, one: Path, two: Path
) -> None:
    updates, told = node()
    assert updates.choose() == one
    wish = store.ask(two)
    prepared(updates)
    assert updates.must_end()
    place = updates.exchange()
    assert verify_bundle(place).version == "2"
    assert (place / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()
    slots = store.slots()
    assert (slots.current, slots.previous, slots.trial) == (wish.bundle, CONFIG, 1)
    assert store.wish() is None
    updates.engine_starts()
    assert not updates.must_end()
    for _ in range(4):
        updates.look(Running(captured=9, published=9))  # type: ignore[arg-type]
    assert states(told) == ["preparing", "trial", "confirmed"]
    assert {outcome.name for outcome in told} == {"body18-paf-mobilenetv2@2"}
    assert store.slots().trial is None

    again, told = node()  # the next start of the daemon
    assert again.choose() == place
    store.ask(PREVIOUS)
    prepared(again)
    assert again.exchange() == one
    assert store.slots().previous == wish.bundle
    for _ in range(4):
        again.look(Running())  # type: ignore[arg-type]
    assert states(told)[-1] == "confirmed"  # a camera that is away proves nothing against it
    store.ask(CONFIG)
    prepared(again)
    assert told[-1].why == "it runs already"


def test_what_is_not_compiled_never_runs(node: Node, store: Store, two: Path) -> None:
    def refuse(path: Path, stopping: object) -> Path:
        raise EdgeError("gate: int8: poses disagree", ExitCode.NO)

    updates, told = node(refuse)
    updates.choose()
    wish = store.ask(two)
    prepared(updates)
    assert not updates.must_end()
    assert states(told) == ["preparing", "rejected"]
    assert told[-1].why == "gate: int8: poses disagree"
    assert told[-1].ticket == wish.ticket
    assert (store.slots().current, store.wish()) == (CONFIG, None)
    assert not store.bundle(wish.bundle).exists()  # cleared away


def trial(updates: Updates, store: Store, bundle: Path) -> None:
    updates.choose()
    store.ask(bundle)
    prepared(updates)
    updates.exchange()
    updates.engine_starts()


def test_an_engine_that_ends_on_trial_is_taken_back(
    node: Node, store: Store, one: Path, two: Path
) -> None:
    updates, told = node()
    trial(updates, store, two)
    updates.engine_failed("the engine was killed by SIGSEGV")
    assert updates.must_end()
    assert updates.failed is not None
    assert updates.take_back(updates.failed) == one
    assert states(told)[-1] == "rolled_back"
    assert told[-1].why == "the engine was killed by SIGSEGV"
    slots = store.slots()
    assert (slots.current, slots.previous, slots.trial) == (CONFIG, None, None)
    updates.engine_starts()
    updates.engine_failed("a crash of the old one")
    assert not updates.must_end()  # that one is the supervisor's affair


def test_frames_taken_and_none_finished(node: Node, store: Store, two: Path) -> None:
    updates, _ = node()
    trial(updates, store, two)
    for _ in range(4):
        updates.look(Running(captured=30, dropped=10))  # type: ignore[arg-type]
    assert updates.failed == "20 frames taken in 5 s, none finished"


def test_starting_for_long_is_no_health(node: Node, store: Store, two: Path) -> None:
    updates, _ = node()
    trial(updates, store, two)
    for _ in range(9):
        updates.look(Running("starting"))  # type: ignore[arg-type]
    assert updates.on_trial
    assert updates.failed is None  # the supervisor's start_timeout_s ends it


def test_a_trial_that_takes_the_machine_down_is_begun_so_often(
    node: Node, store: Store, one: Path, two: Path
) -> None:
    trial(node()[0], store, two)
    for start in range(2, STARTS + 1):
        updates, _ = node()
        assert updates.choose() != one
        assert store.slots().trial == start
    updates, told = node()
    assert updates.choose() == one
    assert told[-1].state == "rolled_back"
    assert told[-1].why == f"was not healthy in {STARTS} starts"
    assert node()[0].choose() == one


def test_a_compilation_that_takes_the_machine_down(node: Node, store: Store, two: Path) -> None:
    def hang(path: Path, stopping: Callable[[], bool]) -> Path:
        while not stopping():
            pass
        raise EdgeError("stopped", ExitCode.INTERRUPTED)

    store.ask(two)
    for _ in range(STARTS):
        updates, _ = node(hang)
        updates.choose()
        updates.look(Running())  # type: ignore[arg-type]
        assert updates.preparing
        updates.close()
        assert store.wish() is not None
    updates, told = node(hang)
    updates.choose()
    updates.look(Running())  # type: ignore[arg-type]
    assert told[-1].state == "rejected"
    assert f"was begun {STARTS} times" in str(told[-1].why)


def test_a_config_that_names_another_bundle_takes_over(
    node: Node, store: Store, one: Path, two: Path
) -> None:
    updates, _ = node()
    trial(updates, store, two)
    updates.finished()
    assert node()[0].choose() != one
    shutil.rmtree(one)
    assert node()[0].choose() != one  # a config's bundle that is gone takes nothing over
    portable(one, "3")
    assert node()[0].choose() == one
    assert store.slots().current == CONFIG
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("wish", [PREVIOUS, "bundle gone"])
def test_wishes_that_cannot_be_met(node: Node, store: Store, two: Path, wish: str) -> None:
    updates, told = node()
    updates.choose()
    asked = store.ask(PREVIOUS if wish == PREVIOUS else two)
    if wish != PREVIOUS:
        shutil.rmtree(store.bundle(asked.bundle))
    prepared(updates)
    assert states(told) == ["rejected"]
    assert store.wish() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ticket":"1","bundle":"../x"}', "\0\xff"])
def test_damaged_files_keep_nobody_from_starting(
    node: Node, store: Store, one: Path, text: str
) -> None:
    store.write(Slots())
    for name in ("slots.json", "wanted.json"):
        (store.folder / name).write_text(text)
    updates, told = node()
    assert updates.choose() == one
    updates.look(Running())  # type: ignore[arg-type]
    assert told == []
    assert not (store.folder / "wanted.json").exists()


def test_a_pending_gate_is_no_verdict(tmp_path: Path) -> None:
    compiled = json.loads((CORPUS / "good_compiled.json").read_text("utf-8"))["manifest"]
    files = {name: name.encode() for name in compiled.pop("files")}
    compiled["gate"]["kind"] = "pending"
    made = tmp_path / "compiled"
    write_bundle(made, compiled, files)
    with pytest.raises(EdgeError, match="its accuracy gate is pending") as caught:
        prepare.compiled_bundle(made, target="x86-cpu", precision="fp32")
    assert caught.value.code == ExitCode.BUNDLE
    said = [json.dumps({"bundle": str(made)})]
    with pytest.raises(EdgeError, match="this machine cannot run it") as caught:
        prepare._result(tmp_path, 0, said, [])
    assert caught.value.code == ExitCode.UNAVAILABLE


def test_what_is_not_taken(store: Store, one: Path, tmp_path: Path) -> None:
    compiled = json.loads((CORPUS / "good_compiled.json").read_text("utf-8"))["manifest"]
    files = {name: name.encode() for name in compiled.pop("files")}
    write_bundle(tmp_path / "compiled", compiled, files)
    with pytest.raises(BundleError, match="is compiled, for x86-cpu"):
        store.ask(tmp_path / "compiled")
    (one / "model.tflite").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.tflite"):
        store.ask(one)
    assert store.wish() is None
    assert [path.name for path in store.folder.iterdir()] == ["lock"]


def test_a_copy_that_went_bad_is_made_again(store: Store, two: Path) -> None:
    wish = store.ask(two)
    (store.bundle(wish.bundle) / "model.tflite").write_bytes(b"rot")
    store.ask(two)
    verify_bundle(store.bundle(wish.bundle))


def test_where_the_state_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert state_folder(None) == tmp_path / "xdg" / "posewire"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    assert state_folder(None) == tmp_path / "a"
    assert state_folder(Path("/x")) == Path("/x")


def whole_update(make: Node, store: Store, bundle: Path) -> None:
    """A wish and everything that the daemon does about it, as one row of steps."""
    store.ask(bundle)
    updates, _ = make()
    updates.choose()
    prepared(updates)
    if updates.must_end():
        updates.exchange()
        updates.engine_starts()
        for _ in range(4):
            updates.look(Running(captured=5, published=5))  # type: ignore[arg-type]


def test_a_power_cut_at_every_step_leaves_the_old_or_the_new(
    node: Node, store: Store, one: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk is the last one once; then the node starts again."""
    names = ("replace", "rename", "unlink", "mkdir", "fsync", "open")
    real = {name: getattr(os, name) for name in names}
    steps = 0

    def counted(name: str, cut_at: int) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == cut_at:
                raise Cut(name)
            return real[name](*arguments, **keywords)

        return call

    cut_at, cuts, seen = 0, 0, set()
    while True:
        cut_at += 1
        shutil.rmtree(store.folder, ignore_errors=True)
        steps = 0
        with monkeypatch.context() as patch:
            fake = type("os", (), {**vars(os), **{n: counted(n, cut_at) for n in names}})
            patch.setattr(slots_module, "os", fake)
            try:
                whole_update(node, store, two)
                break  # it came to its end before the cut
            except Cut:
                cuts += 1
        updates, _ = node()
        running = verify_bundle(updates.choose())  # whole, whichever it is
        seen.add(running.version)
        assert running.version in ("1", "2")
        slots = store.slots()
        if running.version == "2":
            assert slots.previous == CONFIG
        # Whatever was cut off can be done now.
        store.settle()
        updates.look(Running())  # type: ignore[arg-type]
        if running.version == "1":
            whole_update(node, store, two)
            assert read_manifest(node()[0].choose()).version == "2"
    assert seen == {"1", "2"}
    assert cuts > 20
