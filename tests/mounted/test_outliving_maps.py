"""What a program can still do to a file after the last of its handles is closed.

A mapping that was made through a passthrough handle holds the *backing* file (backing_file_mmap in
fs/backing-file.c), so the daemon sees the handle go while the mapping lives, and while it can store. What
must hold, on every file system a store may lie on: no store through it reaches a blob, and with it the files
of other people; the file has what was stored; nothing is left damaged.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.actor import told
from tests.mounted.disks import Disk
from tests.mounted.mounts import Mount, casfs
from tests.mounted.programs import Program
from tests.mounted.sides import DIGEST, Mapping, hexdigest, opened, pattern
from tests.mounted.stalling import BYTE, Stall

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="several users")

USER = 1234
SIZE = 300_000
CONTENT = pattern(0, SIZE)
LATER = 2.5
"""Seconds, after which everything was committed that is going to be."""

PATIENCE = 90.0
"""Seconds within which a file that nobody can write to any more is sealed when it is asked for its digest."""

EVERYWHERE = pytest.mark.parametrize(
    ("place", "mode"),
    [("ext4", "no-native"), *((kind, "native") for kind in ("ext4", "xfs", "btrfs", "overlay"))],
    indirect=["place"],
)
"""Natively on each of them: what is passed through is the file below."""


@pytest.fixture
def place(new_disk: Callable[..., Disk], request: pytest.FixtureRequest, scratch: Path) -> Iterator[Path]:
    """A folder on a file system of the kind asked for, by default ext4."""
    kind = getattr(request, "param", "ext4")
    disk = new_disk("ext4" if kind == "overlay" else kind, 512 << 20)
    if kind != "overlay":
        yield disk.path
        return
    for name in ("lower", "upper", "work", "merged"):
        (disk.path / name).mkdir()
    merged = disk.path / "merged"
    options = ",".join(f"{name}dir={disk.path / name}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", "-l", merged], check=True)


@pytest.fixture
def shared(place: Path, new_mount: Callable[..., Mount]) -> Mount:
    """A mount in which `USER` has a sealed file, `mine`."""
    mount = new_mount(place / "store").start()
    mount.assert_mode()
    mount.path.chmod(0o777)
    with Program(mount.path, USER) as program:
        assert program("open", 0, "mine", "WRONLY|CREAT", "0600") is None
        assert program("write", 0, 0, SIZE) == SIZE
    assert digest_in_time(mount.path / "mine") == hexdigest(CONTENT)
    return mount


def digest_in_time(path: Path) -> str:
    """What the file's digest is as soon as it has one."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.getxattr(path, DIGEST).decode()
        except OSError:
            assert time.monotonic() < deadline, f"{path} is not sealed"
            time.sleep(0.2)


def map_and_close(program: Program, length: int = SIZE) -> None:
    """As a passthrough inode: the one who only reads comes first."""
    assert program("open", 0, "mine", "RDONLY", "0") is None
    assert program("open", 1, "mine", "RDWR", "0") is None
    assert program("map", 0, 1, length, True, False) is None
    assert program("close", 0) is None
    assert program("close", 1) is None


def copy_as_root(mount: Mount) -> Path:
    """Somebody else comes to have the same content, by writing it."""
    theirs = mount.path / "theirs"
    theirs.touch(0o600)
    theirs.write_bytes(CONTENT)
    assert digest_in_time(theirs) == hexdigest(CONTENT)
    return theirs


class Expected:
    """What `mine` has to hold; each change is by a step of a program, which succeeds."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.mine = mount.path / "mine"
        self.content = bytearray(CONTENT)

    def change(self, perform: Callable[[int, int, int], Any], offset: int, seed: int, size: int) -> None:
        assert perform(offset, seed, size) == size
        self.content[offset : offset + size] = pattern(seed, size)

    def look(self) -> None:
        """Others see it, through read(2) and through a mapping, and no blob has changed."""
        assert self.mine.read_bytes() == self.content
        with opened(self.mine) as fd, Mapping(fd, len(self.content)) as mapping:
            assert mapping.read(0, len(self.content)) == self.content
        self.mount.assert_blobs_whole()

    def settle(self, kind: str = "ext4") -> None:
        """Once nobody can write any more it becomes a blob, and is the same over a remount.

        On a stacked file system, where leases do not tell who has a file mapped, at unmount only.
        """
        self.look()
        if kind != "overlay":
            assert digest_in_time(self.mine) == hexdigest(self.content)
            self.look()
        self.mount.remount()
        self.look()
        assert digest_in_time(self.mine) == hexdigest(self.content)
        self.scrub()

    def scrub(self) -> None:
        casfs("scrub", "--restart", self.mount.store)


def fsync(path: Path) -> None:
    with opened(path) as fd:
        os.fsync(fd)


@EVERYWHERE
def test_a_mapping_that_outlives_its_handles_changes_no_file_of_others(
    shared: Mount, request: pytest.FixtureRequest
) -> None:
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        map_and_close(program)
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        for number in range(3):
            expected.change(
                lambda *what: program("map_write", 0, *what), 5000 + 70_000 * number, number + 1, 9000
            )
            assert theirs.read_bytes() == CONTENT
            expected.look()
            time.sleep(0.5)
        fsync(expected.mine)
        assert program("map_read", 0, 0, SIZE) == list(told(bytes(expected.content)))
        assert program("unmap", 0) is None
    assert theirs.read_bytes() == CONTENT
    expected.settle(request.node.callspec.params["place"])
    assert theirs.read_bytes() == CONTENT


@EVERYWHERE
def test_a_mapping_that_outlives_its_handles_and_the_daemon_changes_no_file_of_others(shared: Mount) -> None:
    """SIGKILL, while it lives: the next daemon finds a staged file to which somebody can still write."""
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        map_and_close(program)
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda *what: program("map_write", 0, *what), 5000, 1, 9000)
        fsync(expected.mine)
        fsync(theirs)
        shared.kill()
        shared.start()
        assert expected.mine.read_bytes() == expected.content
        assert digest_may_come(expected.mine) in ("", hexdigest(expected.content))
        time.sleep(LATER)
        program("map_write", 0, 0, 2, 9000)  # into the dead mount; whether it arrives is not promised
        shared.assert_blobs_whole()
        assert theirs.read_bytes() == CONTENT
        later = bytearray(expected.content)
        later[:9000] = pattern(2, 9000)
        assert expected.mine.read_bytes() in (expected.content, later)
        program("unmap", 0)
    expected.content = bytearray(expected.mine.read_bytes())
    expected.settle()
    assert theirs.read_bytes() == CONTENT


def digest_may_come(path: Path) -> str:
    """Its digest, "" while it has none. Asking may seal, which must not be done while somebody can write."""
    try:
        return os.getxattr(path, DIGEST).decode()
    except OSError:
        return ""


def test_a_mapping_is_never_put_back_among_the_files_to_be_written(shared: Mount) -> None:
    """`mine` is removed; its staged file must not be handed to the next one who writes."""
    with Program(shared.path, USER) as program:
        map_and_close(program)
        os.unlink(shared.path / "mine")
        time.sleep(LATER)
        others = [pattern(number, SIZE) for number in range(1, 6)]
        for number, content in enumerate(others):
            (shared.path / f"other{number}").write_bytes(content)
            program("map_write", 0, number * 4096, 6, 4096)
        time.sleep(LATER)
        program("map_write", 0, 100_000, 7, 100_000)
        for number, content in enumerate(others):
            assert (shared.path / f"other{number}").read_bytes() == content
        shared.assert_blobs_whole()
        program("unmap", 0)
    shared.remount()
    for number, content in enumerate(others):
        assert (shared.path / f"other{number}").read_bytes() == content
    casfs("scrub", "--restart", shared.store)


def test_a_new_file_that_was_mapped_before_it_was_ever_closed(shared: Mount) -> None:
    """No blob before: made, read by somebody through the same staged file, mapped, closed."""
    expected = Expected(shared)
    expected.mine = shared.path / "new"
    with Program(shared.path, USER) as program:
        assert program("open", 0, "new", "RDWR|CREAT", "0600") is None
        assert program("write", 0, 0, SIZE) == SIZE
        assert program("map", 0, 0, SIZE, True, False) is None
        assert program("close", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda *what: program("map_write", 0, *what), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
        assert program("unmap", 0) is None
    expected.settle()
    assert theirs.read_bytes() == CONTENT


# Other ways to keep a file


def test_a_child_that_has_the_mapping(shared: Mount) -> None:
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        map_and_close(program)
        assert program("fork") is None
        assert program("leave_to_child", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda *what: program("poke_child", 0, *what), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
        assert program("end_child") is None
    expected.settle()


def test_a_store_from_outside(shared: Mount) -> None:
    """process_vm_writev(2), as a debugger does it."""
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        map_and_close(program)
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda *what: program("poke", 0, *what), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
    expected.settle()


def test_a_descriptor_in_flight(shared: Mount) -> None:
    """Sent over a socket and not received yet: nobody has it, and it is not closed."""
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        assert program("open", 0, "mine", "RDONLY", "0") is None
        assert program("open", 1, "mine", "RDWR", "0") is None
        assert program("send", 1) is None
        assert program("close", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        assert program("receive", 1) is None
        assert program("map", 0, 1, SIZE, True, False) is None
        expected.change(lambda offset, *what: program("pwrite", 1, offset, *what, 0), 100_000, 2, 9000)
        assert program("close", 1) is None
        time.sleep(LATER)
        expected.change(lambda *what: program("map_write", 0, *what), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
    expected.settle()


def test_a_file_that_only_an_io_uring_has(shared: Mount) -> None:
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        assert program("open", 0, "mine", "RDONLY", "0") is None
        assert program("open", 1, "mine", "RDWR", "0") is None
        if (kept := program("ring_keep", 1)) is not None:
            pytest.skip(f"no io_uring here: {kept}")
        assert program("close", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda *what: program("ring_write", *what), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
        assert program("ring_end") is None
    expected.settle()


def test_the_file_of_a_mapping_opened_by_map_files(shared: Mount) -> None:
    """Only root may; what it gets is the file below, when the mapping was passed through."""
    expected = Expected(shared)
    with Program(shared.path) as program:
        map_and_close(program)
        assert program("open_mapped", 3, 0, "RDWR") is None
        assert program("unmap", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        expected.change(lambda offset, *what: program("pwrite", 3, offset, *what, 0), 5000, 1, 9000)
        assert theirs.read_bytes() == CONTENT
        expected.look()
    expected.settle()


@pytest.mark.parametrize("mode", ["native"])
def test_pages_that_the_kernel_has_pinned(shared: Mount, scratch: Path) -> None:
    """A read into the mapping has begun, the mapping goes, and then the read ends: nobody has the file any
    more, and its pages change.

    Where nothing is passed through these are pages of the FUSE file, and what is left in them after the last
    handle is gone has no way to the daemon: the kernel tells the next one who opens the file (EIO).
    """
    expected = Expected(shared)
    stall = Stall(scratch / "stalling")
    try:
        with Program(shared.path, USER) as program:
            map_and_close(program)
            assert program("read_into", 0, 8192, 4096, str(stall.slow)) is None
            stall.await_line()
            assert program("unmap", 0) is None
            theirs = copy_as_root(shared)
            time.sleep(LATER)
            before = digest_may_come(expected.mine)
            time.sleep(LATER)
            stall.answer()
            assert program("await_read") is None
            shared.assert_blobs_whole()
            assert theirs.read_bytes() == CONTENT
            found = expected.mine.read_bytes()
            stored = bytearray(CONTENT)
            stored[8192:12288] = BYTE * 4096
            assert found == stored or (found == CONTENT and before)
            expected.content = bytearray(found)
    finally:
        stall.end()
    expected.settle()


# Readers


def test_a_mapping_that_reads_never_sees_another_content(shared: Mount) -> None:
    """Its file is closed, and removed; another one has the same content, is read by passthrough, and then
    written to."""
    with Program(shared.path, USER) as program:
        assert program("open", 0, "mine", "RDONLY", "0") is None
        assert program("map", 0, 0, SIZE, False, False) is None
        assert program("map_read", 0, 0, 4096) == list(told(CONTENT[:4096]))
        assert program("close", 0) is None
        theirs = copy_as_root(shared)
        time.sleep(LATER)
        with opened(theirs) as reader, opened(theirs, os.O_RDWR) as writer:
            os.pread(reader, SIZE, 0)
            os.pwrite(writer, b"secret" * 10_000, 100_000)
            assert program("map_read", 0, 0, SIZE) == list(told(CONTENT))
            os.ftruncate(writer, 8192)
            assert program("map_read", 0, 0, SIZE) == list(told(CONTENT))
        assert program("map_read", 0, 0, SIZE) == list(told(CONTENT))
        os.unlink(theirs)
        os.unlink(shared.path / "mine")
        casfs("gc", "run", shared.store, "--grace", "0")
        assert program("map_read", 0, 0, SIZE) == list(told(CONTENT))
    shared.assert_blobs_whole()
    casfs("scrub", "--restart", shared.store)


def test_a_mapping_that_reads_its_own_file_sees_who_writes_to_it_later(shared: Mount) -> None:
    """As on any file system; here the writer comes after the reader's handle is gone."""
    expected = Expected(shared)
    with Program(shared.path, USER) as program:
        assert program("open", 0, "mine", "RDONLY", "0") is None
        assert program("map", 0, 0, SIZE, False, False) is None
        assert program("close", 0) is None
        theirs = copy_as_root(shared)
        with opened(expected.mine, os.O_RDWR) as writer:
            expected.change(
                lambda offset, seed, size: os.pwrite(writer, pattern(seed, size), offset), 5000, 1, 9000
            )
        seen = program("map_read", 0, 0, SIZE)
        # Which of the two it sees is a limit of passthrough; another content than these it must not see.
        assert seen in (list(told(CONTENT)), list(told(bytes(expected.content))))
        assert theirs.read_bytes() == CONTENT
        expected.look()
    expected.settle()
