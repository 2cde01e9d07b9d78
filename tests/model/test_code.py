"""The code's steps are the model's: what a real commit and a real collection do, the model does too."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from casfs.filestore.durable import Durable
from casfs.fs.scheduler import run_inline
from casfs.maintenance.collect import gc
from casfs.maintenance.collect import mounted as collect_mounted
from casfs.namespace.collecting import Collecting, Record
from casfs.store import Store
from tests.faults import located
from tests.images import copy_store
from tests.invariants import problems
from tests.model.protocol import Protocol
from tests.model.state import NO_ROW, START, State
from tests.session import Session

OLD = b"content " * 10
LARGE = bytes(range(256)) * 1200

RECORDED = {
    "daemon": {
        *("Turnstile.try_enter", "Namespace.try_begin", "Turnstile.leave", "Blobs.find", "FileStore.has"),
        *(
            "FileStore.has, no",
            "FileStore.spare",
            "Blobs.insert",
            "FileStore.accept",
            "FileStore.publish_staged",
        ),
        *("InodeTable.set_blob", "Tree.unlink"),
    },
    "commit": {
        *("GroupCommit._drop_unused", "Durable.unlink", "Durable.create", "Durable.write_whole"),
        *("Durable.fsync_path blob", "Durable.fsync_path shard", "Namespace.commit", "Namespace.sync_log"),
    },
    "asked": {"_take", "Durable.unlink", "FileStore.remove_condemned, spared"},
    "gc": {
        *("Turnstile.enter", "Namespace.try_begin", "recheck", "recheck, none", "recheck_strays"),
        *("recheck_strays, none", "Namespace.commit", "Namespace.sync_log", "Durable.unlink"),
        *("Turnstile.leave",),
    },
}
"""Steps of the model that can be seen in the code, in its own words; all others may lie between them."""

Label = Callable[..., str]


class Recorder(Durable):
    """Writes down the steps of one actor. As the filestore's seam, those that have to do with blob files."""

    def __init__(self, steps: list[str], actor: str) -> None:
        self.steps = steps
        self.actor = actor
        self.on = False
        self._blob = False

    def note(self, label: str) -> None:
        if self.on and label:
            self.steps.append(f"{self.actor}: {label}")

    def wrap(self, thing: Any, name: str, label: Label | None = None) -> None:
        """Note each call of a method, behind it; `label` gets its result and its arguments."""
        method = getattr(thing, name)
        plain = f"{type(thing).__name__}.{name}"

        def noted(*args: Any, **more: Any) -> Any:
            result = method(*args, **more)
            self.note(label(result, *args) if label is not None else plain)
            return result

        setattr(thing, name, noted)

    # The seam

    def create(self, path: str, mode: int, *, dir_fd: int | None = None) -> int:
        fd = super().create(path, mode, dir_fd=dir_fd)
        self._note_file("create", path)
        self._blob = path.startswith("blobs/")
        return fd

    def write_whole(self, fd: int, data: bytes | bytearray) -> None:
        super().write_whole(fd, data)
        if self._blob:
            self.note("Durable.write_whole")

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        super().unlink(path, dir_fd=dir_fd)
        self._note_file("unlink", path)

    def fsync_path(self, path: str, *, dir_fd: int | None = None) -> None:
        kind = "shard" if located(path, dir_fd).is_dir() else "blob"
        super().fsync_path(path, dir_fd=dir_fd)
        self.note(f"Durable.fsync_path {kind}")

    def _note_file(self, name: str, path: str) -> None:
        if path.startswith("blobs/"):
            self.note(f"Durable.{name}")


def _set_blob(_result: object, _inode: object, blob: int | None) -> str:
    return "InodeTable.set_blob" if blob is not None else "Tree.unlink"


@types.coroutine
def _suspended() -> Generator[None, None, None]:
    yield


def _nothing() -> None:
    pass


def _begun(result: object) -> str:
    return "Namespace.try_begin" if result else "Namespace.try_begin, busy"


class Recorded:
    """A store in use, and its collector, whose steps are written down."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.path = path
        self._monkeypatch = monkeypatch
        commit = self._commit = Recorder(self.steps, "commit")
        loop = self._loop = Recorder(self.steps, "daemon")
        self.session = session = Session(path, commit)
        store = session.store
        commit.wrap(session.fs.group, "_drop_unused")
        for name in ("commit", "sync_log"):
            commit.wrap(store.namespace, name)
        loop.wrap(store.namespace, "try_begin", _begun)
        assert store.turnstile is not None
        loop.wrap(store.turnstile, "try_enter", lambda result: "Turnstile.try_enter" if result else "")
        loop.wrap(store.turnstile, "leave")
        loop.wrap(store.namespace.blobs, "find")
        loop.wrap(store.namespace.blobs, "insert")
        loop.wrap(
            store.filestore, "has", lambda result, *_: "FileStore.has" if result else "FileStore.has, no"
        )
        loop.wrap(store.filestore, "accept")
        loop.wrap(store.filestore, "publish_staged")
        loop.wrap(session.fs.inodes, "set_blob", _set_blob)
        asked = self._asked = Recorder(self.steps, "asked")
        asked.wrap(
            store.filestore,
            "remove_condemned",
            lambda result, *_: "" if result else "FileStore.remove_condemned, spared",
        )
        loop.wrap(store.filestore, "spare")
        commit.on = loop.on = asked.on = True

    def write(self, name: str, content: bytes) -> None:
        self.session.kernel.write_file(name, content)

    def unlink(self, name: str) -> None:
        self.session.kernel.unlink(name)

    def sync(self) -> None:
        self.session.kernel.sync()

    def ask(
        self, *, when_taken: Callable[[], object] = _nothing, when_durable: Callable[[], object] = _nothing
    ) -> collect_mounted.Collected:
        """A batch of all orphans that the daemon removes. What else it does behind two of its steps."""
        fs = self.session.fs
        take, unlink = collect_mounted._take, collect_mounted._unlink_condemned
        waiting = [when_taken]

        def noted_take(*args: Any) -> list[Any]:
            taken = take(*args)
            self._asked.note("_take" if taken else "")
            return taken

        def noted_unlink(*args: Any) -> Any:
            when_durable()
            self._commit.actor = "asked"
            try:
                return unlink(*args)
            finally:
                self._commit.actor = "commit"

        async def paused() -> None:
            while waiting:
                waiting.pop()()

        with self._monkeypatch.context() as patch:
            patch.setattr(collect_mounted, "_take", noted_take)
            patch.setattr(collect_mounted, "_unlink_condemned", noted_unlink)
            patch.setattr(fs.scheduler, "pause", paused)
            return run_inline(self.batch())

    def batch(self) -> Coroutine[Any, Any, collect_mounted.Collected]:
        fs = self.session.fs
        now = time.time_ns()
        ids = [orphan.id for orphan in Collecting(fs.store.namespace).due(now, now, (-1, 0), 100)]
        return collect_mounted.collect(fs, ids, now, now, Record(0, 0, 0, 0, 0))

    def seal(self, name: str, content: bytes) -> None:
        """Write, and have it published now."""
        self.write(name, content)
        self.session.kernel.getxattr(name, b"user.casfs.blake3")

    def collect(self, *, full: bool = False) -> None:
        """The batches of one run; the record of it, which no blob has to do with, is left out."""
        recorder = Recorder(self.steps, "gc")
        with closing(Store(str(self.path), shared=True, durable=recorder)) as store:
            assert store.turnstile is not None
            recorder.wrap(store.namespace, "try_begin", _begun)
            recorder.wrap(store.turnstile, "try_enter", lambda result: "Turnstile.enter" if result else "")
            recorder.wrap(store.turnstile, "leave")
            for name in ("commit", "sync_log"):
                recorder.wrap(store.namespace, name)
            with self._monkeypatch.context() as patch:
                for name in ("recheck", "recheck_strays"):
                    patch.setattr(gc, name, self._noted(recorder, name, getattr(gc, name)))
                for name in ("_orphan_batch", "_stray_batch"):
                    patch.setattr(gc._Run, name, self._watched(recorder, getattr(gc._Run, name)))
                gc.execute(store, gc.plan(store, grace_ns=0, full=full))

    @staticmethod
    def _noted(recorder: Recorder, name: str, function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def noted(*args: Any) -> list[Any]:
            result = function(*args)
            recorder.note(name if result else f"{name}, none")
            return result

        return noted

    @staticmethod
    def _watched(recorder: Recorder, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            recorder.on = True
            try:
                return method(*args)
            finally:
                recorder.on = False

        return watched

    def stop(self) -> None:
        self._commit.on = self._loop.on = False
        self.session.stop()


@pytest.fixture
def recorded(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(store_path, monkeypatch)


def follow(steps: Sequence[str], start: State = START) -> str:
    """The first step that the model does not know at its place; "" when it can do them all."""
    protocol = Protocol()
    states = _quiet(protocol, {start})
    for number, step in enumerate(steps):
        states = {after for state in states for label, after in _moves(protocol, state) if label == step}
        if not states:
            return f"{step}, after {list(steps[:number])}"
        states = _quiet(protocol, states)
    return ""


def _moves(protocol: Protocol, state: State) -> list[tuple[str, State]]:
    return [
        *protocol.daemon(state),
        *protocol.committer(state),
        *protocol.asked(state),
        *protocol.collector(state),
    ]


def _quiet(protocol: Protocol, states: set[State]) -> set[State]:
    """Those, and where steps that cannot be seen lead from them."""
    found, todo = set(states), list(states)
    while todo:
        for label, after in _moves(protocol, todo.pop()):
            actor, _, step = label.partition(": ")
            if step not in RECORDED[actor] and after not in found:
                found.add(after)
                todo.append(after)
    return found


def use(recorded: Recorded, content: bytes) -> None:
    """A life of a content: made, found again, removed, found as an orphan, collected, made anew."""
    recorded.write("file", content)
    recorded.sync()
    recorded.write("again", content)
    recorded.unlink("file")
    recorded.sync()
    recorded.unlink("again")
    recorded.sync()
    recorded.write("orphan found", content)
    recorded.sync()
    recorded.unlink("orphan found")
    recorded.sync()
    recorded.collect()
    recorded.write("reborn", content)
    recorded.sync()


def use_asked(recorded: Recorded, content: bytes, *, busy: bool = False) -> None:
    """A life of a content: made, removed, collected by the daemon, made anew."""
    orphan(recorded, content)
    if busy:
        recorded.session.kernel.mkdir("other")
    assert recorded.ask().gone == (1, len(content))
    recorded.write("reborn", content)
    recorded.sync()


def orphan(recorded: Recorded, content: bytes) -> None:
    recorded.write("file", content)
    recorded.sync()
    recorded.unlink("file")
    recorded.sync()


COMMITTED = [
    *("commit: Durable.fsync_path blob", "commit: Durable.fsync_path shard"),
    *("commit: GroupCommit._drop_unused", "commit: Namespace.commit", "commit: Namespace.sync_log"),
]
COLLECTED = [
    *("gc: Turnstile.enter", "gc: Namespace.try_begin", "gc: recheck", "gc: Namespace.commit"),
    *("gc: Namespace.sync_log", "gc: Durable.unlink", "gc: Turnstile.leave"),
]


ASKED = [
    *("asked: _take", "commit: GroupCommit._drop_unused", "commit: GroupCommit._drop_unused"),
    *("commit: Namespace.commit", "commit: Namespace.sync_log", "asked: Durable.unlink"),
]

SIZES = pytest.mark.parametrize("content", [OLD, LARGE], ids=["small", "large"])


@SIZES
def test_the_model_does_what_the_code_does(recorded: Recorded, content: bytes) -> None:
    use(recorded, content)
    recorded.stop()
    assert follow(recorded.steps) == ""
    assert _contains(recorded.steps, COMMITTED)
    assert _contains(recorded.steps, COLLECTED)
    seen = set(recorded.steps)
    for step in ("Blobs.find", "FileStore.has", "Blobs.insert", "InodeTable.set_blob", "Tree.unlink"):
        assert f"daemon: {step}" in seen


@SIZES
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_daemon_collects_as_in_the_model(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, content: bytes, busy: bool
) -> None:
    monkeypatch.setattr(collect_mounted, "COMMIT_SECONDS", 0.0)
    use_asked(recorded, content, busy=busy)
    recorded.stop()
    assert follow(recorded.steps) == ""
    assert _contains(recorded.steps, ASKED)


@SIZES
@pytest.mark.parametrize("when", ["when_taken", "when_durable"])
def test_what_is_published_between_take_and_unlink_is_spared(
    recorded: Recorded, content: bytes, when: str
) -> None:
    orphan(recorded, content)
    gone = recorded.ask(**{when: lambda: recorded.seal("reborn", content)}).gone
    recorded.sync()
    assert gone == (0, 0)
    assert recorded.session.blobs == 1
    recorded.stop()
    assert "asked: FileStore.remove_condemned, spared" in recorded.steps
    assert follow(recorded.steps) == ""


def test_no_row_lacks_its_file_while_its_content_is_published_again(
    recorded: Recorded, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGKILL between unlink(2) and open(2) of `write_files`, with the row's deletion not committed."""
    orphan(recorded, OLD)
    unlink = Recorder.unlink

    def killed(self: Recorder, path: str) -> None:
        unlink(self, path)
        if "/blobs/" in path and not (scratch / "killed").exists():
            copy_store(recorded.path, scratch / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "unlink", killed)
        recorded.ask(when_taken=lambda: recorded.seal("reborn", OLD))
    recorded.stop()
    if (scratch / "killed").exists():
        Session(scratch / "killed").stop()
        assert problems(scratch / "killed", strays=True) == []


def test_a_batch_leaves_alone_what_another_one_has_condemned(
    recorded: Recorded, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector was killed, and another one asks while the thread of the first one's batch is at work."""
    orphan(recorded, OLD)
    scheduler = recorded.session.fs.scheduler
    others: list[Coroutine[Any, Any, object]] = []

    def other_batch() -> None:
        """Published again, removed again, and taken by a batch whose commit is still to come."""
        orphan(recorded, OLD)
        monkeypatch.setattr(scheduler, "pause", _suspended)
        others.append(recorded.batch())
        with suppress(StopIteration, RuntimeError):  # which may be because it has to wait for the first
            others[0].send(None)

    recorded.ask(when_durable=other_batch)
    copy_store(recorded.path, scratch / "killed")
    others[0].close()
    recorded.stop()
    Session(scratch / "killed").stop()
    assert problems(scratch / "killed", strays=True) == []


def test_what_is_made_and_removed_in_one_group_is_dropped(recorded: Recorded) -> None:
    recorded.write("file", OLD)
    recorded.session.kernel.getxattr("file", b"user.casfs.blake3")
    recorded.unlink("file")
    recorded.sync()
    recorded.stop()
    assert follow(recorded.steps) == ""
    assert "daemon: FileStore.accept" in recorded.steps
    assert "commit: Durable.create" not in recorded.steps


def test_strays_go_as_in_the_model(recorded: Recorded) -> None:
    recorded.write("file", OLD)
    recorded.sync()
    store = recorded.session.store
    digest = store.namespace.blobs.digest(1)
    assert digest is not None
    recorded.steps.clear()
    recorded.unlink("file")
    recorded.sync()
    with closing(Store(str(recorded.path), shared=True)) as other:  # as one that was killed behind its COMMIT
        assert other.namespace.try_begin()
        other.namespace.query("DELETE FROM blob")
        other.namespace.commit()
        other.namespace.sync_log()
    recorded.steps.clear()
    recorded.collect(full=True)
    recorded.stop()
    stray = START._replace(committed=NO_ROW, file="whole", folder=frozenset({"now"}))
    assert follow(recorded.steps, stray) == ""
    assert "gc: recheck_strays" in recorded.steps
    assert "gc: Durable.unlink" in recorded.steps


def test_another_order_is_not_the_models(recorded: Recorded) -> None:
    """Any two neighbours of the steps of one actor, or of a batch of the daemon and its commit, exchanged."""
    use(recorded, OLD)
    recorded.unlink("reborn")
    use_asked(recorded, OLD)
    recorded.stop()
    for order in (COMMITTED, COLLECTED, ASKED):
        start = _position(recorded.steps, order)
        places = range(start, start + len(order))
        bound = [place for place in places if recorded.steps[place] != "commit: GroupCommit._drop_unused"]
        for one, other in pairwise(bound):
            steps = list(recorded.steps)
            steps[one], steps[other] = steps[other], steps[one]
            assert follow(steps) != "", f"{steps[other]} and {steps[one]} may be exchanged"


def test_the_collectors_commit_is_durable_before_it_is_seen(store_path: Path) -> None:
    """`Namespace.commit, sync` of the model: SQLite syncs the log before it moves its end, with FULL (2)."""
    with closing(Store(str(store_path), shared=True)) as store:
        assert store.namespace.query("PRAGMA synchronous").get == 2


def _position(steps: Sequence[str], order: Sequence[str]) -> int:
    places = [i for i in range(len(steps)) if list(steps[i : i + len(order)]) == list(order)]
    return places[0] if places else -1


def _contains(steps: Sequence[str], order: Sequence[str]) -> bool:
    return _position(steps, order) >= 0
