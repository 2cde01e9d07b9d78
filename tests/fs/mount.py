"""A file system on a real event loop with real threads, as the daemon runs it, without the kernel."""

from __future__ import annotations

import errno
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import apsw
import trio

from casfs.errors import FsError
from casfs.fs.content.content import Handle
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fuse.scheduler import TrioScheduler
from casfs.repositories.filesystem import file_system
from casfs.store import Store, database_path
from casfs.types import ROOT_INO
from tests.faults import FaultyDurable


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

    async def unlink(self, name: bytes, parent: int = ROOT_INO, *, missing_ok: bool = False) -> None:
        """`missing_ok`: another one may have removed it meanwhile."""
        try:
            inode = await self.fs.tree.unlink(parent, name)
        except FsError as error:
            if error.errno != errno.ENOENT or not missing_ok:
                raise
            return
        await self.fs.tree.forget([inode.ino])

    def committed(self) -> dict[bytes, tuple[int, bytes | None, str | None]]:
        """What a crash now would leave: name -> (size, digest of the blob, name of the staged file)."""
        # With APSW: another SQLite in this process would not see its locks, and remove the log at the end.
        path = database_path(self.fs.store.path)
        with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as other:
            rows = other.execute(
                """SELECT d.name, i.size, b.blake3, i.staged FROM dentry AS d JOIN inode AS i USING (ino)
                   LEFT JOIN blob AS b ON b.id = i.blob_id"""
            ).fetchall()
        return {name: (size, digest, staged) for name, size, digest, staged in rows}

    @contextmanager
    def held(self, call: str) -> Iterator[Gate]:
        """The next `call` of the seam waits in its thread."""
        gate = Gate()
        held: list[int] = []
        before = self.seam.before

        def hold(number: int, name: str) -> None:
            before(number, name)
            if name == call and not held:
                held.append(number)
                gate()

        self.seam.before = hold
        try:
            yield gate
        finally:
            gate.open()
            self.seam.before = before


@asynccontextmanager
async def mounted(path: Path) -> AsyncIterator[Mount]:
    seam = FaultyDurable()
    store = Store(str(path), durable=seam)
    seam.watch(store.namespace)
    fs = file_system(store, TrioScheduler())
    await fs.start()
    try:
        yield Mount(fs, seam)
    finally:
        await fs.stop()
        store.close()


Run = Callable[[Callable[[Mount], Awaitable[None]]], None]
