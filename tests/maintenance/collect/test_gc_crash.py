"""The collector cut off at each step, and the re-checks without which it or a writer would lose data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from casfs.maintenance.collect import gc
from casfs.namespace.collecting import Collecting, Orphan
from casfs.store import Store
from tests.faults import PowerLoss
from tests.fs.test_crash import History, Watcher, show
from tests.invariants import assert_clean, problems
from tests.session import Session

OLD, NEW, OTHER = b"old " * 10, b"new " * 20, b"other " * 30
LARGE = bytes(range(256)) * 1200


def collect(path: Path, *, full: bool = False, seam: PowerLoss | None = None) -> gc.Outcome:
    """One run without grace, beside whoever has the store open."""
    with closing(Store(str(path), shared=True, durable=seam)) as store:
        if seam is not None:
            seam.watch(store.namespace)
        return gc.execute(store, gc.plan(store, grace_ns=0, full=full))


# Cut off


class CollectingWatcher(Watcher):
    """Also collects what a cut has left: then nothing is there that does not belong there."""

    def examine(self, image: Path, what: str) -> None:
        copy = image.with_name("collected")
        shutil.copytree(image, copy, ignore=shutil.ignore_patterns("*-shm"))
        super().examine(image, what)
        session = Session(copy)
        before = show(session.kernel.tree())
        session.stop()
        collect(copy, full=True)
        session = Session(copy)
        assert show(session.kernel.tree()) == before, f"{what}: the next collection shows something else"
        session.stop()
        assert_clean(copy)
        shutil.rmtree(copy)


@pytest.fixture
def session(store_path: Path) -> Iterator[Session]:
    """A store with files of two names for one content, of one, and orphans."""
    session = Session(store_path)
    for name, content in (
        ("kept", OLD),
        ("same", LARGE),
        ("also", LARGE),
        ("gone", NEW),
        ("large", LARGE + OLD),
    ):
        session.kernel.write_file(name, content)
    session.kernel.sync()
    session.kernel.unlink("also")
    session.kernel.unlink("gone")
    session.kernel.unlink("large")
    session.kernel.sync()
    yield session
    if session.running:
        session.stop()


KEPT: dict[str, Any] = {"kept": OLD, "same": LARGE}


@pytest.mark.parametrize("mounted", [False, True])
def test_cut_off_at_each_step_it_leaves_only_garbage(session: Session, scratch: Path, mounted: bool) -> None:
    path = session.path
    if not mounted:
        session.stop()
    history = History()
    history.step(lambda: None, durable=True, **KEPT)
    seam = PowerLoss(path)
    watcher = CollectingWatcher(seam, history, scratch)
    assert collect(path, seam=seam).blobs == 2
    watcher.cut(-1, "the end")
    assert seam.calls.count("unlink") == 2
    assert watcher.opened >= 8


def test_cut_off_while_it_removes_strays(session: Session, scratch: Path) -> None:
    filestore = session.store.filestore
    for content in (OTHER, OTHER + LARGE):
        filestore.publish_bytes(blake3(content).digest(), content)
    path = session.path
    session.stop()
    history = History()
    history.step(lambda: None, durable=True, **KEPT)
    seam = PowerLoss(path)
    watcher = CollectingWatcher(seam, history, scratch)
    assert collect(path, full=True, seam=seam).strays == 2
    watcher.cut(-1, "the end")
    assert seam.calls.count("unlink") == 4


def test_cut_off_behind_a_commit_that_is_not_durable(session: Session, scratch: Path) -> None:
    """The collector sees a file removed; should the power undo that, its content is there."""
    history = History()
    history.step(lambda: None, durable=True, **KEPT)
    seam = PowerLoss(session.path)
    namespace = session.store.namespace
    sync_log = namespace.sync_log
    namespace.sync_log = lambda: None  # type: ignore[method-assign]
    history.step(lambda: session.kernel.unlink("same"), same=None)
    session.kernel.sync()
    namespace.sync_log = sync_log  # type: ignore[method-assign]
    watcher = CollectingWatcher(seam, history, scratch)
    assert seam.has_unsynced_log
    assert collect(session.path, seam=seam).blobs == 3
    assert watcher.opened >= 8


# Each step is there for a reason


@pytest.fixture
def orphaned(scratch: Path) -> Iterator[Session]:
    """A store in use with one blob, an orphan. It may be broken in the end."""
    from casfs.store import create_store

    create_store(str(scratch / "breakable"), fan_out=1)
    session = Session(scratch / "breakable")
    session.kernel.write_file("file", OLD)
    session.kernel.sync()
    session.kernel.unlink("file")
    session.kernel.sync()
    yield session
    if session.running:
        session.stop()


def write_again(session: Session) -> None:
    session.kernel.write_file("again", OLD)
    session.kernel.sync()


def only_breaks_unless(checked: bool, orphaned: Session) -> None:
    """Write the content again; a row lacks its file then just if the step under test was left out."""
    write_again(orphaned)
    broken = found_broken(orphaned)
    assert bool(broken) != checked
    assert checked or any(problem.startswith("I1 ") for problem in broken)


def found_broken(session: Session) -> list[str]:
    """What is wrong with the store now."""
    session.stop()
    return problems(session.path)


def without_recheck(store: Store, _holds: object, ids: list[int], *_: object) -> list[Orphan]:
    rows = store.namespace.query("SELECT id, blake3, size, 0 FROM blob").fetchall()
    return [Orphan(*row) for row in rows if row[0] in ids]


@pytest.mark.parametrize("checked", [True, False])
def test_orphans_are_looked_at_again_in_the_transaction(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """The content is written anew between the plan and the batch."""
    due = Collecting.due

    def late(rows: Collecting, *args: Any) -> list[Orphan]:
        found = due(rows, *args)
        if found:
            write_again(orphaned)
        return found

    monkeypatch.setattr(Collecting, "due", late)
    if not checked:
        monkeypatch.setattr(gc, "recheck", without_recheck)
    assert collect(orphaned.path).blobs == (0 if checked else 1)
    broken = found_broken(orphaned)
    assert bool(broken) != checked
    assert checked or any(problem.startswith("I1 ") for problem in broken)


@pytest.mark.parametrize("checked", [True, False])
def test_a_row_is_looked_up_in_the_transaction(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """A writer that found the row before, and the file with it, which are collected meanwhile."""
    blobs = orphaned.store.namespace.blobs
    digest = blake3(OLD).digest()
    before = blobs.find(digest)
    assert before is not None
    assert collect(orphaned.path).blobs == 1
    if not checked:
        monkeypatch.setattr(blobs, "find", lambda _digest: before)
        monkeypatch.setattr(orphaned.store.filestore, "has", lambda _digest, _size: True)
    only_breaks_unless(checked, orphaned)


@pytest.mark.parametrize("checked", [True, False])
def test_a_file_is_looked_up_in_the_transaction(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """The file of the row has been lost."""
    filestore = orphaned.store.filestore
    os.unlink(filestore.blobs.path(blake3(OLD).digest()))
    if not checked:
        monkeypatch.setattr(filestore, "has", lambda _digest, _size: True)
    only_breaks_unless(checked, orphaned)


@pytest.mark.parametrize("kept", [True, False])
def test_the_turnstile_is_kept_until_the_files_are_gone(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """A writer that comes between the COMMIT and the unlinking cannot begin."""
    unlink = gc.unlink_files
    waited: list[bool] = []

    def watched(store: Store, *args: Any) -> Any:
        assert store.turnstile is not None
        assert orphaned.store.turnstile is not None
        if not kept:
            store.turnstile.leave()
        entered = orphaned.store.turnstile.try_enter()
        waited.append(not entered)
        if entered:
            orphaned.store.turnstile.leave()
            write_again(orphaned)
        return unlink(store, *args)

    monkeypatch.setattr(gc, "unlink_files", watched)
    assert collect(orphaned.path).blobs == 1
    assert waited == [kept]
    broken = found_broken(orphaned)
    assert bool(broken) != kept


@pytest.mark.parametrize("checked", [True, False])
def test_strays_are_looked_up_in_the_transaction(
    orphaned: Session, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """A content without a row, but a file, that is written and committed before the batch."""
    filestore = orphaned.store.filestore
    filestore.publish_bytes(blake3(NEW).digest(), NEW)
    enter: Callable[..., None] = gc._Run._stray_batch

    def late(run: Any, *args: Any) -> Any:
        orphaned.kernel.write_file("claimed", NEW)
        orphaned.kernel.sync()
        return enter(run, *args)

    monkeypatch.setattr(gc._Run, "_stray_batch", late)
    if not checked:
        monkeypatch.setattr(gc, "recheck_strays", lambda _store, _holds, found, _cutoff_ns: found)
    assert collect(orphaned.path, full=True).strays == (0 if checked else 1)
    broken = found_broken(orphaned)
    assert bool(broken) != checked
