"""pyfuse3's operations: each a translation of a request to one verb and of its result to the reply."""

from __future__ import annotations

import errno
import functools
import logging
import stat
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from casfs.fs.attributes import Changes
from casfs.fs.content.content import Handle
from casfs.fs.content.files import CAPABILITY
from casfs.fs.inodes import Inode
from casfs.fs.nodes import GENERATED, is_shown_by_snapshot, seconds
from casfs.fuse.callers import CALLER, groups_of
from casfs.fuse.options import AS_IT_IS
from casfs.fuse.room import NAME_LIMIT
from casfs.fuse.verbs import Verbs
from casfs.namespace.connection import DatabaseError, database_errno

log = logging.getLogger(__name__)

FOREVER = 365 * 86400.0
"""Seconds the kernel may keep names and attributes: only this daemon changes them, and it tells."""

BLOCK_SIZE = 128 << 10
"""st_blksize: what programs should read and write at a time."""

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, R]]


def translated(method: Handler[P, R]) -> Handler[P, R]:
    """Errors of the verbs as FUSE replies; what nobody expected is logged and becomes EIO."""

    async def handler(self: Operations, *args: P.args, **kwargs: P.kwargs) -> R:
        if (self._derived or self._nodes.beside is not None) and args:
            CALLER.set(getattr(args[-1], "pid", 0))  # of the context, where there is one
        try:
            return await method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            if error.errno == errno.EBADF:  # no program's: verbs are given handles
                raise pyfuse3.FUSEError(unexpected(error, method.__name__)) from None
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        except Exception as error:
            raise pyfuse3.FUSEError(unexpected(error, method.__name__)) from None

    return functools.wraps(method)(handler)  # type: ignore[return-value]


def unexpected(error: BaseException, operation: str) -> int:
    """Log an error that no verb raises on purpose; gives the errno the program gets."""
    if isinstance(error, DatabaseError):
        log.error("%s failed: %s", operation, error.strerror)
        return error.errno or errno.EIO
    log.error("%s failed", operation, exc_info=error)
    return database_errno(error) or errno.EIO


class Operations(pyfuse3.Operations):
    """The requests of one mount that come through pyfuse3. Runs on the event loop's thread."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, verbs: Verbs) -> None:
        super().__init__()
        presentation = verbs.presentation
        self.enable_acl = presentation.has_lists
        self._verbs = verbs
        self._fs = verbs.fs
        self._tree = verbs.tree
        self._listing = verbs.fs.listing
        self._get = verbs.inode
        self._nodes = verbs.fs.nodes
        self._derived = verbs.fs.nodes.derived
        self._present = presentation
        self._presents = presentation != AS_IT_IS
        self._entry = self._new_entry()
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = pyfuse3.InodeT(0)
        self._absent.entry_timeout = FOREVER

    @staticmethod
    def _new_entry() -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.attr_timeout = entry.entry_timeout = FOREVER
        return entry

    def _reply(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """Attributes of an inode, in the one object pyfuse3 copies before anything else can run."""
        entry = self._new_entry() if self._verbs.durable_each else self._entry
        mode = inode.mode
        entry.st_ino = inode.ino
        entry.st_mode = mode
        entry.st_nlink = inode.nlink
        entry.st_uid = inode.uid
        entry.st_gid = inode.gid
        entry.st_rdev = inode.rdev
        content, lasting = inode.content, True
        if stat.S_ISDIR(mode):
            entry.st_size, entry.st_blocks = 4096, 0
        elif content is None:
            entry.st_size, entry.st_blocks = inode.size, inode.allocated >> 9
        else:
            allocated, lasting = content.observe()
            entry.st_size, entry.st_blocks = inode.size, allocated >> 9
        generated = inode.ino >= GENERATED
        if generated:
            entry.entry_timeout, entry.attr_timeout = seconds(inode.ino, FOREVER)
        else:
            entry.entry_timeout, entry.attr_timeout = FOREVER, FOREVER if lasting else 0.0
        entry.st_blksize = BLOCK_SIZE
        entry.st_atime_ns = inode.atime
        entry.st_mtime_ns = inode.mtime
        entry.st_ctime_ns = inode.ctime
        if self._presents and (not generated or self._is_like_stored(inode.ino)):
            self._present.apply(entry)
        return entry

    def _is_like_stored(self, ino: int) -> bool:
        """Is a generated inode shown as files are?"""
        return is_shown_by_snapshot(ino) or self._nodes.opener(ino) is not None

    # Names

    @translated
    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if parent in self._derived:
            await self._verbs.shown.caught_up(parent)
        if parent >= GENERATED:
            found = await self._verbs.lookup_generated(parent, name)
            return self._absent if found is None else self._reply(found)
        inode = self._verbs.lookup(parent, name)
        if inode is not None and self._verbs.is_beside(inode):
            inode = await self._verbs.unless_made(inode, ctx.pid)
        return self._absent if inode is None else self._reply(inode)

    @translated
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._reply(await self._verbs.mknod(parent, name, mode, rdev, 0, ctx.uid, ctx.gid))

    @translated
    async def mkdir(
        self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._reply(await self._verbs.mkdir(parent, name, mode, 0, ctx.uid, ctx.gid))

    @translated
    async def symlink(
        self, parent: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._reply(await self._verbs.symlink(parent, name, target, ctx.uid, ctx.gid))

    @translated
    async def link(
        self, ino: int, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._reply(await self._verbs.link(ino, parent, name, ctx.uid))

    @translated
    async def unlink(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._verbs.unlink(parent, name, ctx.uid)

    @translated
    async def rmdir(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._verbs.rmdir(parent, name, ctx.uid)

    @translated
    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        await self._verbs.rename(parent, name, new_parent, new_name, flags, ctx.uid, ctx.gid)

    @translated
    async def readlink(self, ino: int, ctx: pyfuse3.RequestContext) -> bytes:
        return self._verbs.readlink(ino)

    async def forget(self, inode_list: list[tuple[int, int]]) -> None:  # type: ignore[override]
        """No reply goes back, and no error may end the loop."""
        unlinked = self._tree.unlinked
        if not unlinked:
            return
        inos = [ino for ino, _ in inode_list if ino in unlinked]
        if inos:
            try:
                await self._verbs.forget(inos)
            except Exception as error:
                log.error("unlinked inodes are kept until the next mount: %s", error)

    # Attributes

    @translated
    async def getattr(self, ino: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if ino in self._derived:
            await self._verbs.shown.caught_up(ino)
        return self._reply(self._verbs.getattr(ino))

    @translated
    async def setattr(
        self,
        ino: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime=attr.st_atime_ns if fields.update_atime else None,
            mtime=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._reply(await self._verbs.setattr(ino, changes, fh, ctx.uid))

    @translated
    async def access(self, ino: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True

    @translated
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Of the whole store: pyfuse3 does not say which file the question is about."""
        room = self._verbs.statfs(None, ctx.uid)
        data = pyfuse3.StatvfsData()
        for field, value in room._asdict().items():
            setattr(data, f"f_{field}", value)
        data.f_namemax = NAME_LIMIT
        return data

    # Extended attributes

    @translated
    async def getxattr(self, ino: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name == CAPABILITY and name not in self._fs.xattrs.all(self._get(ino)):
            raise pyfuse3.FUSEError(errno.ENODATA)
        return await self._verbs.getxattr(ino, name)

    @translated
    async def listxattr(self, ino: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        names = self._verbs.listxattr(ino)
        return names if ctx.uid == 0 else [name for name in names if not name.startswith(b"trusted.")]

    @translated
    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        def in_group(gid: int) -> bool:
            return ctx.uid == 0 or gid == ctx.gid or gid in groups_of(ctx.pid, ctx.uid)

        await self._verbs.setxattr(ino, name, value, in_group)

    @translated
    async def removexattr(self, ino: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._verbs.removexattr(ino, name)

    # Files

    def _opened(self, handle: Handle) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(
            fh=pyfuse3.FileHandleT(self._verbs.opened(handle)),
            keep_cache=not handle.direct,
            direct_io=handle.direct,
        )

    @translated
    async def open(self, ino: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return self._opened(await self._verbs.open(ino, flags, ctx.uid))

    @translated
    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        handle = await self._verbs.create(parent, name, mode, 0, flags, ctx.uid, ctx.gid)
        return self._opened(handle), self._reply(handle.inode)

    @translated
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._verbs.read(fh, off, size)  # type: ignore[return-value]

    @translated
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self._verbs.write(fh, off, buf, True)  # pyfuse3 does not say who writes

    @translated
    async def flush(self, fh: int) -> None:
        await self._verbs.flush(fh)

    @translated
    async def release(self, fh: int) -> None:
        await self._verbs.release(fh)

    @translated
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._verbs.fsync(fh)

    # Directories: a handle is the inode number, so that nothing has to be remembered

    @translated
    async def opendir(self, ino: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(ino)

    @translated
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if fh in self._derived:
            await self._verbs.shown.caught_up(fh)
        reply = pyfuse3.readdir_reply
        for cookie, name, inode in self._listing.list(fh, start_id):
            if not reply(token, pyfuse3.FileNameT(name), self._reply(inode), cookie):
                break

    @translated
    async def releasedir(self, fh: int) -> None:
        return None

    @translated
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._verbs.sync()
