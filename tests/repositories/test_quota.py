"""Quotas: what counts, what is refused, and that no verb leaves the count wrong."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.inodes import InodeTable
from casfs.fs.policy import Room
from casfs.fs.scheduler import run_inline
from casfs.repositories import guard
from casfs.repositories.filesystem import policy_of
from casfs.repositories.rules import Rules
from casfs.syscalls import KEEP_SIZE
from casfs.trash.filesystem import trash_of
from casfs.trash.undelete import undelete
from tests.kernel import Kernel, OpenFile
from tests.repositories.making import make_directories, make_repository
from tests.session import Session

KIB = 1 << 10


def fails(verb: Callable[..., object], *args: object, number: int = errno.EDQUOT) -> None:
    with pytest.raises(FsError) as raised:
        verb(*args)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


def used(session: Session, name: str = "libs") -> tuple[int, int]:
    """(files, bytes) as they are counted."""
    return policy_of(session.fs).quotas.used(session.kernel.inode(name).ino)


def there(session: Session, name: str = "libs") -> tuple[int, int]:
    """(files, bytes) as they are found."""
    sizes = {
        entry.ino: entry.size
        for path, entry in session.kernel.tree().items()
        if path.startswith(f"{name}/".encode()) and stat.S_ISREG(entry.mode)
    }
    return len(sizes), sum(sizes.values())


def limit(session: Session, size: int = 0, files: int = 0, soft: int = 0, name: str = "libs") -> int:
    rules = Rules(quota_bytes=size, quota_files=files, soft_percent=soft)
    return make_repository(session, name, None, rules)


@pytest.fixture
def kernel(session: Session) -> Kernel:
    limit(session, 10 * KIB, 5)
    return session.kernel


# What is refused


def test_bytes(session: Session, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.write_file("libs/a", bytes(6 * KIB))
    fails(kernel.write_file, "libs/b", bytes(5 * KIB))
    assert used(session) == there(session) == (2, 6 * KIB)
    assert "repository libs: b is refused, EDQUOT: the quota is 10240 bytes" in caplog.messages
    kernel.write_file("libs/b", bytes(4 * KIB))
    with kernel.open("libs/b", os.O_RDWR) as file:
        file.write(b"x" * 4 * KIB)
        fails(file.write, b"x", 4 * KIB)
        fails(file.truncate, 4 * KIB + 1)
        allocate = kernel.fs.contents.ranges.allocate
        fails(lambda: run_inline(allocate(file.handle, 0, 5 * KIB, 0)))
        run_inline(allocate(file.handle, 0, 5 * KIB, KEEP_SIZE))
        file.truncate(1 * KIB)
        assert used(session)[1] >= 7 * KIB
    kernel.write_file("libs/c", bytes(3 * KIB))
    fails(kernel.truncate, "libs/c", 4 * KIB)
    kernel.unlink("libs/c")
    kernel.truncate("libs/b", 4 * KIB)
    assert used(session) == there(session) == (2, 10 * KIB)
    kernel.write_file("libs/empty", b"")
    kernel.write_file("outside", bytes(100 * KIB))


def test_copies(session: Session, kernel: Kernel) -> None:
    kernel.write_file("large", bytes(8 * KIB))
    kernel.write_file("libs/a", bytes(4 * KIB))
    ranges = kernel.fs.contents.ranges
    with kernel.open("large") as source, kernel.open("libs/b", os.O_RDWR | os.O_CREAT) as target:
        fails(lambda: run_inline(ranges.copy_range(source.handle, 0, target.handle, 0, 8 * KIB)))
        fails(lambda: run_inline(ranges.copy_range(source.handle, 1, target.handle, 0, 7 * KIB)))
        run_inline(ranges.copy_range(source.handle, 1, target.handle, 0, 5 * KIB))
    assert used(session) == there(session) == (2, 9 * KIB)
    kernel.unlink("libs/b")
    fails(lambda: run_inline(copy.copy(kernel.fs, b"large", b"libs/b", recursive=False)))
    kernel.mkdir("tree")
    kernel.rename("large", "tree/large")
    fails(lambda: run_inline(copy.copy(kernel.fs, b"tree", b"libs", recursive=True)))
    kernel.truncate("tree/large", 6 * KIB)
    run_inline(copy.copy(kernel.fs, b"tree", b"libs", recursive=True))
    assert used(session) == there(session) == (2, 10 * KIB)
    run_inline(copy.copy(kernel.fs, b"libs/a", b"libs/tree/large", recursive=False))
    assert used(session) == there(session) == (2, 8 * KIB)


def test_names(session: Session, kernel: Kernel) -> None:
    kernel.write_file("large", bytes(8 * KIB))
    kernel.write_file("libs/a", bytes(4 * KIB))
    make_directories(session, "tree/deep")
    kernel.link("large", "tree/deep/large")
    fails(kernel.rename, "large", "libs/large")
    fails(kernel.link, "large", "libs/large")
    fails(kernel.rename, "tree", "libs/tree")
    with kernel.open_unnamed("libs") as unnamed:
        unnamed.write(bytes(7 * KIB))
        fails(kernel.link_file, unnamed, "libs/named")
        unnamed.truncate(6 * KIB)
        kernel.link_file(unnamed, "libs/named")
    assert used(session) == there(session) == (2, 10 * KIB)
    kernel.link("libs/named", "libs/again")
    kernel.rename("libs/again", "libs/named2")
    assert used(session) == there(session) == (2, 10 * KIB)
    fails(kernel.rename, "large", "libs/a", 2)
    kernel.truncate("large", 1 * KIB)
    kernel.rename("large", "libs/a", 2)
    assert used(session) == there(session) == (2, 7 * KIB)


def test_what_is_replaced_makes_room(session: Session, kernel: Kernel) -> None:
    kernel.write_file("libs/a", bytes(9 * KIB))
    kernel.write_file("new", bytes(10 * KIB))
    kernel.rename("new", "libs/a")
    assert used(session) == there(session) == (1, 10 * KIB)


def test_what_was_copied_for_a_change_that_is_refused_does_not_stay(session: Session) -> None:
    limit(session, 600 * KIB)
    kernel = session.kernel
    promised = kernel.fs.store.filestore.space.promised
    for size in (KIB, 500 * KIB):
        kernel.write_file("libs/a", os.urandom(size))
        session.rest()
        kernel.sync()
        for _ in range(2):
            with kernel.open("libs/a", os.O_RDWR) as file:
                fails(
                    lambda file=file: run_inline(
                        kernel.fs.contents.ranges.allocate(file.handle, 0, 601 * KIB, 0)
                    )
                )
                fails(file.write, b"x", 600 * KIB)
                fails(file.truncate, 601 * KIB)
            assert session.staged == 0
        assert kernel.fs.store.filestore.space.promised == promised
        assert len(kernel.read_file("libs/a")) == size


def test_files(session: Session, kernel: Kernel) -> None:
    for number in range(5):
        kernel.write_file(f"libs/{number}", b"")
    fails(kernel.write_file, "libs/5", b"")
    kernel.mkdir("libs/d")
    kernel.symlink("x", "libs/d/link")
    kernel.link("libs/0", "libs/d/0")
    kernel.write_file("out", b"")
    fails(kernel.rename, "out", "libs/5")
    kernel.rename("out", "libs/4")
    kernel.unlink("libs/3")
    kernel.write_file("libs/3", b"")
    assert used(session) == there(session) == (5, 0)


def test_a_soft_level_warns_once(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    limit(session, 1000, 0, 80)
    kernel = session.kernel
    for _ in range(2):
        caplog.clear()
        for number in range(10):
            kernel.write_file(f"libs/{number}", bytes(100))
        (line,) = caplog.messages
        assert line == "repository libs: 800 bytes are 80 % or more of the quota, 1000"
        for number in range(10):
            kernel.unlink(f"libs/{number}")


def test_a_quota_that_is_exceeded_already(session: Session) -> None:
    session.kernel.mkdir("libs")
    session.kernel.write_file("libs/a", bytes(1000))
    limit(session, 100, 1)
    fails(session.kernel.write_file, "libs/b", b"")
    session.kernel.truncate("libs/a", 500)
    session.kernel.write_file("libs/a", bytes(100))
    assert used(session) == there(session) == (1, 100)
    limit(session, 0, 0)
    session.kernel.write_file("libs/a", bytes(1000))


def test_what_cannot_be_written_after_all_is_not_counted_for_long(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "as if the disk were full")

    with kernel.open("libs/a", os.O_WRONLY | os.O_CREAT) as file:
        with monkeypatch.context() as patch:
            patch.setattr(kernel.fs.files._staged, "write", full)
            with pytest.raises(OSError, match="as if"):
                file.write(bytes(9 * KIB))
        kernel.sync()
        assert used(session) == (1, 0)
        file.write(bytes(10 * KIB))


# That the count is right


def test_a_directory_goes_in_and_out(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(session, 1 << 30, name="plugins")
    make_directories(session, "libs/d/e")
    kernel.write_file("libs/d/a", bytes(100))
    kernel.write_file("libs/d/e/b", bytes(1000))
    kernel.link("libs/d/a", "libs/stays")
    for target in ("plugins/d", "out", "libs/d"):
        kernel = session.reopen()
        kernel.rename(next(name for name in ("libs/d", "plugins/d", "out") if exists(kernel, name)), target)
        for name in ("libs", "plugins"):
            assert used(session, name) == there(session, name), (target, name)
    kernel.mkdir("other")
    kernel.write_file("other/c", bytes(5))
    kernel.rename("libs/d", "other", 2)
    assert used(session) == there(session) == (2, 105)
    monkeypatch.setattr(guard, "LIMIT", 1)
    for source, target in (("other", "libs/new"), ("other", "libs/d")):
        fails(kernel.rename, source, target, 2 if target == "libs/d" else 0, number=errno.EXDEV)
    assert used(session) == there(session)


def exists(kernel: Kernel, name: str) -> bool:
    with suppress(FsError):
        kernel.inode(name)
        return True
    return False


def test_what_comes_out_of_the_trash_counts(session: Session, kernel: Kernel) -> None:
    trash_of(session.fs).minimal_age_ns = 0
    for name in "ab":
        kernel.write_file(f"libs/{name}", bytes(6 * KIB))
        session.rest()
        kernel.sync()
        kernel.unlink(f"libs/{name}")
    assert used(session) == (0, 0)
    run_inline(undelete(session.fs, b"libs/a", 0, 1 << 62))
    assert used(session) == there(session) == (1, 6 * KIB)
    fails(lambda: run_inline(undelete(session.fs, b"libs/b", 0, 1 << 62)))


def test_after_a_crash_it_is_what_is_there(session: Session, kernel: Kernel, scratch: Path) -> None:
    kernel.write_file("libs/a", bytes(1000), sync=True)
    kernel.write_file("libs/b", bytes(2000))
    session.crash(scratch / "crashed")
    kernel = session.kernel
    assert used(session) == there(session) == (1, 1000)
    kernel.write_file("libs/c", bytes(10))
    assert used(session) == there(session) == (2, 1010)


class Chance:
    """Random operations in two repositories with quotas and a directory that is none."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session = session
        self.random = random.Random(seed)
        self.held: list[OpenFile] = []

    def directory(self) -> str:
        return self.random.choice(
            ("libs/d", "libs/d/e", "libs/f", "plugins/d", "plugins/f", "out/d", "out/f")
        )

    def name(self) -> str:
        place = self.random.choice((self.directory(), "libs", "plugins", "out"))
        return f"{place}/{self.random.choice('abcd')}"

    def close(self) -> None:
        while self.held:
            self.held.pop().close()

    def step(self) -> None:
        kernel, choice, name, directory = self.session.kernel, self.random.choice, self.name, self.directory
        size = choice((0, 1, 100, 3000))
        attempts: list[Callable[[], object]] = [
            lambda: kernel.write_file(name(), bytes(size), sync=choice((False, True))),
            lambda: kernel.write_file(name(), bytes(size), flags=os.O_APPEND),
            lambda: kernel.truncate(name(), size),
            lambda: kernel.unlink(name()),
            lambda: kernel.link(name(), name()),
            lambda: kernel.rename(name(), name(), choice((0, 0, 1, 2))),
            lambda: kernel.rename(directory(), directory(), choice((0, 2))),
            lambda: kernel.rename(directory(), directory(), choice((0, 2))),
            lambda: make_directories(self.session, directory()),
            lambda: run_inline(copy.copy(kernel.fs, name().encode(), name().encode(), recursive=False)),
            lambda: run_inline(
                copy.copy(kernel.fs, directory().encode(), directory().encode(), recursive=True)
            ),
            lambda: self.held.append(kernel.open(name(), os.O_RDWR | os.O_CREAT)),
            lambda: choice(self.held).write(bytes(size), choice((0, 500))),
            lambda: self.held.pop().close(),
            self.session.rest,
            kernel.sync,
        ]
        with suppress(FsError, IndexError):
            choice(attempts)()
        if self.random.random() < 0.02:
            self.close()
            self.session.reopen()
            self.session.fs.inodes._evict_at = 8


@pytest.mark.parametrize("seed", range(12))
def test_no_verb_leaves_it_wrong(session: Session, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casfs.fs.inodes.CACHE_SIZE", 8)
    monkeypatch.setattr(copy, "WAIT_SECONDS", 0.0)
    for name in ("libs", "plugins"):
        limit(session, 8 * KIB, 30, name=name)
    for name in ("libs/d/e", "libs/f", "plugins/d", "out/d"):
        make_directories(session, name)
    session.fs.inodes._evict_at = 8
    chance = Chance(session, seed)
    most = 0
    for _ in range(300):
        chance.step()
        for top in ("libs", "plugins"):
            assert used(session, top) == there(session, top)
        most = max(most, there(session)[1])
    chance.close()
    assert most > 3000


def test_a_count_that_fails_is_made_again(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "as if the database could not be read")

    kernel.write_file("libs/a", bytes(100))
    with monkeypatch.context() as patch:
        patch.setattr(policy_of(session.fs).quotas, "_repositories", fail)
        kernel.unlink("libs/a")
        kernel.write_file("libs/b", b"")
    kernel.sync()
    assert used(session) == there(session) == (1, 0)


def test_room(session: Session, kernel: Kernel) -> None:
    room = policy_of(session.fs).room
    kernel.mkdir("libs/d")
    kernel.write_file("libs/d/a", bytes(1000))
    kernel.write_file("out", b"")
    for path in ("libs", "libs/d", "libs/d/a"):
        assert room(kernel.inode(path)) == Room(10 * KIB, 10 * KIB - 1000, 5, 4)
    for path in ("", "out"):
        assert room(kernel.inode(path)) is None


def test_nobody_watches_without_a_quota(session: Session, kernel: Kernel) -> None:
    inodes: InodeTable = session.fs.inodes
    assert inodes.watcher is not None
    limit(session)
    assert inodes.watcher is None
    assert policy_of(session.fs).resizes is None
