"""Everything at once: programs on files of their own and on shared ones, kills in between."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from casfs.errors import FsError
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.locks import Turnstile
from casfs.fs import copy
from casfs.fs.attributes import Changes
from casfs.fs.content.content import Handle
from casfs.fs.tree import RENAME_EXCHANGE
from casfs.fuse.scheduler import TrioScheduler
from casfs.repositories.filesystem import file_system
from casfs.store import Store, create_store
from casfs.types import ROOT_INO
from tests.faults import FaultyDurable
from tests.fs.mount import Mount, Run, mounted
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.limits import TIGHT, set_limits
from tests.session import Session, close_below

SEEDS = range(int(os.environ.get("CASFS_SEEDS", "4")))


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
        actions = [
            self.write,
            self.write,
            self.rewrite,
            self.rename,
            self.exchange,
            self.copy,
            self.remove,
            self.shared,
        ]
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

    async def copy(self) -> None:
        name, target = self._name(), self._name()
        if name in self.contents and name != target:
            await copy.copy(self._mount.fs, name, target, recursive=False)
            self.contents[target] = self.sure[target] = self.contents[name]
            await self._mount.fs.tree.forget(list(self._mount.fs.tree.unlinked))

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
            await self._mount.unlink(name, missing_ok=True)

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


@pytest.mark.parametrize("seed", SEEDS)
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


class FailingProgram(Program):
    """Goes on after an error, and relies on nothing about the file it happened to."""

    def __init__(self, mount: Mount, number: int, random: random.Random) -> None:
        super().__init__(mount, number, random)
        self._names: list[bytes] = []
        self.errors: set[int | None] = set()

    def _name(self) -> bytes:
        self._names.append(super()._name())
        return self._names[-1]

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            self._names.clear()
            try:
                await super().run(1)
            except OSError as error:
                self.errors.add(error.errno)
                for name in self._names:
                    self.contents.pop(name, None)
                    self.sure.pop(name, None)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
def test_many_programs_on_a_bad_disk(scratch: Path, seed: int, error: int) -> None:
    """Errors at random calls. Everything fsynced is there afterwards, whoever was told of what."""
    create_store(str(scratch / "store"), fan_out=1)
    choose = random.Random(seed)
    calls = {"create", "write_whole", "link", "rename", "reserve_log"}
    if error == errno.EIO:
        calls |= {"fdatasync", "fsync_path", "commit", "sync_log"}

    def fail(number: int, name: str) -> None:
        if name in calls and choose.random() < 0.05:
            raise OSError(error, os.strerror(error))

    kept: dict[bytes, bytes] = {}

    async def main() -> None:
        seam = FaultyDurable()
        store = Store(str(scratch / "store"), durable=seam)
        seam.watch(store.namespace)
        fs = file_system(store, TrioScheduler())
        await fs.start()
        mount = Mount(fs, seam)
        programs = [FailingProgram(mount, number, random.Random(seed * 100 + number)) for number in range(6)]
        seam.before = fail
        async with trio.open_nursery() as nursery:
            for program in programs:
                nursery.start_soon(program.run, 40)
        seam.before = lambda number, name: None
        for program in programs:
            await program.check()
            kept.update(program.sure if fs.group.failed else program.contents)
            assert program.errors <= {error, errno.EROFS, errno.EBUSY}
        if fs.group.failed:
            with pytest.raises(OSError, match=r"."):
                await fs.stop()
        else:
            await fs.stop()
        store.close()

    trio.run(main)
    close_below(scratch)
    session = Session(scratch / "store")
    for name, content in kept.items():
        assert session.kernel.read_file(name) == content, name
    session.stop()
    assert_clean(scratch / "store", strays=True)


@pytest.mark.parametrize("change", ["made", "removed", "replaced"])
def test_a_file_is_copied_to_a_name_that_changes_meanwhile(run: Run, store_path: Path, change: str) -> None:
    """The copy waits for its turn, and finds another name than the one it has looked at."""

    async def body(mount: Mount) -> None:
        await mount.write_file(b"source", b"content")
        if change != "made":
            await mount.write_file(b"target", b"old")
        await mount.fs.group.durable()

        async def other() -> None:
            if change != "made":
                await mount.unlink(b"target")
            if change != "removed":
                await mount.make(b"target", stat.S_IFDIR | 0o755)

        async def copy_it() -> None:
            try:
                await copy.copy(mount.fs, b"source", b"target", recursive=False)
            except FsError as error:
                refused.append(error.errno)

        refused: list[int | None] = []
        turnstile = Turnstile(StoreDirectory(str(store_path)))
        assert turnstile.try_enter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(copy_it)
            await trio.testing.wait_all_tasks_blocked()
            turnstile.leave()
        turnstile.close()
        found = mount.fs.tree.lookup(ROOT_INO, b"target")
        assert found is not None
        assert found.is_directory == (change != "removed")
        assert refused == ([] if change == "removed" else [errno.EEXIST])
        await mount.fs.group.durable()
        assert mount.fs.store.namespace.inodes.count() == 3

    run(body)


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
                    await mount.unlink(name, parent, missing_ok=True)
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
        names = {name for _, name, _ in mount.fs.listing.list(ROOT_INO, 2)}
        assert names == {b"tree", *(b"copy %d" % number for number in made)}
        assert made
        assert refused <= {errno.EBUSY}

    run(body)
