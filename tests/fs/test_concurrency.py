"""Many requests at once: commits shared, waits kept short, and nobody gets another's bytes."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from casfs.errors import FsError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.locks import Turnstile
from casfs.fs.attributes import Changes
from casfs.fs.content import sealing
from casfs.fs.content.content import Handle
from casfs.fs.tree import Tree
from casfs.namespace.namespace import Namespace
from casfs.store import database_path
from casfs.types import ROOT_INO
from tests.fs.mount import Gate, Mount, Run
from tests.limits import set_limits

LARGE = bytes(range(256)) * 1200


# Commits


def test_callers_of_fsync_share_a_commit(run: Run) -> None:
    async def body(mount: Mount) -> None:
        async def one(number: int) -> None:
            handle = mount.open(await mount.make(b"%d" % number))
            await mount.fs.files.write(handle, 0, b"content %d" % number)
            await mount.fs.files.fsync(handle)
            await mount.close(handle)

        mount.seam.calls.clear()
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(one, number)
        assert 1 <= mount.seam.calls.count("commit") <= 10

    run(body)


def test_operations_go_on_while_blobs_become_durable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 1 of a commit: the gate is open, new blobs may come."""
    set_limits(monkeypatch, FEW_BLOBS=1)

    async def body(mount: Mount) -> None:
        for number in range(3):
            await mount.write_file(b"%d" % number, b"content %d" % number)
        async with trio.open_nursery() as nursery:
            with mount.held("syncfs") as gate:
                nursery.start_soon(mount.fs.group.durable)
                await gate.arrived()
                await mount.write_file(b"meanwhile", b"other content")
                await mount.unlink(b"0")
                assert await mount.read_file(b"meanwhile") == b"other content"
        assert not mount.fs.group.active

    run(body)


def test_a_commit_that_runs_takes_the_files_of_new_blobs_along(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, FEW_BLOBS=1)

    async def body(mount: Mount) -> None:
        for number in range(3):
            await mount.write_file(b"%d" % number, b"content %d" % number)
        assert "write_whole" not in mount.seam.calls
        async with trio.open_nursery() as nursery:
            with mount.held("write_whole") as gate:
                nursery.start_soon(mount.fs.group.durable)
                await gate.arrived()
                written = mount.seam.calls.count("write_whole")
                await mount.write_file(b"meanwhile", b"other content")
                assert mount.seam.calls.count("write_whole") == written
                await mount.unlink(b"0")
                assert await mount.read_file(b"meanwhile") == b"other content"
        assert not mount.fs.group.active
        calls = len(mount.seam.calls)
        await mount.write_file(b"afterwards", b"different content")
        assert len(mount.seam.calls) == calls

    run(body)


@pytest.mark.parametrize("at_close", [True, False])
def test_nobody_publishes_while_the_gate_is_closed_and_the_rest_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, at_close: bool
) -> None:
    """Step 2 of a commit. What is closed meanwhile waits, or is left to the next commit."""
    set_limits(monkeypatch, OPEN_ROUNDS=0)

    async def body(mount: Mount) -> None:
        mount.fs.contents.settling.seals_at_close = at_close
        await mount.write_file(b"first", b"first content")
        sealed = trio.Event()

        async def seal() -> None:
            await mount.write_file(b"second", b"second content")
            sealed.set()

        async with trio.open_nursery() as nursery:
            with mount.held("fsync_path") as gate:
                nursery.start_soon(mount.fs.group.durable)
                await gate.arrived()
                nursery.start_soon(seal)
                await mount.make(b"directory", stat.S_IFDIR)
                await mount.fs.attributes.set(ROOT_INO, Changes(mode=0o700), None, 0)
                await trio.testing.wait_all_tasks_blocked()
                assert sealed.is_set() != at_close
                assert bool(mount.fs.contents.sealing.due) != at_close
                assert mount.fs.contents.table.unsealed == 1
                assert mount.fs.tree.lookup(ROOT_INO, b"second") is not None
            await sealed.wait()
        await mount.fs.group.durable()
        await mount.fs.contents.settling.write_back()
        assert not mount.fs.contents.table.unsealed
        assert await mount.read_file(b"second") == b"second content"

    run(body)


@pytest.mark.parametrize("rounds", [0, 8], ids=["closed", "open"])
@pytest.mark.parametrize("verb", ["rename", "link", "unlink"])
def test_what_was_closed_is_not_left_out_of_a_commit_that_has_what_came_after(
    run: Run, monkeypatch: pytest.MonkeyPatch, rounds: int, verb: str
) -> None:
    """Written to a temporary name, closed, renamed to a new one: a crash left the new name and no content.
    Compressed into another file, and then removed: a crash left neither."""
    set_limits(monkeypatch, OPEN_ROUNDS=rounds)

    async def change(tree: Tree) -> None:
        if verb == "rename":
            await tree.rename(ROOT_INO, b"new", ROOT_INO, b"final", 0)
        elif verb == "link":
            inode = tree.lookup(ROOT_INO, b"new")
            assert inode is not None
            await tree.link(inode.ino, ROOT_INO, b"final")
        else:
            await tree.unlink(ROOT_INO, b"old")

    async def body(mount: Mount) -> None:
        await mount.write_file(b"old", b"content")
        await mount.fs.group.durable()
        await mount.write_file(b"other", b"other content")
        async with trio.open_nursery() as nursery:
            with mount.held("fsync_path") as gate, mount.held("sync_log") as end:
                nursery.start_soon(mount.fs.group.durable)
                await gate.arrived()
                assert mount.fs.group.is_closing == (rounds == 0)
                await mount.write_file(b"new", b"new content")
                nursery.start_soon(change, mount.fs.tree)
                await trio.testing.wait_all_tasks_blocked()
                gate.open()
                await end.arrived()
                committed = mount.committed()
                assert committed[b"other"][1] is not None
                assert b"old" in committed or committed[b"new"][1] is not None
                assert b"final" not in committed or committed[b"final"][1] is not None

    run(body)


def test_a_commit_waits_for_what_was_closed_and_is_just_fsynced_by_another(run: Run) -> None:
    """It was left out, since somebody was busy with it."""

    async def body(mount: Mount) -> None:
        await mount.write_file(b"file", b"content")
        inode = mount.fs.tree.lookup(ROOT_INO, b"file")
        assert inode is not None
        reader = mount.fs.files.open(inode, False, 0)
        order: list[str] = []

        async def write_back() -> None:
            await mount.fs.contents.settling.write_back()
            order.append("sealed" if inode.blob is not None else "left out")

        async with trio.open_nursery() as nursery:
            with mount.held("fdatasync") as gate:
                nursery.start_soon(mount.fs.files.fsync, reader)
                await gate.arrived()
                nursery.start_soon(write_back)
                await trio.testing.wait_all_tasks_blocked()
                assert order == []
        assert order == ["sealed"]
        await mount.fs.files.release(reader)

    run(body)


def test_the_next_group_begins_while_the_log_is_synced(run: Run) -> None:
    """Step 4 of a commit: what comes now is not part of it, and its callers wait for their own."""

    async def body(mount: Mount) -> None:
        await mount.make(b"first")
        order: list[str] = []

        async def durable(name: str) -> None:
            await mount.fs.group.durable()
            order.append(name)

        async with trio.open_nursery() as nursery:
            with mount.held("sync_log") as gate:
                nursery.start_soon(durable, "first")
                await gate.arrived()
                await mount.make(b"second")
                assert mount.fs.group.active
                nursery.start_soon(durable, "second")
                await trio.testing.wait_all_tasks_blocked()
                assert order == []
        assert order == ["first", "second"]
        assert mount.seam.calls.count("commit") >= 2

    run(body)


def test_a_failure_reaches_everybody_who_waits(run: Run) -> None:
    async def body(mount: Mount) -> None:
        await mount.make(b"file")
        errors: list[int | None] = []

        def full(number: int, name: str) -> None:
            if name == "reserve_log":
                raise OSError(errno.ENOSPC, "full")

        async def durable() -> None:
            with pytest.raises(OSError, match="full") as raised:
                await mount.fs.group.durable()
            errors.append(raised.value.errno)

        mount.seam.before = full
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(durable)
        assert errors == [errno.ENOSPC] * 5
        mount.seam.before = lambda number, name: None
        await mount.fs.group.durable()
        assert mount.fs.group.last_error == ""

    run(body)


# Other processes


def test_whoever_holds_the_turnstile_gets_the_next_turn(run: Run, store_path: Path) -> None:
    async def body(mount: Mount) -> None:
        await mount.fs.group.durable()
        turnstile = Turnstile(StoreDirectory(str(store_path)))
        assert turnstile.try_enter()
        made = []

        async def make(name: bytes) -> None:
            made.append(await mount.make(name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, b"one")
            nursery.start_soon(make, b"two")
            await trio.testing.wait_all_tasks_blocked()
            assert made == []
            turnstile.leave()
        assert len(made) == 2
        turnstile.close()

    run(body)


def test_a_write_lock_held_for_long_is_ebusy(
    run: Run, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, TURN_SECONDS=0.02)

    async def body(mount: Mount) -> None:
        await mount.fs.group.durable()
        other = Namespace(database_path(str(store_path)))
        turnstile = Turnstile(StoreDirectory(str(store_path)))
        assert other.try_begin()
        assert turnstile.try_enter()
        async with trio.open_nursery() as nursery:

            async def make() -> None:
                with pytest.raises(FsError) as raised:
                    await mount.make(b"file")
                assert raised.value.errno == errno.EBUSY

            nursery.start_soon(make)
            await trio.testing.wait_all_tasks_blocked()
            turnstile.leave()
        other.rollback()
        await mount.make(b"file")
        turnstile.close()
        other.close()

    run(body)


# Reads in a thread


class SlowReads:
    """Reads find nothing in the page cache, and the first one waits in its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = Gate()
        pread = os.pread
        waiting = threading.Semaphore()

        def slow(fd: int, size: int, offset: int) -> bytes:
            if waiting.acquire(blocking=False):
                self.gate()
            return pread(fd, size, offset)

        monkeypatch.setattr(os, "preadv", uncached)
        monkeypatch.setattr(os, "pread", slow)


def uncached(*_: object) -> int:
    """preadv2(2) with RWF_NOWAIT when the page cache has nothing."""
    raise BlockingIOError(errno.EAGAIN, "not cached")


async def read_meets(
    mount: Mount, slow: SlowReads, handle: Handle, *changes: Callable[[], Awaitable[object]]
) -> bytes:
    """What a read gets when changes come while it waits in its thread."""
    found: list[bytes] = []

    async def read() -> None:
        found.append(bytes(await mount.fs.files.read(handle, 0, len(LARGE))))

    async def change() -> None:
        for each in changes:
            await each()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await slow.gate.arrived()
        nursery.start_soon(change)
        await trio.testing.wait_all_tasks_blocked()
        slow.gate.open()
    return found[0]


@pytest.mark.parametrize("size", [0, 100_000], ids=["emptied", "cut"])
def test_a_read_meets_a_truncation(run: Run, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It may see the old content or what is left. It got an error, or what another file had there since."""

    async def body(mount: Mount) -> None:
        handle = mount.open(await mount.make(b"file"))
        await mount.fs.files.write(handle, 0, LARGE)
        found = await read_meets(
            mount,
            SlowReads(monkeypatch),
            handle,
            lambda: mount.fs.attributes.set(handle.inode.ino, Changes(size=size), handle, 0),
            lambda: mount.write_file(b"other", b"secret!!" * 50_000),
        )
        assert found in (LARGE, LARGE[:size])
        await mount.close(handle)

    run(body)


def test_a_read_meets_a_seal_that_finds_the_content_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The staged file went to the pool, and from there to the next writer, whose bytes were read."""

    async def body(mount: Mount) -> None:
        await mount.write_file(b"same", LARGE)
        writer = mount.open(await mount.make(b"file"))
        await mount.fs.files.write(writer, 0, LARGE)
        reader = mount.fs.files.open(writer.inode, False, 0)
        found = await read_meets(
            mount,
            SlowReads(monkeypatch),
            reader,
            lambda: mount.close(writer),
            lambda: mount.write_file(b"other", b"secret!!" * 50_000),
        )
        assert found == LARGE
        await mount.fs.files.release(reader)

    run(body)


def test_a_read_of_a_blob_meets_its_replacement(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        await mount.write_file(b"file", LARGE)
        inode = mount.fs.tree.lookup(ROOT_INO, b"file")
        assert inode is not None
        handle = mount.open(inode)
        found = await read_meets(
            mount,
            SlowReads(monkeypatch),
            handle,
            lambda: mount.fs.files.truncate_at_open(handle),
            lambda: mount.fs.files.write(handle, 0, b"new"),
        )
        assert found == LARGE
        await mount.close(handle)
        assert await mount.read_file(b"file") == b"new"

    run(body)


# Inodes that go


def test_a_file_removed_while_it_is_sealed_goes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel forgets it once; when that came during the seal, nobody removed the inode any more."""

    async def body(mount: Mount) -> None:
        gate = Gate()
        set_limits(monkeypatch, INLINE_WORK=0)
        hash_all = sealing.hash_all

        def slow(*args: Any) -> Any:
            gate()
            return hash_all(*args)

        monkeypatch.setattr(sealing, "hash_all", slow)
        handle = mount.open(await mount.make(b"file"))
        await mount.fs.files.write(handle, 0, LARGE)
        await mount.fs.files.write(handle, 0, b"not in order")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.release, handle)
            await gate.arrived()
            await mount.unlink(b"file")
            gate.open()
        assert mount.fs.activity().unlinked_open == 0
        await mount.fs.group.durable()
        assert mount.fs.store.namespace.inodes.count() == 1

    run(body)


def test_fsync_of_a_directory_covers_what_was_closed_while_a_commit_let_nobody_publish(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file closed then was still to be sealed, and the commit that ran was taken for one that had it."""
    set_limits(monkeypatch, OPEN_ROUNDS=0)

    async def body(mount: Mount) -> None:
        await mount.write_file(b"first", b"first content")
        async with trio.open_nursery() as nursery:
            with mount.held("fsync_path") as gate:
                nursery.start_soon(mount.fs.group.durable)
                await gate.arrived()
                await mount.write_file(b"second", b"second content")
                assert mount.fs.contents.table.unsealed == 1
                nursery.start_soon(durable_with_content, mount)
                await trio.testing.wait_all_tasks_blocked()

    async def durable_with_content(mount: Mount) -> None:
        await mount.fs.group.durable()
        size, digest, _ = mount.committed()[b"second"]
        assert size == len(b"second content")
        assert digest is not None

    run(body)
