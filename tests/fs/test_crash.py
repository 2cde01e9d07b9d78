"""Cut at each call of the durable seam: everything synced is there, and nothing is there half.

While a workload runs, before each call the store is copied as a kill or a power cut would leave it, and the
copy is opened. Commits are ordered, so it must show the tree as it was after one of the steps between the
last one that made things durable and the one that is under way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from casfs.fs.tree import RENAME_EXCHANGE, RENAME_WHITEOUT
from tests.faults import PowerLoss
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Entry, OpenFile
from tests.limits import set_limits
from tests.session import Session

OLD, NEW, OTHER = b"old " * 10, b"new " * 20, b"other " * 30
LARGE, LARGER = bytes(range(256)) * 1200, bytes(range(1, 256)) * 1600

Value = bytes | str | None | tuple[bytes, ...]
"""Content; "dir", or "-> target"; None: absent; several contents: one of them."""


class History:
    """What the tree may look like after a cut, now."""

    def __init__(self) -> None:
        self._views: list[dict[str, Value]] = [{}]
        self._sure = 0

    def step(self, action: Callable[[], object], durable: bool = False, **changes: Value) -> Any:
        """Do something that changes the tree so, in one piece; `durable`: and is on disk when it returns."""
        view = self._views[-1] | {name.replace("__", "/"): value for name, value in changes.items()}
        self._views.append({name: value for name, value in view.items() if value is not None})
        result = action()
        if durable:
            self._sure = len(self._views) - 1
        return result

    def explain(self, tree: dict[str, bytes | str]) -> str:
        """Why the tree cannot be; empty when it can."""
        possible = self._views[self._sure :]
        if any(_matches(tree, view) for view in possible):
            return ""
        return f"found {_short(tree)}, expected one of\n  " + "\n  ".join(_short(view) for view in possible)


def _matches(tree: dict[str, bytes | str], view: dict[str, Value]) -> bool:
    if tree.keys() != view.keys():
        return False
    for name, found in tree.items():
        expected = view[name]
        if found not in (expected if isinstance(expected, tuple) else (expected,)):
            return False
    return True


def _short(view: Mapping[str, object]) -> str:
    return str({name: str(value)[:20] + "…" * (len(str(value)) > 20) for name, value in view.items()})


def show(tree: dict[bytes, Entry]) -> dict[str, bytes | str]:
    """A tree as `History` describes it."""
    shown: dict[str, bytes | str] = {}
    for path, entry in tree.items():
        kind = entry.mode >> 12
        content = entry.content or b""
        shown[path.decode()] = "dir" if kind == 4 else f"-> {content.decode()}" if kind == 10 else content
    return shown


class Watcher:
    """Opens what a cut before each call would leave."""

    def __init__(self, seam: PowerLoss, history: History, scratch: Path, *, kill_only: bool = False) -> None:
        self._seam = seam
        self._kill_only = kill_only
        self._history = history
        self._scratch = scratch
        self.opened = 0
        seam.before = self.cut

    def cut(self, number: int, name: str) -> None:
        for lose_files, lose_log in product((False, True), repeat=2):
            if self._kill_only and (lose_files or lose_log):
                continue
            if name == "reserve_log" or (lose_log and not self._seam.has_unsynced_log):
                continue  # the disk is as at another cut
            what = f"cut before call {number}, {name}, files {lose_files or 'kept'}, log {lose_log or 'kept'}"
            image = self._scratch / f"image-{self.opened}"
            self._seam.image(image, lose_files=lose_files, lose_log=lose_log)
            self.opened += 1
            self.examine(image, what)

    def examine(self, image: Path, what: str) -> None:
        session = Session(image)
        try:
            found = show(session.kernel.tree())
            problem = self._history.explain(found)
            assert not problem, f"{what}: {problem}"
            assert show(session.reopen().tree()) == found, f"{what}: the second start shows something else"
        finally:
            session.abandon()
        assert_clean(image, strays=True)
        shutil.rmtree(image)


class Crashing:
    """A store in use that is cut before each call of the seam, and steps to take in it."""

    def __init__(self, path: Path, scratch: Path, *, kill_only: bool = False) -> None:
        self.history = History()
        seam = PowerLoss(path)
        self.watcher = Watcher(seam, self.history, scratch, kill_only=kill_only)
        self.session = Session(path, seam)
        self.kernel = self.session.kernel
        self.step = self.history.step

    def create(self, name: str, content: bytes) -> OpenFile:
        """A new file, written but not closed: a cut leaves none, or an empty one."""
        file = self.step(lambda: self.kernel.open(name, os.O_RDWR | os.O_CREAT), **{name: b""})
        self.step(lambda: file.write(content))
        return file

    def write(self, name: str, content: bytes) -> None:
        """A new file, closed."""
        self.step(self.create(name, content).close, **{name: content})

    def sync(self) -> None:
        self.step(self.kernel.sync, durable=True)


@pytest.fixture
def crashing(store_path: Path, scratch: Path) -> Iterator[Crashing]:
    crashing = Crashing(store_path, scratch)
    yield crashing
    crashing.step(crashing.session.stop, durable=True)
    crashing.watcher.cut(-1, "the end")
    assert crashing.watcher.opened > 4


def test_new_files(crashing: Crashing) -> None:
    crashing.write("small", OLD)
    crashing.write("large", LARGE)
    crashing.sync()
    crashing.write("more", NEW)
    crashing.write("empty", b"")
    crashing.sync()


def test_a_file_whose_fsync_returned_is_whole(crashing: Crashing) -> None:
    for name, content in (("small", OLD), ("large", LARGE)):
        file = crashing.create(name, content)
        crashing.step(file.fsync, durable=True, **{name: content})
        crashing.step(file.close)
    crashing.sync()


def test_many_new_files_are_synced_at_once(crashing: Crashing, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, FEW_BLOBS=2)
    for number in range(6):
        crashing.write(f"f{number}", OLD + bytes([number]))
    crashing.sync()


def test_small_files_are_written_in_several_goes(crashing: Crashing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some by the commit, some at once because too many wait, one because it is read, one never."""
    set_limits(monkeypatch, WRITE_BATCH=2, PENDING_COUNT=4)
    for number in range(6):
        crashing.write(f"f{number}", OLD + bytes([number]))
        if number == 1:
            crashing.step(lambda: crashing.kernel.unlink("f0"), f0=None)
            assert crashing.kernel.read_file("f1") == OLD + b"\1"
    crashing.sync()
    crashing.write("again", OLD + b"\0")
    crashing.sync()


def test_content_that_is_there_already(crashing: Crashing) -> None:
    crashing.write("first", LARGE)
    crashing.write("same_group", LARGE)
    crashing.sync()
    crashing.write("later", LARGE)
    file = crashing.create("fsynced", LARGE)
    crashing.step(file.fsync, durable=True, fsynced=LARGE)
    crashing.step(file.close)
    crashing.sync()


def test_content_of_an_orphan(crashing: Crashing) -> None:
    crashing.write("file", OLD)
    crashing.sync()
    crashing.step(lambda: crashing.kernel.unlink("file"), file=None)
    crashing.sync()
    crashing.write("again", OLD)
    crashing.sync()


def test_replacing_by_rename_shows_old_or_new(crashing: Crashing) -> None:
    """I6, for a file that was closed before."""
    crashing.write("file", OLD)
    crashing.sync()
    crashing.write("temporary", NEW)
    crashing.step(lambda: crashing.kernel.rename("temporary", "file"), temporary=None, file=NEW)
    crashing.sync()


@pytest.mark.parametrize("content", [NEW, LARGER], ids=["small", "large"])
def test_replacing_by_an_unsealed_file_shows_old_or_new(crashing: Crashing, content: bytes) -> None:
    crashing.write("file", OLD)
    crashing.sync()
    file = crashing.create("temporary", content)
    crashing.step(lambda: crashing.kernel.rename("temporary", "file"), temporary=None, file=content)
    crashing.sync()
    crashing.step(file.close)
    crashing.sync()


@pytest.mark.parametrize("content", [NEW, LARGER], ids=["small", "large"])
def test_a_file_that_gets_its_first_name_has_its_content(crashing: Crashing, content: bytes) -> None:
    """Without a name it goes in a crash, fsynced or not; with one it is whole."""
    file = crashing.step(crashing.kernel.open_unnamed)
    crashing.step(lambda: file.write(content))
    crashing.step(file.fsync, durable=True)
    lost = crashing.step(crashing.kernel.open_unnamed)
    crashing.step(lambda: lost.write(OTHER))
    crashing.step(lambda: crashing.kernel.link_file(file, "file"), file=content)
    crashing.sync()
    crashing.step(file.close)
    crashing.sync()
    crashing.step(lost.close)


def test_a_whiteout_and_what_was_moved_come_together(crashing: Crashing) -> None:
    crashing.write("file", OLD)
    crashing.write("target", NEW)
    crashing.sync()
    # A whiteout is shown as b"" here.
    crashing.step(lambda: crashing.kernel.rename("file", "target", RENAME_WHITEOUT), file=b"", target=OLD)
    crashing.step(lambda: crashing.kernel.rename("target", "new", RENAME_WHITEOUT), target=b"", new=OLD)
    crashing.sync()


def test_exchanging_with_a_file_still_open_shows_old_or_new(crashing: Crashing) -> None:
    crashing.write("file", OLD)
    crashing.sync()
    file = crashing.create("other", NEW)
    crashing.step(lambda: crashing.kernel.rename("file", "other", RENAME_EXCHANGE), file=NEW, other=OLD)
    crashing.sync()
    crashing.step(file.close)


def test_overwriting_shows_old_or_new(crashing: Crashing) -> None:
    crashing.write("file", LARGE)
    crashing.sync()
    file = crashing.step(lambda: crashing.kernel.open("file", os.O_RDWR))
    crashing.step(lambda: file.write(OLD, 1000))
    crashing.sync()
    content = LARGE[:1000] + OLD + LARGE[1000 + len(OLD) :]
    crashing.step(file.close, file=content)
    crashing.sync()


def test_truncating_at_open_shows_old_or_new(crashing: Crashing) -> None:
    crashing.write("file", OLD)
    crashing.sync()
    file = crashing.step(lambda: crashing.kernel.open("file", os.O_WRONLY | os.O_TRUNC))
    crashing.sync()
    crashing.step(lambda: file.write(NEW))
    crashing.step(file.close, file=NEW)
    crashing.sync()


def test_writing_on_after_fsync(crashing: Crashing) -> None:
    """As on any file system, bytes that are overwritten after the fsync are the old or the new ones."""
    file = crashing.create("file", OLD)
    crashing.step(file.fsync, durable=True, file=OLD)
    crashing.step(lambda: file.write(b"NEW"), file=(OLD, b"NEW" + OLD[3:]))
    crashing.step(lambda: file.write(LARGE, len(OLD)))
    crashing.step(file.fsync, durable=True, file=b"NEW" + OLD[3:] + LARGE)
    crashing.step(file.close)
    crashing.sync()


def test_truncating_after_fsync_leaves_no_zeros(crashing: Crashing) -> None:
    file = crashing.create("file", LARGE)
    crashing.step(file.fsync, durable=True, file=LARGE)
    crashing.step(lambda: file.truncate(10), file=(LARGE, LARGE[:10]))
    crashing.sync()
    crashing.step(file.close, file=LARGE[:10])
    crashing.sync()


def test_emptying_after_fsync(crashing: Crashing) -> None:
    file = crashing.create("file", LARGE)
    crashing.step(file.fsync, durable=True, file=LARGE)
    crashing.step(lambda: file.truncate(0), file=(LARGE, b""))
    crashing.step(lambda: file.write(NEW))
    crashing.sync()
    crashing.step(file.close, file=NEW)
    crashing.sync()


def test_removing(crashing: Crashing) -> None:
    crashing.write("file", OLD)
    crashing.write("open", LARGE)
    crashing.step(lambda: crashing.kernel.mkdir("directory"), directory="dir")
    crashing.sync()
    crashing.step(lambda: crashing.kernel.unlink("file"), file=None)
    file = crashing.step(lambda: crashing.kernel.open("open", os.O_RDWR))
    crashing.step(lambda: file.write(NEW))
    crashing.step(lambda: crashing.kernel.unlink("open"), open=None)
    crashing.step(lambda: crashing.kernel.rmdir("directory"), directory=None)
    crashing.sync()
    crashing.step(file.close)


def test_removing_an_fsynced_file_that_is_open(crashing: Crashing) -> None:
    file = crashing.create("file", LARGE)
    crashing.step(file.fsync, durable=True, file=LARGE)
    crashing.step(lambda: crashing.kernel.unlink("file"), file=None)
    crashing.sync()
    crashing.step(file.close)
    crashing.sync()


def test_names(crashing: Crashing) -> None:
    step, kernel = crashing.step, crashing.kernel
    step(lambda: kernel.mkdir("a"), a="dir")
    step(lambda: kernel.mkdir("b"), b="dir")
    crashing.write("file", OLD)
    crashing.sync()
    step(lambda: kernel.link("file", "a/link"), a__link=OLD)
    step(lambda: kernel.symlink("file", "b/symlink"), b__symlink="-> file")
    step(lambda: kernel.rename("a", "b/a"), a=None, a__link=None, b__a="dir", b__a__link=OLD)
    crashing.sync()
    step(lambda: kernel.rename("b/a/link", "file", RENAME_EXCHANGE))
    step(lambda: kernel.unlink("file"), file=None)
    crashing.sync()


def test_sparse_files_stay_staged(crashing: Crashing, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, SPARSE_LIMIT=100_000)
    file = crashing.create("file", OLD)
    crashing.step(lambda: file.truncate(400_000))
    crashing.step(file.close, file=OLD + bytes(400_000 - len(OLD)))
    crashing.sync()
    content = OLD + bytes(400_000 - len(OLD)) + NEW
    file = crashing.step(lambda: crashing.kernel.open("file", os.O_RDWR))
    crashing.step(lambda: file.write(NEW, 400_000))
    crashing.step(file.close, file=content)
    crashing.sync()
    crashing.step(lambda: crashing.kernel.truncate("file", 5), file=(content, content[:5]))
    crashing.sync()
    crashing.step(lambda: None, file=content[:5], durable=True)


def test_checkpoints_lose_nothing(store_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill only: what a power cut leaves of SQLite's own files is SQLite's business."""
    set_limits(monkeypatch, CHECKPOINT_PAGES=15)
    crashing = Crashing(store_path, scratch, kill_only=True)
    for number in range(12):
        crashing.write(f"f{number}", OLD + bytes([number]))
        crashing.step(lambda n=number: crashing.kernel.setxattr("", b"user.%d" % n, bytes(4000)))
        crashing.sync()
    crashing.step(crashing.session.stop, durable=True)
    assert crashing.watcher.opened >= 40


def test_recovery_can_be_cut_too(store_path: Path, scratch: Path) -> None:
    """Fsynced content survives a start that does not get to its end, however often."""
    session = Session(store_path)
    create = os.O_RDWR | os.O_CREAT
    small, large = session.kernel.open("small", create), session.kernel.open("large", create)
    small.write(OLD)
    large.write(LARGE)
    small.fsync()
    large.fsync()
    unlinked = session.kernel.open("unlinked", create)
    unlinked.write(OLD)
    session.kernel.unlink("unlinked")
    session.kernel.sync()
    copy_store(store_path, scratch / "cut")
    for file in (small, large, unlinked):
        file.close()
    session.stop()

    history = History()
    history.step(lambda: None, durable=True, small=OLD, large=LARGE)
    seam = PowerLoss(scratch / "cut")
    watcher = Watcher(seam, history, scratch)
    session = Session(scratch / "cut", seam)
    assert watcher.opened > 8
    assert session.fs.activity().open_unsealed == 0
    session.stop()
    assert_clean(scratch / "cut")
