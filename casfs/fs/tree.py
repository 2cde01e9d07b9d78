"""Names: lookup, making, linking, removing, renaming, listing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from casfs.errors import FsError
from casfs.fs.commit import GroupCommit
from casfs.fs.files import Files
from casfs.fs.inodes import Inode, InodeTable
from casfs.fs.listing import NAME_LIMIT, Listing
from casfs.fs.trash import CASFS, Reason, Trash
from casfs.fs.xattrs import ExtendedAttributes
from casfs.store import Store
from casfs.types import ROOT_INO

TARGET_LIMIT = 4095
LINK_LIMIT = (1 << 31) - 1

ABSENT_LIMIT = 1000
"""Names that are remembered for not being there."""

ROW_BYTES = 1024
"""What one more name may take on disk, rows and indexes, roughly and rather more."""

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

WHITEOUT_MODE = stat.S_IFCHR
"""What RENAME_WHITEOUT leaves: a character device 0:0 without permissions, as ext4 does it. To an overlayfs
whose upper layer has it the name is removed (Documentation/filesystems/overlayfs.rst)."""


class Tree(Listing):
    """The namespace verbs. Owned by the thread that runs the file system.

    `answer` is called with a verb's result (None where it has none) as soon as nothing can refuse it any
    more: who waits may go on while the rows are written. When that fails the group has failed, as if at its
    COMMIT.
    `unlinked`: inodes without a name that the kernel still knows; `_linkable`: those of them that never had
    one, and may get one. `_absent`: names looked up in vain that were not given since.
    """

    def __init__(
        self,
        store: Store,
        inodes: InodeTable,
        group: GroupCommit,
        files: Files,
        xattrs: ExtendedAttributes,
        trash: Trash,
    ) -> None:
        super().__init__(store, inodes, trash)
        self._filestore = store.filestore
        self._namespace = store.namespace
        self._group = group
        self._files = files
        self._xattrs = xattrs
        self.answer: Callable[[object], object] = lambda _: None
        self.unlinked: set[int] = set()
        self._linkable: set[int] = set()
        self._absent: set[tuple[int, bytes]] = set()
        self._forgotten: set[int] = set()

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        """The inode under a name, or None. Raises FsError ENAMETOOLONG, ESTALE."""
        try:
            ino = self._dentries.find(parent, name)
        except OverflowError:  # a number of 2^63 or more, which open_by_handle_at(2) lets anybody ask for
            raise FsError(errno.ESTALE) from None
        if ino is not None:
            if parent in self._in_trash:
                self._in_trash.add(ino)
            return self._inodes.get(ino)
        if name == b"." or name == b"..":
            return self._dot(parent, name)
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        if parent in self._in_trash:
            return None
        if len(self._absent) >= ABSENT_LIMIT:
            self._absent.clear()
        self._absent.add((parent, name))
        return None

    def may_appear(self, parent: int, name: bytes) -> bool:
        """May a name that is not there come without a request for it? Others do not."""
        return parent in self._in_trash or (parent == ROOT_INO and name == CASFS)

    # Making

    async def make(
        self,
        parent: int,
        name: bytes | None,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
        umask: int = 0,
        made: Callable[[Inode], object] | None = None,
    ) -> Inode:
        """A new inode of any type under a new name. A default list of the directory goes before `umask`.

        With None for a name it is a file that has none, O_TMPFILE of open(2): it goes with its last handle,
        or in a crash, unless `link` gives it one. `made` is called instead of `answer`, and always.

        Raises FsError EEXIST, ENAMETOOLONG, ENOENT (the directory was removed), EINVAL, ENOSPC.
        """
        group = self._group
        if not group.active:
            await group.begin()
        directory = self._directory(parent, b"unnamed" if name is None else name)
        if target is not None and not 0 < len(target) <= TARGET_LIMIT:
            raise FsError(errno.ENAMETOOLONG if target else errno.ENOENT)
        self._filestore.claim_rows(ROW_BYTES + len(target or b""))
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        requested = mode
        if target is None and self._xattrs.all(directory):
            mode = self._xattrs.inherited_mode(directory, mode, umask)
        else:
            mode &= ~umask
        inode = self._inodes.create(mode, uid, gid, rdev, target)
        if stat.S_ISDIR(mode):
            inode.nlink = 2
        made = made or self.answer
        certain = name is not None and self._takes_absent(parent, name)
        if certain:
            made(inode)
        named = False
        try:
            if name is not None:
                cookie = self._inodes.next_cookie()
                named = self._dentries.insert(parent, cookie, name, inode.ino, mode >> 12)
                if not named:
                    raise FsError(errno.EEXIST)
            if target is None and directory.xattrs:
                self._xattrs.inherit(directory, inode, requested)
        except BaseException:
            if name is not None and named:
                self._dentries.delete(parent, name)
            self._inodes.remove(inode)
            raise
        if stat.S_ISDIR(mode):
            directory.nlink += 1
        if name is None:
            inode.nlink = 0
            self.unlinked.add(inode.ino)
            self._linkable.add(inode.ino)
        else:
            directory.mtime = directory.ctime = inode.ctime
            self._inodes.mark(directory)
        group.count()
        if not certain:
            made(inode)
        return inode

    def _takes_absent(self, parent: int, name: bytes) -> bool:
        """Was a name looked up in vain, and not given since? From now on it is not known to be absent."""
        if (parent, name) not in self._absent:
            return False
        self._absent.discard((parent, name))
        return True

    def _directory(self, ino: int, name: bytes) -> Inode:
        """A directory that may take a new name."""
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise FsError(errno.EINVAL)
        self._trash.check_name(ino, name)
        directory = self._inodes.get(ino)
        if not directory.is_directory:
            raise FsError(errno.ENOTDIR)
        if not directory.nlink:
            raise FsError(errno.ENOENT)
        return directory

    def attach(self, parent: int, name: bytes, inode: Inode) -> None:
        """Give a copied inode its first name. Inside a transaction. Raises FsError as `make`."""
        directory = self._directory(parent, name)
        self._takes_absent(parent, name)
        if not self._dentries.insert(parent, self._inodes.next_cookie(), name, inode.ino, inode.mode >> 12):
            raise FsError(errno.EEXIST)
        directory.nlink += inode.is_directory
        self._inodes.mark(inode)
        self._touch(directory)
        self._group.count()

    def detach(self, inode: Inode, parent: int, name: bytes) -> None:
        """A name of a file now stands for another one. Inside a transaction."""
        self._bring_to_trash(inode, parent, name, os.geteuid(), Reason.REPLACED)
        self._drop_link(inode)
        self._group.count()

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        """link(2). Raises FsError EEXIST, EPERM (a directory), EMLINK, ENOENT (no name is left), and as
        sealing does.

        The first name of a file that has none: its content is durable by then, so that a crash does not
        leave the name of a file that is empty. The kernel refuses it for O_EXCL (I_LINKABLE, fs/namei.c).
        """
        inode = self._inodes.get(ino)
        if ino in self._linkable:
            await self._files.persist_unnamed(inode)
        elif inode.content is not None:
            await self._files.settle_closed(inode)
        await self._files.begin_in_order()
        directory = self._directory(parent, name)
        self._trash.check_unchanged(ino)
        if inode.is_directory:
            raise FsError(errno.EPERM)
        if not inode.nlink and ino not in self._linkable:
            raise FsError(errno.ENOENT)
        if inode.nlink >= LINK_LIMIT:
            raise FsError(errno.EMLINK)
        self._filestore.claim_rows(ROW_BYTES)
        row = (parent, self._inodes.next_cookie(), name, ino, inode.mode >> 12)
        certain = self._takes_absent(parent, name)
        if not certain and not self._dentries.insert(*row):
            raise FsError(errno.EEXIST)
        inode.nlink += 1
        inode.ctime = time.time_ns()
        self.answer(inode)
        try:
            if certain and not self._dentries.insert(*row):
                raise FsError(errno.EEXIST)
        except BaseException:
            inode.nlink -= 1
            raise
        self.unlinked.discard(ino)
        self._linkable.discard(ino)
        self._inodes.mark(inode)
        self._touch(directory)
        self._group.count()
        return inode

    def _touch(self, directory: Inode) -> None:
        directory.mtime = directory.ctime = time.time_ns()
        self._inodes.mark(directory)

    # Removing

    async def unlink(self, parent: int, name: bytes, uid: int = 0) -> Inode:
        """unlink(2) by user `uid`. The inode lives on until its last handle is gone. Raises FsError ENOENT,
        EISDIR."""
        group = self._group
        if not self._files.keeps_order:
            await self._files.begin_in_order()
        inode = self._existing(parent, name)
        if inode.is_directory:
            raise FsError(errno.EISDIR)
        if self._files.rests(inode):
            await self._seal_for_trash(inode)
            if self._existing(parent, name) is not inode:
                raise FsError(errno.ENOENT)
        directory = self._inodes.get(parent)
        self.answer(None)
        noted = self._trash.noted()
        try:
            self._bring_to_trash(inode, parent, name, uid, Reason.REMOVED)
            self._dentries.delete(parent, name)
        except BaseException:
            self._trash.forget_since(noted)
            raise
        self._drop_link(inode)
        self._touch(directory)
        group.count()
        return inode

    async def rmdir(self, parent: int, name: bytes) -> Inode:
        """rmdir(2). Raises FsError ENOENT, ENOTDIR, ENOTEMPTY."""
        await self._group.begin()
        inode = self._existing(parent, name)
        self._check_empty(inode)
        self._trash.check_own(inode.ino)
        directory = self._inodes.get(parent)
        self.answer(None)
        self._dentries.delete(parent, name)
        directory.nlink -= 1
        self._drop_directory(inode)
        self._touch(directory)
        self._group.count()
        return inode

    def _bring_to_trash(self, inode: Inode, parent: int, name: bytes, uid: int, reason: str) -> None:
        """A name of a file is about to go, by what `uid` does: the last one brings it to the trash, or out
        of it."""
        if parent in self._in_trash:
            self._trash.gone(inode)
        elif inode.nlink == 1:
            self._trash.keep(inode, parent, name, uid, reason)

    async def _seal_for_trash(self, inode: Inode) -> None:
        """What rests before it is sealed is kept as well; what cannot be sealed is removed all the same."""
        if inode.nlink == 1 and self._trash.is_old_enough(inode.btime):
            with contextlib.suppress(OSError):
                await self._files.seal_closed(inode)
            await self._files.begin_in_order()

    def _drop_link(self, inode: Inode) -> None:
        inode.nlink -= 1
        if not inode.nlink:
            self.unlinked.add(inode.ino)
        self._inodes.changed(inode)

    def _drop_directory(self, inode: Inode) -> None:
        inode.nlink = 0
        self._trash.directory_gone(inode.ino)
        self.unlinked.add(inode.ino)
        self._inodes.changed(inode)

    async def forget(self, inos: Iterable[int]) -> None:
        """The kernel holds these inodes no more: those without a name go, rows and content.

        The kernel does not wait for a RELEASE, so that FORGET may come first: `released` goes on then.
        """
        gone = [ino for ino in inos if ino in self.unlinked]
        self._forgotten.update(gone)  # what cannot go now goes with its last handle, or before a commit
        for ino in gone:
            await self._group.begin()
            if ino in self.unlinked and self._files.discard(self._inodes.get(ino)):
                self.unlinked.discard(ino)
                self._linkable.discard(ino)
                self._forgotten.discard(ino)

    async def forget_again(self) -> None:
        """Try once more what could not go when it was forgotten: a thread was busy with it, or it failed.
        Raises OSError."""
        if self._forgotten:
            await self.forget([ino for ino in self._forgotten if not self._files.is_open(ino)])

    async def released(self, inode: Inode) -> None:
        """A handle of an unlinked inode is gone."""
        if inode.ino in self._forgotten:
            await self.forget([inode.ino])

    # Renaming

    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        """rename(2) and renameat2(2) with all its flags by a user and his group. No bytes move.

        What was closed has its content by then. Raises FsError ENOENT, EEXIST, EISDIR, ENOTDIR, ENOTEMPTY,
        EINVAL (into itself), ENAMETOOLONG, EPERM (into the trash), and as sealing does.
        """
        leaves_whiteout = bool(flags & RENAME_WHITEOUT)
        flags &= ~RENAME_WHITEOUT
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE) or (
            leaves_whiteout and flags & RENAME_EXCHANGE
        ):
            raise FsError(errno.EINVAL)
        group = self._group
        if not self._files.keeps_order:
            await self._files.begin_in_order()
        source = self._existing(parent, name)
        target_ino = self._dentries.find(new_parent, new_name)
        replaces = target_ino is not None and flags != RENAME_NOREPLACE
        moved = [source]
        if target_ino is not None and flags == RENAME_EXCHANGE:
            moved.append(self._inodes.get(target_ino))
        if source.content is not None or moved[-1].content is not None:
            for inode in moved:
                await (self._files.persist_inode if replaces else self._files.settle_closed)(inode)
            await self._files.begin_in_order()
            source = self._existing(parent, name)
            target_ino = self._dentries.find(new_parent, new_name)
        if replaces and not flags and target_ino is not None:
            replaced = self._inodes.get(target_ino)
            if self._files.rests(replaced):
                await self._seal_for_trash(replaced)
                source = self._existing(parent, name)
                target_ino = self._dentries.find(new_parent, new_name)
        to = self._directory(new_parent, new_name)
        self._trash.check_own(source.ino)
        if (flags & RENAME_EXCHANGE or leaves_whiteout) and parent in self._in_trash:
            raise FsError(errno.EPERM)
        target = None if target_ino is None else self._inodes.get(target_ino)
        if target is not None and flags & RENAME_NOREPLACE:
            raise FsError(errno.EEXIST)
        if target is None and flags & RENAME_EXCHANGE:
            raise FsError(errno.ENOENT)
        if target is source:
            return
        if parent != new_parent:
            self._check_loop(source, new_parent)
            if target is not None and flags & RENAME_EXCHANGE:
                self._check_loop(target, parent)
        if target is not None and not flags:
            self._check_replaceable(source, target)
        if leaves_whiteout:
            self._filestore.claim_rows(ROW_BYTES)
        self._takes_absent(new_parent, new_name)
        origin = self._inodes.get(parent)
        self.answer(None)
        noted = self._trash.noted()
        try:
            if target is not None and not flags and not target.is_directory:
                self._bring_to_trash(target, new_parent, new_name, uid, Reason.REPLACED)
            if parent in self._in_trash:
                with self._namespace.savepoint():
                    self._move(parent, name, target, new_parent, new_name)
                    self._trash.restored(source)
            elif leaves_whiteout:
                with self._namespace.savepoint():
                    self._leave_whiteout(origin, name, source, target, new_parent, new_name, uid, gid)
            elif flags and target is not None:
                with self._namespace.savepoint():
                    self._dentries.point(new_parent, new_name, source.ino, source.mode >> 12)
                    self._dentries.point(parent, name, target.ino, target.mode >> 12)
            else:
                self._move(parent, name, target, new_parent, new_name)
        except BaseException:
            self._trash.forget_since(noted)
            raise
        if source.is_directory or (target is not None and target.is_directory):
            self._trash.directory_changed()
        self._settle_links(source, target, origin, to, bool(flags & RENAME_EXCHANGE))
        group.count()

    def _move(self, parent: int, name: bytes, target: Inode | None, new_parent: int, new_name: bytes) -> None:
        """A name takes another place, that of `target` if there is one: wholly or not at all."""
        if target is None:
            self._dentries.rename(parent, name, new_parent, self._inodes.next_cookie(), new_name)
        else:
            self._dentries.replace(parent, name, new_parent, new_name)

    def _leave_whiteout(
        self,
        directory: Inode,
        name: bytes,
        source: Inode,
        target: Inode | None,
        new_parent: int,
        new_name: bytes,
        uid: int,
        gid: int,
    ) -> None:
        """The names of a rename with RENAME_WHITEOUT. Inside a savepoint."""
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
        whiteout = self._inodes.create(WHITEOUT_MODE, uid, gid)
        cookie, type_ = self._inodes.next_cookie(), source.mode >> 12
        try:
            self._xattrs.inherit(directory, whiteout, WHITEOUT_MODE)
            self._dentries.point(directory.ino, name, whiteout.ino, WHITEOUT_MODE >> 12)
            if target is not None:
                self._dentries.point(new_parent, new_name, source.ino, type_)
            elif not self._dentries.insert(new_parent, cookie, new_name, source.ino, type_):
                raise FsError(errno.EEXIST)
        except BaseException:
            self._inodes.remove(whiteout)
            raise

    def _settle_links(
        self, source: Inode, target: Inode | None, origin: Inode, to: Inode, exchanged: bool
    ) -> None:
        """Link counts and times after the names have moved."""
        if source.is_directory:
            origin.nlink -= 1
            to.nlink += 1
        if target is not None and exchanged:
            if target.is_directory:
                to.nlink -= 1
                origin.nlink += 1
            self._inodes.changed(target)
        elif target is not None and target.is_directory:
            to.nlink -= 1
            self._drop_directory(target)
        elif target is not None:
            self._drop_link(target)
        self._inodes.changed(source)
        self._touch(origin)
        if to is not origin:
            self._touch(to)
