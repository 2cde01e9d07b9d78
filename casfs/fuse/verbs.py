"""The requests of one mount, free of any protocol: numbers and bytes in; inodes, handles and bytes out.

Two adapters call them: pyfuse3's operations (operations.py) and the native accelerator (accelerated.py).
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from casfs.errors import FsError
from casfs.fs.attributes import Changes
from casfs.fs.content.content import Handle
from casfs.fs.filesystem import FileSystem
from casfs.fs.inodes import Inode
from casfs.fs.nodes import GENERATED, SNAPSHOTS
from casfs.fs.policy import AccessTimes
from casfs.fs.scheduler import Mutex
from casfs.fs.xattrs import DIGEST, DIGESTS
from casfs.fuse.callers import makes_exclusively
from casfs.fuse.options import ACLS, AS_IT_IS, Presentation
from casfs.fuse.room import Room, room_of
from casfs.fuse.shown import Caches, NoCaches, ShownNames, access_seen_in_trees, seen_in_trees

P = ParamSpec("P")
R = TypeVar("R")
Opened = Callable[[Handle], object] | None
Verb = Callable[Concatenate["Verbs", P], Coroutine[Any, Any, R]]

PATIENCE_SECONDS = 10.0
"""So long what was refused is tried again."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the disk, and a quota on it, say when there is no room."""


def patient(method: Verb[P, R]) -> Verb[P, R]:
    """For what takes room: refused for want of it, it is tried again when room could be made, for some time:
    others may be faster to take it.

    Each such method is refused before it has changed anything, or does the same when it is done twice. An
    FsError ENOSPC is a limit of another kind (xattrs).
    """

    async def verb(self: Verbs, *args: P.args, **kwargs: P.kwargs) -> R:
        deadline = 0.0
        while True:
            try:
                return await method(self, *args, **kwargs)
            except OSError as error:
                if error.errno not in NO_ROOM or isinstance(error, FsError):
                    raise
                now = self.fs.scheduler.now()
                deadline = deadline or now + PATIENCE_SECONDS
                if now > deadline or not await self._relieve():
                    raise

    return functools.wraps(method)(verb)  # type: ignore[return-value]


def mutating(method: Verb[P, R]) -> Verb[P, R]:
    """For what changes the namespace: waits for the commit where that is asked for. Goes around `patient`:
    what could not be committed is done already."""

    async def waiting(self: Verbs, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.group.must_wait:
            await self.group.catch_up()
        result = await method(self, *args, **kwargs)
        if self.durable_each:
            await self.sync()
        return result

    def verb(self: Verbs, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """No coroutine around the method's own while there is nothing to wait for."""
        how = waiting if self.durable_each or self.group.must_wait else method
        return how(self, *args, **kwargs)

    return functools.wraps(method)(verb)  # type: ignore[return-value]


class Verbs:
    """Runs on the event loop's thread. Each raises OSError with the errno the program gets.

    `relieve` makes room on a full disk, if it can: what was refused for want of it may be tried again when it
    says True. `caches`: of the kernel. `presentation`: how files are shown, by which the kernel decides who
    may do what. `free_step`, `read_only` as in MountOptions.
    `_writing_back`: one at a time has mappings written back, since the writes that it waits for may need
    threads themselves.
    """

    def __init__(
        self,
        fs: FileSystem,
        *,
        durable_each: bool,
        relieve: Callable[[], Awaitable[bool]],
        caches: Caches | None = None,
        presentation: Presentation = AS_IT_IS,
        free_step: int = 0,
        read_only: bool = False,
    ) -> None:
        self.fs = fs
        self.presentation = presentation
        self._free_step = free_step
        self._read_only = read_only
        self._relieve = relieve
        self.shown = ShownNames(fs, caches or NoCaches())
        self.tree = fs.tree
        self.files = fs.files
        self.ranges = fs.contents.ranges
        self.passthrough = fs.contents.passthrough
        self.group = fs.group
        self.inode = fs.inodes.get
        self.readdir = fs.listing.names
        self.readdirplus = fs.listing.rows
        self.durable_each = durable_each
        self._writing_back = Mutex(fs.scheduler)
        self.handles: dict[int, Handle] = {}
        fs.contents.settling.seals_at_close = durable_each
        self._next_handle = 1

    # Names

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        inode = self.tree.lookup(parent, name)
        if inode is None and self.fs.nodes.may_appear(parent, name):
            raise FsError(errno.ENOENT)  # which the kernel does not remember
        return inode

    def is_beside(self, inode: Inode | None) -> bool:
        """Was an inode looked up that has its name beside dentries (Nodes.beside)?"""
        return self.fs.nodes.beside is not None and inode is not None and GENERATED <= inode.ino < SNAPSHOTS

    async def unless_made(self, inode: Inode, caller: int) -> Inode:
        """`is_beside`, for the thread `caller`: it is not there for who is going to make that name himself.
        Raises FsError ENOENT."""
        if await self.fs.scheduler.run(makes_exclusively, caller):
            raise FsError(errno.ENOENT)
        return inode

    async def lookup_generated(self, parent: int, name: bytes) -> Inode | None:
        """As `lookup`, in a directory that no row has: what was closed can be found by its digest."""
        inode = self.tree.lookup(parent, name)
        if inode is None and parent < SNAPSHOTS:
            await self.fs.by_digest.settled()
        return self.lookup(parent, name) if inode is None else inode

    def getattr(self, ino: int) -> Inode:
        if ino in self.fs.nodes.derived:
            self.fs.remembered.learned(ino)
        return self.inode(ino)

    async def caught_up(self, directory: int) -> None:
        """Have the names of a directory follow from those that they are derived from. Raises OSError."""
        derived = self.fs.nodes.derived.get(directory)
        if derived is not None and not derived.catch_up():
            await derived.caught_up()

    @seen_in_trees(0, is_new=True)
    @mutating
    @patient
    async def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, umask: int, uid: int, gid: int
    ) -> Inode:
        mode &= ~self._foreign_group(parent, uid)
        return await self.tree.make(parent, name, mode, uid, gid, rdev=rdev, umask=umask)

    @seen_in_trees(0, is_new=True)
    @mutating
    @patient
    async def mkdir(self, parent: int, name: bytes, mode: int, umask: int, uid: int, gid: int) -> Inode:
        return await self.tree.make(parent, name, stat.S_IFDIR | mode & 0o7777, uid, gid, umask=umask)

    @seen_in_trees(0, is_new=True)
    @mutating
    @patient
    async def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        return await self.tree.make(parent, name, stat.S_IFLNK | 0o777, uid, gid, target=target)

    @seen_in_trees(1, is_new=True)
    @mutating
    @patient
    async def link(self, ino: int, parent: int, name: bytes, uid: int) -> Inode:
        return await self.tree.link(ino, parent, name, uid)

    @seen_in_trees(0)
    @mutating
    async def unlink(self, parent: int, name: bytes, uid: int) -> None:
        try:
            await self.tree.unlink(parent, name, uid)
        except FsError as error:
            beside = self.fs.nodes.beside
            if error.errno != errno.ENOENT or beside is None or not beside.unlinked(parent, name):
                raise

    @seen_in_trees(0)
    @mutating
    async def rmdir(self, parent: int, name: bytes, uid: int) -> None:
        await self.tree.rmdir(parent, name, uid)

    @seen_in_trees(0, 2)
    @mutating
    @patient
    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, uid: int, gid: int
    ) -> None:
        await self.tree.rename(parent, name, new_parent, new_name, flags, uid, gid)

    def readlink(self, ino: int) -> bytes:
        target = self.inode(ino).target
        if target is None:
            raise FsError(errno.EINVAL)
        return target

    async def forget(self, inos: list[int]) -> None:
        """The kernel holds these inodes no more: those without a name go."""
        await self.tree.forget(inos)

    # Attributes

    @access_seen_in_trees
    @mutating
    @patient
    async def setattr(self, ino: int, changes: Changes, fh: int | None, uid: int) -> Inode:
        handle = None if fh is None else self.handles.get(fh)
        if ino >= GENERATED:
            ino = self.fs.nodes.stored(ino) if handle is None else handle.inode.ino
            if ino >= GENERATED and changes.size is None and self.fs.nodes.opener(ino) is not None:
                return self.inode(ino)  # it is as the file that it is about
        if self._is_below_tree(ino):
            changes.mode = changes.uid = changes.gid = None  # it is shown as the tree's own directory
        if changes.mode is not None and uid:
            inode = self.inode(ino)
            if not inode.is_directory:
                changes.mode &= ~self.presentation.foreign_bits(inode.uid, inode.gid)
        if changes.mtime is not None and changes.size is None:
            inode = self.inode(ino)
            if inode.content is not None:
                await self._see_mappings(inode)  # their being written back later would move the time
        return await self.fs.attributes.set(ino, changes, handle, uid)

    def _is_below_tree(self, ino: int) -> bool:
        """Is it a directory of a tree, but not the tree's own one? Raises FsError EROFS for one that must not
        be changed."""
        derived = self.fs.nodes.derived.get(ino)
        if derived is None or derived.parent_of(ino) is None:
            return False
        derived.check_attributes(ino)
        return True

    def _foreign_group(self, parent: int, uid: int) -> int:
        """S_ISGID if a file that `uid` makes in that directory must not have it: it gets the directory's
        group, which is shown as another."""
        if not uid or self.presentation.gid is None:
            return 0
        directory = self.inode(parent)
        return directory.mode & self.presentation.foreign_bits(uid, directory.gid) & stat.S_ISGID

    def statfs(self, ino: int | None, uid: int) -> Room:
        """Of the repository in which that lies; None: of the store."""
        inode = None if ino is None else self.inode(ino)
        return room_of(self.fs, inode, 0 if uid in (0, os.getuid()) else self._free_step)

    # Extended attributes

    def listxattr(self, ino: int) -> list[bytes]:
        names = self.fs.xattrs.list(ino)
        return names if self.presentation.has_lists else [name for name in names if name not in ACLS]

    def _check_shown(self, name: bytes) -> None:
        """Raises FsError EOPNOTSUPP for an access list where there are none."""
        if name in ACLS and not self.presentation.has_lists:
            raise FsError(errno.EOPNOTSUPP)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        self._check_shown(name)
        if ino >= GENERATED:
            ino = self.fs.nodes.stored(ino)
        if name == DIGEST or name in DIGESTS:
            await self.fs.contents.settling.seal_closed(self.inode(ino))
        if name in DIGESTS:
            value = await self.fs.contents.digesting.value(self.inode(ino), DIGESTS[name])
            if value is None:
                raise FsError(errno.ENODATA)
            return value.hex().encode()
        return self.fs.xattrs.get(ino, name)

    @access_seen_in_trees
    @mutating
    @patient
    async def setxattr(self, ino: int, name: bytes, value: bytes, in_group: Callable[[int], bool]) -> None:
        self._check_shown(name)
        if ino >= GENERATED:
            ino = self.fs.nodes.stored(ino)
        if self._is_below_tree(ino) and name in ACLS:
            return  # as its mode
        await self.fs.xattrs.set(ino, name, value, in_group)

    @access_seen_in_trees
    @mutating
    async def removexattr(self, ino: int, name: bytes) -> None:
        self._check_shown(name)
        self._is_below_tree(ino)
        await self.fs.xattrs.remove(ino, name)

    # Files

    def opened(self, handle: Handle) -> int:
        """The number of a new handle."""
        fh = self._next_handle
        self._next_handle = fh + 1
        self.handles[fh] = handle
        return fh

    @property
    def access_times(self) -> AccessTimes | None:
        """As `Policy.access_times`."""
        return None if self._read_only else self.fs.policy.access_times

    @patient
    async def open(self, ino: int, flags: int, uid: int) -> Handle:
        """A handle; its `passthrough` says that it has to be opened with `content.backing`."""
        opener = self.fs.nodes.opener(ino) if ino >= GENERATED else None
        if opener is not None:
            return await opener(ino, flags, uid)
        handle = self.files.open(self.inode(ino), flags & os.O_ACCMODE != os.O_RDONLY, uid)
        handle.syncs = bool(flags & os.O_DSYNC)
        try:
            access_times = self.access_times
            if access_times is not None and not flags & os.O_NOATIME:
                now_ns = time.time_ns()
                if access_times.due(handle.inode, now_ns):
                    await self.fs.attributes.accessed(handle.inode, now_ns)
            if flags & os.O_TRUNC:  # first: what was emptied has no backing file
                await self.files.truncate_at_open(handle)
            await self.passthrough.join(handle)
            if ino >= SNAPSHOTS:
                self.fs.snapshots.opened(handle)
            elif ino >= GENERATED:
                await self.fs.by_digest.opened(handle)
            if flags & os.O_ACCMODE == os.O_RDWR:
                self.files.may_map(handle)
        except BaseException:
            await self.files.release(handle)
            raise
        return handle

    @seen_in_trees(0, is_new=True)
    def create(
        self,
        parent: int,
        name: bytes | None,
        mode: int,
        umask: int,
        flags: int,
        uid: int,
        gid: int,
        opened: Opened = None,
    ) -> Coroutine[Any, Any, Handle]:
        """A handle, with which `opened` is called as soon as it is certain (Kernel.answer). The file has no
        name when that is None: O_TMPFILE."""
        if self.durable_each or self.group.must_wait:
            create = functools.partial(self._create, parent, name, mode, umask, flags, uid, gid)
            return self._create_waiting(create, opened)
        return self._create(parent, name, mode, umask, flags, uid, gid, opened)

    async def _create_waiting(
        self, create: Callable[[Opened], Coroutine[Any, Any, Handle]], opened: Opened
    ) -> Handle:
        if self.group.must_wait:
            await self.group.catch_up()
        if not self.durable_each:
            return await create(opened)
        handle = await create(None)
        try:
            await self.sync()
        except BaseException:  # nobody will release, or forget, what nobody was given
            await self.files.release(handle)
            if not handle.inode.nlink:
                await self.tree.forget([handle.inode.ino])
            raise
        if opened is not None:
            opened(handle)
        return handle

    @patient
    async def _create(
        self,
        parent: int,
        name: bytes | None,
        mode: int,
        umask: int,
        flags: int,
        uid: int,
        gid: int,
        opened: Opened,
    ) -> Handle:
        handles = []

        def made(inode: Inode) -> None:
            handles.append(self.files.open(inode, flags & os.O_ACCMODE != os.O_RDONLY, uid))
            handles[0].syncs = bool(flags & os.O_DSYNC)
            if flags & os.O_ACCMODE == os.O_RDWR:
                self.files.may_map(handles[0])
            if self.fs.policy.claims is not None and name is not None:
                handles[0].wrote = self.fs.policy.claims.made(inode, parent, name)
            if opened is not None:
                opened(handles[0])

        mode = stat.S_IFREG | mode & 0o7777 & ~self._foreign_group(parent, uid)
        try:
            await self.tree.make(parent, name, mode, uid, gid, umask=umask, made=made)
        except BaseException:
            if opened is None and handles:  # else the kernel has it, and the group has failed
                await self.files.release(handles[0])
            raise
        return handles[0]

    def read(self, fh: int, offset: int, size: int) -> Coroutine[Any, Any, bytes | bytearray]:
        return self.files.read(self.handles[fh], offset, size)

    @patient
    def write(self, fh: int, offset: int, data: bytes, kills: bool) -> Coroutine[Any, Any, int]:
        """`kills`: set-id bits go (`Files.write`)."""
        return self.files.write(self.handles[fh], offset, data, kills)

    @patient
    async def write_synced(self, fh: int, offset: int, data: bytes, kills: bool) -> int:
        """As `write`, with O_SYNC, O_DSYNC or their like: durable, where the kernel does not ask for that by
        an FSYNC (generic_write_sync, which fuse_direct_write_iter of fs/fuse/file.c does not call)."""
        handle = self.handles[fh]
        written = await self.files.write(handle, offset, data, kills)
        if handle.direct:
            await self.files.fsync(handle)
        return written

    @patient
    async def flush(self, fh: int) -> None:
        handle = self.handles[fh]
        if handle.wrote:
            await self.files.flush(handle)
            claims = self.fs.policy.claims
            if claims is not None and claims.concern(handle.inode):
                await claims.closed(handle.inode)
            if self.durable_each:
                await self.group.durable()

    async def release(self, fh: int) -> None:
        handle = self.handles.pop(fh)
        await self.files.release(handle)
        claims = self.fs.policy.claims
        if claims is not None and handle.writable and claims.concern(handle.inode):
            await claims.released(handle.inode)
        if not handle.inode.nlink:
            await self.tree.released(handle.inode)

    @patient
    def fsync(self, fh: int) -> Coroutine[Any, Any, None]:
        return self.files.fsync(self.handles[fh])

    @patient
    def sync(self) -> Coroutine[Any, Any, None]:
        """fsync(2) of a directory: all that was done until now."""
        return self.group.durable()

    # Ranges

    @mutating
    @patient
    async def copy_range(
        self, source: int, offset: int, target: int, target_offset: int, length: int, uid: int
    ) -> int:
        origin, to = self.handles[source], self.handles[target]
        copied = await self.ranges.copy_range(origin, offset, to, target_offset, length, uid)
        if to.syncs:
            await self.files.fsync(to)
        return copied

    async def seek(self, fh: int, offset: int, whence: int) -> int:
        handle = self.handles[fh]
        await self._see_mappings(handle.inode)  # which may have filled a hole
        return await self.ranges.seek(handle, offset, whence)

    async def _see_mappings(self, inode: Inode) -> None:
        """Have what was stored through mappings come in, if it may have been."""
        if inode.content is not None and inode.content.mappers:
            async with self._writing_back:
                await self.fs.scheduler.run(self.fs.kernel.write_back, inode.ino)

    @patient
    async def allocate(self, fh: int, offset: int, length: int, mode: int, uid: int) -> None:
        handle = self.handles[fh]
        await self.ranges.allocate(handle, offset, length, mode, uid)
        if handle.syncs:
            await self.files.fsync(handle)
