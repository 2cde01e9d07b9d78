"""Requests that the native accelerator reads: their handlers, and what becomes of those that have to wait.

native/dispatch.c calls a handler with the fields of the request. A handler that is a coroutine is run up to
its end there and then, without a task or a pass of the event loop; if it has to wait, it goes on where the
loop learns that what it waits for has come (scheduler.py).
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

import outcome
import trio

from casfs.errors import FsError
from casfs.fs.attributes import Changes
from casfs.fs.content.content import Handle
from casfs.fs.inodes import Inode
from casfs.fs.listing import Rows
from casfs.fs.nodes import GENERATED, SNAPSHOTS
from casfs.fuse.caches import MountKernel
from casfs.fuse.operations import unexpected
from casfs.fuse.scheduler import Result, TrioScheduler, Wait
from casfs.fuse.verbs import Verbs
from casfs.store import CONFIG

Looked = TypeVar("Looked")

LEASES = 4000
"""Handles that are kept open for the next who only reads; the accelerator has room for a few more."""

RELEASE = 18

BURST = 32
"""Requests served before timers, thread results and other tasks get their turn."""

PATIENCE_MS = 1
"""Milliseconds the loop may sleep for the next request; so late timers and new commands may be."""

DIRECT_IO = 1 << 0
KEEP_CACHE = 1 << 1
NOFLUSH = 1 << 5
PASSTHROUGH = 1 << 7
"""FOPEN_* of linux/fuse.h: reads and writes go past the page cache; pages stay cached from one open to the
next; close(2) sends no FLUSH; reads and mappings (with DIRECT_IO only mappings) go to the backing file."""

SECOND_NS = 1_000_000_000

KILL_SUIDGID = 1 << 2
"""FUSE_WRITE_KILL_SUIDGID of linux/fuse.h: who writes has no CAP_FSETID."""

_SIZE_OUT = struct.Struct("=II")

COHERENT_MINOR = 40
"""Protocol of Linux 6.9, whose direct writes drop cached pages also after the write (fs/fuse/file.c)."""

MODE, UID, GID, SIZE, ATIME, MTIME, FH, ATIME_NOW, MTIME_NOW = (1 << bit for bit in range(9))
"""FATTR_* of linux/fuse.h: which fields of a SETATTR are set."""

OPCODES = {
    "lookup": (1,),
    "forget": (2,),
    "getattr": (3,),
    "setattr": (4,),
    "readlink": (5,),
    "symlink": (6,),
    "mknod": (8,),
    "mkdir": (9,),
    "unlink": (10,),
    "rmdir": (11,),
    "rename": (12, 45),
    "link": (13,),
    "open": (14,),
    "read": (15,),
    "write": (16,),
    "statfs": (17,),
    "release": (18,),
    "fsync": (20,),
    "getxattr": (22,),
    "flush": (25,),
    "readdir": (28,),
    "create": (35,),
    "allocate": (43,),
    "readdirplus": (44,),
    "seek": (46,),
    "copy_range": (47, 53),
    "tmpfile": (51,),
}
"""Handler -> opcodes (enum fuse_opcode of linux/fuse.h)."""


class Accelerated:
    """The requests of one mount that come through the accelerator. Runs on the event loop's thread."""

    def __init__(
        self,
        native: ModuleType,
        kernel: MountKernel,
        verbs: Verbs,
        scheduler: TrioScheduler,
    ) -> None:
        self._native = native
        self._kernel = kernel
        self._verbs = verbs
        self._scheduler = scheduler
        self._derived = verbs.fs.nodes.derived
        verbs.shown.caller = native.caller
        self._waiting = 0
        self._none_waits = trio.Event()
        self._leases: dict[int, int] = {}
        self._access_times = verbs.access_times
        self.passthrough = "off: the kernel has not said yet what it offers"
        self._negotiated = False
        self.ended = False
        self._writes_past_cache = False
        self._names = {opcode: name for name, opcodes in OPCODES.items() for opcode in opcodes}
        shown = (verbs.presentation.uid, verbs.presentation.gid, verbs.presentation.umask)
        native.prepare(
            self._handlers(),
            self._suspended,
            self._failed,
            Inode,
            verbs.fs.inodes.in_memory,
            verbs.tree.unlinked,
            verbs.fs.nodes.derived,
            tuple(-1 if value is None else value for value in shown),
            scheduler.wake_fd,
            scheduler.runnable,
            kernel.depth,
        )

    def _failed(self, error: Exception, opcode: int, answered: bool) -> int:
        """The errno for an exception that is no OSError, or EBADF, or that comes after the answer."""
        number = unexpected(error, self._names[opcode])
        if answered:
            self._verbs.group.stop(OSError(number, "what was answered could not be written"))
        return number

    def _handlers(self) -> dict[int, Callable[..., Any]]:
        handlers: dict[str, Callable[..., Any]] = {
            name: getattr(self._verbs, name) for name in OPCODES if hasattr(self._verbs, name)
        }
        handlers |= {
            "lookup": self._lookup,
            "readdir": self._readdir,
            "readdirplus": self._readdirplus,
            "forget": self._forget,
            "getattr": self._getattr,
            "getxattr": self._getxattr,
            "setattr": self._setattr,
            "open": self._open,
            "create": self._create,
            "tmpfile": self._tmpfile,
            "statfs": self._statfs,
            "write": self._write,
        }
        return {opcode: handlers[name] for name, opcodes in OPCODES.items() for opcode in opcodes}

    @property
    def refused(self) -> str:
        """Why libfuse has not given the session away, once it is mounted; "" when it has."""
        installed = self._native.status()["installed"]
        return "" if installed else "pyfuse3 does not call libfuse through it"

    # Waiting for requests: what pyfuse3's session loop calls (loop.py)

    def requests(self) -> int:
        """How many have come so far."""
        count: int = self._native.requests()
        return count

    async def wait_readable(self, fd: int) -> None:
        """Serve requests until one comes that is left to libfuse, or the session has ended.

        It sleeps in `serve` for a moment, since a program that works file by file sends its next request some
        microseconds after the last reply, and only when nothing else could run; else in trio.
        """
        native, scheduler = self._native, self._scheduler
        turns = 0
        while not self.ended:
            patience = 0 if scheduler.others_wait else PATIENCE_MS
            scheduler.direct = True
            try:
                state = native.serve(patience, BURST)
            finally:
                scheduler.direct = False
                scheduler.catch_up()  # whatever the state: `serve` may have read wake_fd with any of them
            if not self._negotiated:
                self._negotiate()
            if state in (native.PENDING, native.ENDED):
                return
            turns += 1
            if state == native.IDLE:
                turns = 0
                await trio.lowlevel.wait_readable(fd)
            elif state == native.BURST or turns >= BURST:
                turns = 0
                await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError  # as pyfuse3.terminate, of which a loop that is busy does not hear

    def _negotiate(self) -> None:
        """Find out, once INIT has come, whether backing files can be registered."""
        status = self._native.status()
        if not status["negotiated"]:
            return
        self._negotiated = True
        self._writes_past_cache = status["minor"] >= COHERENT_MINOR
        if not status["passthrough"]:
            self.passthrough = "off: this kernel has none (Linux 6.9 and later do)"
            return
        try:
            fd = self._verbs.fs.store.directory.open(CONFIG)
            try:
                self._native.backing_close(self._native.backing_open(fd))
            finally:
                os.close(fd)
        except OSError as error:
            hint = ": the daemon has no CAP_SYS_ADMIN" if error.errno == errno.EPERM else ""
            self.passthrough = f"off: {error.strerror}{hint}"
            return
        self.passthrough = "on"
        self._kernel.backings = self._native

    # Handlers that wait

    async def run(self, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run pyfuse3's loop, and wait for the requests that it leaves waiting."""
        try:
            await serve()
        finally:
            with trio.CancelScope(shield=True):
                while self._waiting:
                    self._none_waits = trio.Event()
                    await self._none_waits.wait()

    def _suspended(self, verb: Coroutine[Any, Any, object], opcode: int, unique: int, wait: Wait) -> None:
        self._waiting += 1
        self._scheduler.suspend(verb, wait, partial(self._finish, opcode, unique))

    def _finish(self, opcode: int, unique: int, result: Result) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._none_waits.set()
        if isinstance(result, outcome.Error):
            self._native.finish(opcode, unique, None, result.error)
        else:
            self._native.finish(opcode, unique, result.unwrap(), None)

    # Requests whose fields or replies are not those of the verb

    def _lookup(self, parent: int, name: bytes) -> Inode | Coroutine[Any, Any, Inode | None] | None:
        if parent in self._derived and not self._derived[parent].catch_up():
            return self._lookup_later(parent, name, self._native.caller())
        if parent >= SNAPSHOTS:
            return self._verbs.lookup(parent, name)
        if parent >= GENERATED:
            return self._verbs.lookup_generated(parent, name)
        inode = self._verbs.lookup(parent, name)
        if inode is not None and self._verbs.is_beside(inode):
            return self._verbs.unless_made(inode, self._native.caller())
        return inode

    def _readdir(self, ino: int, after: int, limit: int) -> Rows | Coroutine[Any, Any, Rows]:
        if ino in self._derived and not self._derived[ino].catch_up():
            return self._look_later(ino, partial(self._verbs.readdir, ino, after, limit))
        return self._verbs.readdir(ino, after, limit)

    def _readdirplus(self, ino: int, after: int, limit: int) -> Rows | Coroutine[Any, Any, Rows]:
        if ino in self._derived and not self._derived[ino].catch_up():
            return self._look_later(ino, partial(self._verbs.readdirplus, ino, after, limit))
        return self._verbs.readdirplus(ino, after, limit)

    def _getattr(self, ino: int) -> Inode | Coroutine[Any, Any, Inode]:
        if ino in self._derived and not self._derived[ino].catch_up():
            return self._look_later(ino, partial(self._verbs.getattr, ino))
        return self._verbs.getattr(ino)

    async def _lookup_later(self, parent: int, name: bytes, caller: int) -> Inode | None:
        await self._verbs.shown.caught_up(parent)
        inode = self._verbs.lookup(parent, name)
        if inode is not None and self._verbs.is_beside(inode):
            return await self._verbs.unless_made(inode, caller)
        return inode

    async def _look_later(self, directory: int, look: Callable[[], Looked]) -> Looked:
        await self._verbs.shown.caught_up(directory)
        return look()

    def _setattr(
        self,
        ino: int,
        valid: int,
        fh: int,
        size: int,
        atime: int,
        mtime: int,
        mode: int,
        uid: int,
        gid: int,
        caller: int,
    ) -> Coroutine[Any, Any, Inode]:
        changes = Changes()
        if valid & SIZE:
            self._revoke(ino)
        if valid & MODE:
            changes.mode = mode
        if valid & UID:
            changes.uid = uid
        if valid & GID:
            changes.gid = gid
        if valid & SIZE:
            changes.size = size
        if valid & ATIME:
            changes.atime = time.time_ns() if valid & ATIME_NOW else atime
        if valid & MTIME:
            changes.mtime = time.time_ns() if valid & MTIME_NOW else mtime
        return self._verbs.setattr(ino, changes, fh if valid & FH else None, caller)

    async def _open(self, ino: int, flags: int, uid: int) -> tuple[int, int, int]:
        self._revoke(ino)
        return self._opened(await self._verbs.open(ino, flags, uid), flags)

    async def _getxattr(self, ino: int, name: bytes, size: int) -> bytes:
        """The value, or its size (struct fuse_getxattr_out) when that is all that is asked for."""
        value = await self._verbs.getxattr(ino, name)
        if not size:
            return _SIZE_OUT.pack(len(value), 0)
        if len(value) > size:
            raise FsError(errno.ERANGE)
        return value

    def _statfs(self, ino: int, uid: int) -> bytes:
        return self._verbs.statfs(ino, uid).packed()

    def _forget(self, inos: list[int]) -> Coroutine[Any, Any, None]:
        for ino in inos:
            self._revoke(ino)
        return self._verbs.forget(inos)

    async def _create(
        self, parent: int, name: bytes | None, mode: int, umask: int, flags: int, uid: int, gid: int
    ) -> tuple[Inode, int, int, int]:
        reply = None

        def opened(handle: Handle) -> None:
            nonlocal reply
            reply = handle.inode, *self._opened(handle, flags)
            self._kernel.answer(reply)

        await self._verbs.create(parent, name, mode, umask, flags, uid, gid, opened)
        assert reply is not None
        return reply

    def _tmpfile(
        self, parent: int, mode: int, umask: int, flags: int, uid: int, gid: int
    ) -> Coroutine[Any, Any, tuple[Inode, int, int, int]]:
        return self._create(parent, None, mode, umask, flags, uid, gid)

    def _leased(self, handle: Handle, how: int) -> int:
        """The number of a handle that the accelerator may give to others who only read; 0 when it may not.

        While it is leased the file's content counts as open: whoever is going to write to the file, or to
        remove it for good, revokes the lease first.
        """
        content = handle.content
        if content.writers or content.is_staged or not handle.inode.nlink:
            return 0
        if len(self._leases) >= LEASES:
            self._revoke(next(iter(self._leases)))
        until = 0
        if self._access_times is not None:
            until = self._access_times.due_at(handle.inode, time.time_ns()) // SECOND_NS
        fh = int(self._native.lease(handle.inode.ino, how, until))
        if fh:
            self._verbs.handles[fh] = handle
            self._leases[handle.inode.ino] = fh
        return fh

    def _revoke(self, ino: int) -> None:
        fh = self._leases.pop(ino, 0)
        if fh and not self._native.revoke(fh):
            verb = self._verbs.release(fh)
            wait = self._scheduler.start(verb)
            if wait is not None:
                self._suspended(verb, RELEASE, 0, wait)

    def revoke_leases(self, inos: Iterable[int]) -> None:
        """Do not open these files from leases any more."""
        for ino in inos:
            self._revoke(ino)

    def revoke_range(self, low: int, high: int) -> None:
        """As `revoke_leases`, for the files with numbers in a range."""
        self.revoke_leases([ino for ino in self._leases if low <= ino < high])

    def rules_changed(self) -> None:
        """Times of access may be kept from now on: then each open has to come here once a day."""
        access_times = self._verbs.access_times
        if access_times is not self._access_times:
            self._access_times = access_times
            self.revoke_leases(list(self._leases))

    @property
    def idle_handles(self) -> int:
        """Handles that are only kept for the next open(2)."""
        return int(self._native.idle_leases())

    def _opened(self, handle: Handle, flags: int) -> tuple[int, int, int]:
        """Handle, FOPEN_* flags and backing id of a new open file.

        Who only writes goes past the page cache: one copy less, and no question for the file's capabilities.
        """
        how = 0 if handle.writable else NOFLUSH
        if handle.direct:
            return self._verbs.opened(handle), how | DIRECT_IO, 0
        if handle.passthrough:
            how |= PASSTHROUGH | (DIRECT_IO if handle.writable else 0)
            handle.direct = handle.writable
            return self._verbs.opened(handle), how, handle.content.backing
        if flags & os.O_ACCMODE == os.O_WRONLY and self._writes_past_cache:
            how |= DIRECT_IO
            handle.direct = True
        stale = self._verbs.passthrough.stale_pages
        if handle.inode.ino in stale:
            stale.discard(handle.inode.ino)
            return self._verbs.opened(handle), how, 0
        how |= KEEP_CACHE
        fh = 0 if handle.writable else self._leased(handle, how)
        return fh or self._verbs.opened(handle), how, 0

    def _write(
        self, fh: int, offset: int, data: bytes, write_flags: int, flags: int
    ) -> Coroutine[Any, Any, int]:
        write = self._verbs.write_synced if flags & os.O_DSYNC else self._verbs.write
        return write(fh, offset, data, write_flags & KILL_SUIDGID != 0)
