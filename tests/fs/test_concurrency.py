"""Many requests at once, on a real event loop with real threads."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from casfs.errors import FsError
from casfs.fs import copy, sealing
from casfs.fs.attributes import Changes
from casfs.fs.content import Handle
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.tree import RENAME_EXCHANGE
from casfs.fuse.scheduler import TrioScheduler
from casfs.namespace.namespace import Namespace
from casfs.store import Store, Turnstile, database_path
from casfs.types import ROOT_INO
from tests.faults import FaultyDurable
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.limits import TIGHT, set_limits
from tests.session import Session

LARGE = bytes(range(256)) * 1200


class Gate:
    """Holds a call in its thread until it is opened; the event loop can wait for the call to arrive."""

    def __init__(self) -> None:
        self._arrived = trio.Event()
        self._open = threading.Event()
        self._token = trio.lowlevel.current_trio_token()

    def __call__(self) -> None:
        self._token.run_sync_soon(self._arrived.set)
        assert self._open.wait(30), "nobody opened the gate"

    async def arrived(self) -> None:
        with trio.fail_after(30):
            await self._arrived.wait()

    def open(self) -> None:
        self._open.set()


class Mount:
    """A file system as the daemon runs it, without the kernel."""

    def __init__(self, fs: FileSystem, seam: FaultyDurable) -> None:
        self.fs = fs
        self.seam = seam

    async def make(self, name: bytes, mode: int = stat.S_IFREG | 0o644) -> Inode:
        return await self.fs.tree.make(ROOT_INO, name, mode, 0, 0)

    def open(self, inode: Inode) -> Handle:
        return self.fs.files.open(inode, True, 0)

    async def write_file(self, name: bytes, content: bytes) -> None:
        handle = self.open(await self.make(name))
        await self.fs.files.write(handle, 0, content)
        await self.close(handle)

    async def close(self, handle: Handle) -> None:
        await self.fs.files.flush(handle)
        await self.release(handle)

    async def release(self, handle: Handle) -> None:
        await self.fs.files.release(handle)
        if not handle.inode.nlink:
            await self.fs.tree.released(handle.inode)

    async def read_file(self, name: bytes) -> bytes:
        inode = self.fs.tree.lookup(ROOT_INO, name)
        assert inode is not None
        handle = self.fs.files.open(inode, False, 0)
        try:
            return bytes(await self.fs.files.read(handle, 0, inode.size + 1))
        finally:
            await self.fs.files.release(handle)

    async def unlink(self, name: bytes) -> None:
        inode = await self.fs.tree.unlink(ROOT_INO, name)
        await self.fs.tree.forget([inode.ino])

    @contextmanager
    def held(self, call: str) -> Iterator[Gate]:
        """The next `call` of the seam waits in its thread."""
        gate = Gate()
        held: list[int] = []

        def hold(number: int, name: str) -> None:
            if name == call and not held:
                held.append(number)
                gate()

        self.seam.before = hold
        try:
            yield gate
        finally:
            gate.open()
            self.seam.before = lambda number, name: None


@asynccontextmanager
async def mounted(path: Path) -> AsyncIterator[Mount]:
    seam = FaultyDurable()
    store = Store(str(path), durable=seam)
    seam.watch(store.namespace)
    fs = FileSystem(store, TrioScheduler())
    await fs.start()
    try:
        yield Mount(fs, seam)
    finally:
        await fs.stop()
        store.close()


@pytest.fixture
def run(store_path: Path) -> Callable[[Callable[[Mount], Awaitable[None]]], None]:
    """Run a test body on a mounted store, for a minute at the most."""

    def run(body: Callable[[Mount], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                async with mounted(store_path) as mount:
                    await body(mount)

        trio.run(main)

    return run


Run = Callable[[Callable[[Mount], Awaitable[None]]], None]


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


def test_sealing_waits_while_the_gate_is_closed_and_the_rest_goes_on(run: Run) -> None:
    """Step 2 of a commit."""

    async def body(mount: Mount) -> None:
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
                assert not sealed.is_set()
                assert mount.fs.tree.lookup(ROOT_INO, b"second") is not None
            await sealed.wait()
        assert await mount.read_file(b"second") == b"second content"

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
        turnstile = Turnstile(f"{store_path}/run/turnstile")
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
        turnstile = Turnstile(f"{store_path}/run/turnstile")
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
        hash_descriptor = sealing.hash_descriptor

        def slow(*args: Any) -> Any:
            gate()
            return hash_descriptor(*args)

        monkeypatch.setattr(sealing, "hash_descriptor", slow)
        handle = mount.open(await mount.make(b"file"))
        await mount.fs.files.write(handle, 1, LARGE)
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


# Everything at once


class Program:
    """Random calls on files of its own and on shared ones; knows what its own files hold."""

    def __init__(self, mount: Mount, number: int, random: random.Random) -> None:
        self._mount = mount
        self._number = number
        self._random = random
        self.contents: dict[bytes, bytes] = {}
        self.sure: dict[bytes, bytes] = {}
        """What has been fsynced and not been touched since."""

    async def run(self, steps: int) -> None:
        actions = [self.write, self.write, self.rewrite, self.rename, self.exchange, self.remove, self.shared]
        for _ in range(steps):
            await self._random.choice(actions)()
            if self._random.random() < 0.1:
                await self._mount.fs.group.durable()
            await trio.lowlevel.checkpoint()

    def _name(self) -> bytes:
        """One of its own, about to be changed."""
        name = b"own %d %d" % (self._number, self._random.randrange(5))
        self.sure.pop(name, None)
        return name

    def _content(self) -> bytes:
        return self._random.choice([b"a", b"bb", b"ccc" * 30]) * self._random.choice([1, 2, 50, 5000])

    async def _open(self, name: bytes) -> Handle:
        inode = self._mount.fs.tree.lookup(ROOT_INO, name)
        return self._mount.open(inode or await self._mount.make(name))

    async def write(self) -> None:
        name, content = self._name(), self._content()
        handle = await self._open(name)
        await self._mount.fs.files.truncate_at_open(handle)
        await self._mount.fs.files.write(handle, 0, content)
        synced = self._random.random() < 0.6
        if synced:
            await self._mount.fs.files.fsync(handle)
            self.sure[name] = content
        if self._random.random() < 0.4:
            self.sure.pop(name, None)
            await self._mount.fs.files.write(handle, len(content), b"more")
            content += b"more"
        self.contents[name] = content
        await self._mount.close(handle)

    async def rewrite(self) -> None:
        name = self._name()
        handle = await self._open(name)
        old, piece = self.contents.get(name, b""), self._content()[:100]
        offset = self._random.randrange(len(old) + 1)
        await self._mount.fs.files.write(handle, offset, piece)
        self.contents[name] = old[:offset] + piece + old[offset + len(piece) :]
        size = self._random.randrange(len(self.contents[name]) + 1)
        await self._mount.fs.attributes.set(handle.inode.ino, Changes(size=size), handle, 0)
        self.contents[name] = self.contents[name][:size]
        await self._mount.close(handle)

    async def rename(self) -> None:
        name, target = self._name(), self._name()
        if name in self.contents and name != target:
            await self._mount.fs.tree.rename(ROOT_INO, name, ROOT_INO, target, 0)
            self.contents[target] = self.contents.pop(name)
            await self._mount.fs.tree.forget(list(self._mount.fs.tree.unlinked))

    async def exchange(self) -> None:
        name, target = self._name(), self._name()
        if name in self.contents and target in self.contents:
            await self._mount.fs.tree.rename(ROOT_INO, name, ROOT_INO, target, RENAME_EXCHANGE)
            self.contents[name], self.contents[target] = self.contents[target], self.contents[name]

    async def remove(self) -> None:
        name = self._name()
        if self.contents.pop(name, None) is not None:
            await self._mount.unlink(name)

    async def shared(self) -> None:
        """Fight with the others; the file is whatever it is, and readable."""
        name = b"shared %d" % self._random.randrange(2)
        try:
            handle = await self._open(name)
        except FsError:
            return  # another one has made it meanwhile
        content = self._content()
        await self._mount.fs.files.write(handle, 0, content)
        if self._random.random() < 0.3:
            await self._mount.fs.files.truncate_at_open(handle)
        await self._mount.close(handle)
        if self._mount.fs.tree.lookup(ROOT_INO, name) and self._random.random() < 0.3:
            await self._mount.unlink(name)

    async def check(self) -> None:
        for name, content in self.contents.items():
            assert await self._mount.read_file(name) == content, name


class Images:
    """Copies of the store as a kill would leave it, taken between the requests, with what must be in them."""

    def __init__(self, store: Path, folder: Path, programs: list[Program], random: random.Random) -> None:
        self._store = store
        self._folder = folder
        self._programs = programs
        self._random = random
        self._taken: list[tuple[Path, dict[bytes, bytes]]] = []

    def maybe_take(self, _number: int, _name: str) -> None:
        """Before a call of the seam on the event loop's thread, when nothing else changes names or rows."""
        if threading.current_thread() is threading.main_thread() and self._random.random() < 0.05:
            path = self._folder / f"image {len(self._taken)}"
            copy_store(self._store, path)
            sure = {name: content for program in self._programs for name, content in program.sure.items()}
            self._taken.append((path, sure))

    def check(self) -> int:
        """Open them all; how many there are."""
        for path, sure in self._taken:
            session = Session(path)
            for name, content in sure.items():
                assert session.kernel.read_file(name) == content, f"{name!r} was fsynced"
            session.stop()
            assert_clean(path, strays=True)
        return len(self._taken)


@pytest.mark.parametrize("seed", range(int(os.environ.get("CASFS_SEEDS", "4"))))
@pytest.mark.parametrize("limits", [{}, TIGHT], ids=["default", "tight"])
def test_many_programs_at_once(
    store_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, seed: int, limits: dict[str, float]
) -> None:
    set_limits(monkeypatch, **limits)
    kept: dict[bytes, bytes] = {}
    images = []

    async def main() -> None:
        async with mounted(store_path) as mount:
            programs = [Program(mount, number, random.Random(seed * 100 + number)) for number in range(8)]
            images.append(Images(store_path, scratch, programs, random.Random(seed)))
            mount.seam.before = images[0].maybe_take
            async with trio.open_nursery() as nursery:
                for program in programs:
                    nursery.start_soon(program.run, 40)
            mount.seam.before = lambda number, name: None
            for program in programs:
                await program.check()
                kept.update(program.contents)
        async with mounted(store_path) as mount:
            for name, content in kept.items():
                assert await mount.read_file(name) == content, name

    trio.run(main)
    assert kept
    assert images[0].check()


def test_a_tree_is_copied_while_others_change_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy is there or not, and whatever came between, the store is consistent."""
    set_limits(monkeypatch, STEP=2, GROUP_LIMIT=20, REMOVE_BATCH=2)
    choose = random.Random(1)

    async def body(mount: Mount) -> None:
        tree = (await mount.make(b"tree", stat.S_IFDIR | 0o755)).ino
        folders = [
            (await mount.fs.tree.make(tree, b"%d" % number, stat.S_IFDIR | 0o755, 0, 0)).ino
            for number in range(4)
        ]
        running = True

        async def change() -> None:
            while running:
                parent, name = choose.choice(folders), b"%d" % choose.randrange(5)
                try:
                    inode = await mount.fs.tree.make(parent, name, stat.S_IFREG | 0o644, 0, 0)
                    handle = mount.open(inode)
                    await mount.fs.files.write(handle, 0, name * choose.choice([1, 100_000]))
                    await mount.close(handle)
                except FsError:
                    inode = await mount.fs.tree.unlink(parent, name)
                    await mount.fs.tree.forget([inode.ino])
                await trio.lowlevel.checkpoint()

        async def copy_often() -> None:
            for number in range(12):
                try:
                    await copy.copy(mount.fs, b"tree", b"copy %d" % number, recursive=True)
                    made.append(number)
                except FsError as error:
                    refused.add(error.errno)

        made: list[int] = []
        refused: set[int | None] = set()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(change)
            await copy_often()
            running = False
        names = {name for _, name, _ in mount.fs.tree.list(ROOT_INO, 2)}
        assert names == {b"tree", *(b"copy %d" % number for number in made)}
        assert made
        assert refused <= {errno.EBUSY}

    run(body)
