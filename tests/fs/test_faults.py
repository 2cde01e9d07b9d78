"""The disk is full, or fails, at each call of the durable seam: errors reach who can act, nothing committed
is harmed, and after a full disk work goes on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from casfs.fs.scheduler import run_inline
from tests.faults import FaultyDurable
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session

OLD, NEW, OTHER = b"old " * 10, b"new " * 20, b"other " * 30
LARGE, LARGER = bytes(range(256)) * 1200, bytes(range(1, 256)) * 1600

TAKES_ROOM = {"create", "write_whole", "link", "rename", "reserve_log"}
"""Calls that fail on a full disk for as long as it is full."""

SYNCS = {"fdatasync", "fsync_path", "syncfs", "sync_log", "commit"}
"""Calls whose failure leaves nobody knowing what is on the disk."""

MAY_STOP = {errno.ENOSPC: SYNCS, errno.EIO: SYNCS | {"create", "write_whole"}}
"""Calls whose failure may end writing: of a file that a commit makes, when it is not for want of room."""


def replace(kernel: Kernel) -> None:
    kernel.write_file("temporary", NEW)
    kernel.rename("temporary", "file")


def overwrite(kernel: Kernel) -> None:
    with kernel.open("large", os.O_RDWR) as file:
        file.write(OTHER, 1000)
        file.fsync()


PROGRAMS: list[tuple[Callable[[Kernel], None], dict[str, bytes | None]]] = [
    (lambda kernel: kernel.write_file("small", OLD), {"small": OLD}),
    (lambda kernel: kernel.write_file("large too", LARGER + OLD), {"large too": LARGER + OLD}),
    (lambda kernel: kernel.write_file("same", LARGE), {"same": LARGE}),
    (replace, {"file": NEW, "temporary": None}),
    (lambda kernel: kernel.truncate("cut", 5), {"cut": LARGER[:5]}),
    (lambda kernel: kernel.sync(), {}),
    (lambda kernel: kernel.write_file("fsynced", LARGER + NEW, sync=True), {"fsynced": LARGER + NEW}),
    (overwrite, {"large": LARGE[:1000] + OTHER + LARGE[1000 + len(OTHER) :]}),
    (lambda kernel: kernel.mkdir("directory"), {}),
    (lambda kernel: kernel.unlink("removed"), {"removed": None}),
    (lambda kernel: kernel.sync(), {}),
    (lambda kernel: kernel.write_file("last", OTHER, sync=True), {"last": OTHER}),
]
"""What programs do, and what they rely on once they were told that it is done."""

BEFORE: dict[str, bytes | None] = {"file": OLD, "large": LARGE, "removed": OTHER, "cut": LARGER}


class Run:
    """The programs, one after the other, on a store whose disk fails at one call or from one call on."""

    def __init__(self, path: Path, number: int, error: int, *, until_room_is_made: bool = False) -> None:
        self.seam = FaultyDurable()
        self.session = Session(path, self.seam)
        self.kernel = self.session.kernel
        self.errors: list[int] = []
        self.failed_call = ""
        self.known = dict(BEFORE)
        self.committed = dict(BEFORE)
        self.start = len(self.seam.calls)
        self._first = self.start + number
        self._error = error
        self._until_room_is_made = until_room_is_made
        self.seam.before = self._fail
        for program, result in PROGRAMS:
            self._run(program, result)

    def _fail(self, number: int, name: str) -> None:
        again = self._until_room_is_made and number > self._first and name in TAKES_ROOM
        if again or number == self._first:
            self.failed_call = self.failed_call or name
            raise OSError(self._error, f"{os.strerror(self._error)} at call {number}, {name}")

    def _run(self, program: Callable[[Kernel], None], result: dict[str, bytes | None]) -> None:
        try:
            program(self.kernel)
        except OSError as error:
            self.errors.append(error.errno or 0)
            for name in result:
                self.known.pop(name, None)
                self.committed.pop(name, None)
            return
        self.known |= result
        if not result or program is overwrite:
            self.committed = dict(self.known)

    def make_room(self) -> None:
        self.seam.before = lambda number, name: None

    def contents(self) -> dict[str, bytes]:
        return {
            path.decode(): entry.content
            for path, entry in self.kernel.tree().items()
            if entry.content is not None
        }

    def check(self, expected: dict[str, bytes | None]) -> None:
        found = self.contents()
        for name, content in expected.items():
            assert found.get(name) == content, f"{name} after {self.failed_call} failed"


@pytest.fixture
def filled(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Fresh copies of a store with some files."""
    set_limits(monkeypatch, FEW_BLOBS=1)
    from casfs.store import create_store

    create_store(str(scratch / "filled"), fan_out=1)
    session = Session(scratch / "filled")
    for name, content in BEFORE.items():
        session.kernel.write_file(name, content or b"")
    session.stop()
    made = []

    def copy() -> Path:
        made.append(scratch / f"copy-{len(made)}")
        copy_store(scratch / "filled", made[-1])
        return made[-1]

    yield copy
    assert len(made) > 1


@pytest.fixture
def calls(filled: Callable[[], Path]) -> int:
    """How many calls of the seam the programs make."""
    run = Run(filled(), 10**9, 0)
    assert not run.errors
    run.check({**BEFORE, **{name: content for _, result in PROGRAMS for name, content in result.items()}})
    total = len(run.seam.calls) - run.start
    assert {"create", "write_whole", "link", "rename", "unlink", *SYNCS} <= set(run.seam.calls)
    run.session.stop()
    return total


@pytest.mark.parametrize("until_room_is_made", [False, True], ids=["once", "until room is made"])
def test_a_full_disk(filled: Callable[[], Path], calls: int, until_room_is_made: bool) -> None:
    for number in range(calls):
        path = filled()
        run = Run(path, number, errno.ENOSPC, until_room_is_made=until_room_is_made)
        assert run.failed_call
        run.make_room()
        if run.session.fs.group.failed:
            check_reading_only(run, path, errno.ENOSPC)
            continue
        assert set(run.errors) <= {errno.ENOSPC}, run.failed_call
        run.check(run.known)
        run.kernel.write_file("after", NEW, sync=True)
        before = run.contents()
        run.kernel = run.session.reopen()
        assert run.contents() == before
        run.session.stop()
        assert_clean(path)


def test_a_failing_disk(filled: Callable[[], Path], calls: int) -> None:
    for number in range(calls):
        path = filled()
        run = Run(path, number, errno.EIO)
        assert run.failed_call
        run.make_room()
        if run.failed_call in SYNCS:
            assert run.session.fs.group.failed, f"{run.failed_call} failed and writing goes on"
        if run.session.fs.group.failed:
            check_reading_only(run, path, errno.EIO)
            continue
        assert set(run.errors) <= {errno.EIO}, run.failed_call
        run.check(run.known)
        run.kernel.sync()
        before = run.contents()
        run.kernel = run.session.reopen()
        assert run.contents() == before
        run.session.stop()
        assert_clean(path, strays=True)


def check_reading_only(run: Run, path: Path, error: int) -> None:
    """Nothing is written after a failed commit, everything can be read; the next start has all committed."""
    assert run.failed_call in MAY_STOP[error]
    assert set(run.errors) <= {error, errno.EROFS}, run.failed_call
    assert run.errors[0] == error
    run.contents()
    for write in (
        lambda: run.kernel.mkdir("late"),
        lambda: run.kernel.write_file("late", NEW),
        lambda: run.kernel.rename("large", "late"),
        lambda: run.kernel.chmod("large", 0),
    ):
        with pytest.raises(OSError, match=r".") as raised:
            write()
        assert raised.value.errno == errno.EROFS, run.failed_call
    with pytest.raises(OSError, match=os.strerror(error)):
        run.kernel.sync()
    run.session.abandon()
    session = Session(path)
    found = {name.decode(): entry.content for name, entry in session.kernel.tree().items()}
    for name, content in run.committed.items():
        if name in run.known:
            assert found.get(name) in (content, run.known[name]), f"{name} after {run.failed_call} failed"
    session.kernel.write_file("after", NEW, sync=True)
    session.stop()
    assert_clean(path, strays=True)


def test_stopping_on_a_full_disk_can_be_tried_again(filled: Callable[[], Path]) -> None:
    """Each call on the way of an unmount meets a full disk once; the second try is a clean end."""
    filled()
    stops = 0
    while True:
        path = filled()
        seam = FaultyDurable()
        session = Session(path, seam)
        kernel = session.kernel
        kernel.write_file("small", OLD + NEW)
        kernel.open("unsealed", os.O_RDWR | os.O_CREAT).write(LARGER + NEW)
        fsynced = kernel.open("fsynced", os.O_RDWR | os.O_CREAT)
        fsynced.write(LARGER + OLD)
        fsynced.fsync()
        kernel.unlink("removed")
        first = len(seam.calls) + stops

        def full(number: int, name: str, first: int = first) -> None:
            if number == first and name in TAKES_ROOM:
                raise OSError(errno.ENOSPC, "full")

        seam.before = full
        with suppress(OSError):
            run_inline(session.fs.stop())
        done = len(seam.calls) <= first
        seam.before = lambda number, name: None
        run_inline(session.fs.stop())
        session.abandon()
        session = Session(path)
        for name, content in (
            ("small", OLD + NEW),
            ("unsealed", LARGER + NEW),
            ("fsynced", LARGER + OLD),
            ("large", LARGE),
        ):
            assert session.kernel.read_file(name) == content
        assert b"removed" not in session.kernel.names()
        session.stop()
        assert_clean(path)
        if done:
            break
        stops += 1
    assert stops > 5
