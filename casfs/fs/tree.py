"""Names: lookup, making, linking, removing, renaming, listing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial

from casfs.errors import FsError
from casfs.fs.content.contents import Contents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.listing import NAME_LIMIT, Listing
from casfs.fs.nodes import SNAPSHOTS
from casfs.fs.policy import Policy, Reason
from casfs.fs.xattrs import ExtendedAttributes
from casfs.types import ROOT_INO

TARGET_LIMIT = 4095
LINK_LIMIT = (1 << 31) - 1

ROW_BYTES = 1024
"""What one more name may take on disk, rows and indexes, roughly and rather more."""

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

WHITEOUT_MODE = stat.S_IFCHR
"""What RENAME_WHITEOUT leaves: a character device 0:0 without permissions, as ext4 does it. To an overlayfs
whose upper layer has it the name is removed (Documentation/filesystems/overlayfs.rst)."""


class Tree:
    """The namespace verbs. Owned by the thread that runs the file system.

    The kernel's `answer` is called with a verb's result (None where it has none) as soon as nothing can
    refuse it any more: who waits may go on while the rows are written. When that fails the group has failed,
    as if at its COMMIT.
    `unlinked`, `_linkable`: those of `Directories`. `_forgotten`: of them, what the kernel knows no more.
    `kept`: numbers of inodes that may get back the name they have lost (batch.py).
    """

    def __init__(
        self,
        core: Core,
        contents: Contents,
        xattrs: ExtendedAttributes,
        policy: Policy,
        listing: Listing,
    ) -> None:
        self._dentries = core.store.namespace.dentries
        self._inodes = core.inodes
        self._nodes = core.nodes
        self._kinds = core.nodes.kinds
        self._derived = core.nodes.derived
        self._trees = core.nodes.trees
        self._generated = core.nodes.names
        self._remembered = core.remembered
        self._directories = core.directories
        self._listing = listing
        self._filestore = core.store.filestore
        self._namespace = core.store.namespace
        self._group = core.group
        self._contents = contents
        self._settling = contents.settling
        self._xattrs = xattrs
        self._policy = policy
        self._kernel = core.kernel
        self.unlinked = core.directories.unlinked
        self._linkable = core.directories.linkable
        self._forgotten: set[int] = set()
        self.kept: set[int] = set()

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        """The inode under a name, or None. Raises FsError ENAMETOOLONG, ESTALE."""
        if parent >= SNAPSHOTS and name not in (b".", b".."):
            return None if self._nodes.past is None else self._nodes.past.find(parent, name)
        try:
            ino = self._dentries.find(parent, name)
        except OverflowError:  # a number of 2^63 or more, which open_by_handle_at(2) lets anybody ask for
            raise FsError(errno.ESTALE) from None
        if ino is not None:
            if parent in self._kinds:
                self._kinds[parent].given((ino,))
            if parent == ROOT_INO and ino in self._trees:
                self._remembered.learned(ino)
            return self._inodes.get(ino)
        if name == b"." or name == b"..":
            return self._listing.dot(parent, name)
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        if parent in self._derived:
            ino = self._derived[parent].find(parent, name)
            if ino is None and self._nodes.beside is not None:
                ino = self._nodes.beside.find(parent, name)
            return None if ino is None else self._inodes.get(ino)
        if self._nodes.beside is not None:
            ino = self._nodes.beside.find(parent, name)
            if ino is not None:
                return self._inodes.get(ino)
        if parent in self._generated:
            ino = self._generated[parent](name)
            if ino is not None:
                return self._inodes.get(ino)
        if parent not in self._kinds:
            self._directories.note_absent(parent, name)
        return None

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
        if parent in self._derived:
            through = self._derived[parent]
            return await through.make(self, parent, name, mode, uid, gid, rdev, target, umask, made)
        group = self._group
        if not group.active:
            await group.begin()
        directory = self._directory(parent, *((name, mode) if name is not None else (b"unnamed", 0)))
        if stat.S_ISDIR(mode):
            self._policy.check_directory(parent)
        if target is not None and not 0 < len(target) <= TARGET_LIMIT:
            raise FsError(errno.ENAMETOOLONG if target else errno.ENOENT)
        self._filestore.space.claim_rows(ROW_BYTES + len(target or b""))
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
        made = made or self._kernel.answer
        certain = name is not None and self._directories.take_absent(parent, name)
        if certain:
            made(inode)
        try:
            if name is not None:
                self._directories.add(directory, name, inode)
            if target is None and self._xattrs.all(directory):
                self._inherit(directory, name, inode, requested)
        except BaseException:
            self._inodes.remove(inode)
            raise
        if name is None:
            self._directories.add_unnamed(inode)
        if not certain:
            made(inode)
        return inode

    def _inherit(self, directory: Inode, name: bytes | None, inode: Inode, mode: int) -> None:
        try:
            self._xattrs.inherit(directory, inode, mode)
        except BaseException:
            if name is not None:
                self._directories.take_back(directory, name, inode)
            raise

    def _directory(self, ino: int, name: bytes, mode: int, inode: Inode | None = None) -> Inode:
        """A directory that may take a new name (Policy.check_add)."""
        if len(name) > NAME_LIMIT:
            raise FsError(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise FsError(errno.EINVAL)
        self._inodes.changeable(ino)
        self._policy.check_add(ino, name, mode, inode)
        directory = self._inodes.get(ino)
        if not directory.is_directory:
            raise FsError(errno.ENOTDIR)
        if not directory.nlink:
            raise FsError(errno.ENOENT)
        return directory

    def attach(self, parent: int, name: bytes, inode: Inode) -> None:
        """Give a copied inode its first name. Inside a transaction. Raises FsError as `make`."""
        directory = self._directory(parent, name, inode.mode, inode)
        if inode.is_directory:
            self._policy.check_directory(parent)
        self._directories.take_absent(parent, name)
        self._directories.add(directory, name, inode)
        if inode.is_directory and self._directories.follower is not None:
            self._directories.follower.moved(inode.ino)
        self._inodes.mark(inode)

    def replace(self, parent: int, name: bytes, inode: Inode, there: Inode) -> None:
        """Give a copied file its first name, which another file has. Inside a transaction."""
        self._policy.check_add(parent, name, inode.mode, inode)
        self._policy.check_replace(parent, name, there)
        noted = self._policy.noted()
        try:
            self._policy.leaves(there, parent, name, os.geteuid(), Reason.REPLACED)
            self._directories.point(self._inodes.get(parent), name, inode, there)
        except BaseException:
            self._policy.forget_since(noted)
            raise

    async def link(self, ino: int, parent: int, name: bytes, uid: int = 0) -> Inode:
        """link(2) by user `uid`. Raises FsError EEXIST, EPERM (a directory), EMLINK, ENOENT (without a name),
        and as sealing does.

        The first name of a file that has none: its content is durable by then, so that a crash does not
        leave the name of a file that is empty. The kernel refuses it for O_EXCL (I_LINKABLE, fs/namei.c).
        """
        if parent in self._derived:
            return await self._derived[parent].link(self, ino, parent, name, uid)
        inode = self._inodes.get(ino)
        if inode.is_generated:
            raise FsError(errno.EXDEV)
        claims = self._policy.claims
        arrived = None if claims is None else await claims.arrives(inode, parent, name)
        if ino in self._linkable:
            await self._settling.persist_unnamed(inode)
        elif inode.content is not None:
            await self._settling.settle_closed(inode)
        await self._settling.begin_in_order()
        directory = self._directory(parent, name, inode.mode, inode)
        self._policy.check_link(inode)
        if inode.is_directory:
            raise FsError(errno.EPERM)
        if not inode.nlink and ino not in self._linkable:
            raise FsError(errno.ENOENT)
        if inode.nlink >= LINK_LIMIT:
            raise FsError(errno.EMLINK)
        self._filestore.space.claim_rows(ROW_BYTES)
        certain = self._directories.take_absent(parent, name)
        answer = partial(self._kernel.answer, inode)
        self._directories.link(directory, name, inode, answer if certain else None)
        if not certain:
            answer()
        if arrived is not None:
            await arrived()
        return inode

    # Removing

    async def unlink(self, parent: int, name: bytes, uid: int = 0) -> Inode:
        """unlink(2) by user `uid`. The inode lives on until its last handle is gone. Raises FsError ENOENT,
        EISDIR."""
        if parent in self._derived:
            return await self._derived[parent].unlink(self, parent, name, uid)
        if not self._settling.keeps_order:
            await self._settling.begin_in_order()
        inode = self._listing.existing(parent, name)
        if inode.is_directory:
            raise FsError(errno.EISDIR)
        if self._settling.rests(inode):
            await self._seal_to_keep(inode)
            if self._listing.existing(parent, name) is not inode:
                raise FsError(errno.ENOENT)
        directory = self._inodes.get(parent)
        self._policy.check_remove(parent, name, inode)
        self._kernel.answer(None)
        self.remove(directory, name, inode, uid)
        return inode

    def remove(self, directory: Inode, name: bytes, inode: Inode, uid: int) -> None:
        """What `unlink` does when all is checked. Inside a transaction, without a wait."""
        noted = self._policy.noted()
        try:
            self._policy.leaves(inode, directory.ino, name, uid, Reason.REMOVED)
            self._directories.remove(directory, name, inode)
        except BaseException:
            self._policy.forget_since(noted)
            raise

    def bring_back(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Undo `remove`, as far as names go, of an inode that was among `kept`. Raises FsError EEXIST."""
        self._directories.link(directory, name, inode, None)
        self._forgotten.discard(inode.ino)

    async def rmdir(self, parent: int, name: bytes, uid: int = 0) -> Inode:
        """rmdir(2) by user `uid`. Raises FsError ENOENT, ENOTDIR, ENOTEMPTY."""
        if parent in self._derived:
            return await self._derived[parent].rmdir(self, parent, name, uid)
        await self._group.begin()
        inode = self._listing.existing(parent, name)
        self._listing.check_empty(inode)
        self._policy.check_remove(parent, name, inode)
        directory = self._inodes.get(parent)
        self._kernel.answer(None)
        self._directories.remove(directory, name, inode)
        self._policy.removed(parent, inode)
        return inode

    async def _seal_to_keep(self, inode: Inode) -> None:
        """What rests before it is sealed is kept as well; what cannot be sealed is removed all the same."""
        if inode.nlink == 1 and self._policy.keeps(inode.btime):
            with contextlib.suppress(OSError):
                await self._settling.seal_closed(inode)
            await self._settling.begin_in_order()

    async def forget(self, inos: Iterable[int]) -> None:
        """The kernel holds these inodes no more: those without a name go, rows and content.

        The kernel does not wait for a RELEASE, so that FORGET may come first: `released` goes on then.
        """
        gone = [ino for ino in inos if ino in self.unlinked]
        self._forgotten.update(gone)  # what cannot go now goes with its last handle, or before a commit
        for ino in gone:
            await self._group.begin()
            if (
                ino in self.unlinked
                and ino not in self.kept
                and self._contents.discard(self._inodes.get(ino))
            ):
                self.unlinked.discard(ino)
                self._linkable.discard(ino)
                self._forgotten.discard(ino)

    async def forget_again(self) -> None:
        """Try once more what could not go when it was forgotten: a thread was busy with it, or it failed.
        Raises OSError."""
        if self._forgotten:
            await self.forget([ino for ino in self._forgotten if not self._contents.table.is_open(ino)])

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
        if parent in self._derived or new_parent in self._derived:
            through = self._derived.get(parent) or self._derived[new_parent]
            await through.rename(self, parent, name, new_parent, new_name, flags, uid, gid)
            return
        leaves_whiteout = bool(flags & RENAME_WHITEOUT)
        flags &= ~RENAME_WHITEOUT
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE) or (
            leaves_whiteout and flags & RENAME_EXCHANGE
        ):
            raise FsError(errno.EINVAL)
        arrived = []
        if self._policy.claims is not None:
            pairs = [(self._listing.existing(parent, name), new_parent, new_name)]
            other = self._dentries.find(new_parent, new_name) if flags == RENAME_EXCHANGE else None
            if other is not None:
                pairs.append((self._inodes.get(other), parent, name))
            arrived = [await self._policy.claims.arrives(*each) for each in pairs]
        if not self._settling.keeps_order:
            await self._settling.begin_in_order()
        source = self._listing.existing(parent, name)
        target_ino = self._dentries.find(new_parent, new_name)
        replaces = target_ino is not None and flags != RENAME_NOREPLACE
        moved = [source]
        if target_ino is not None and flags == RENAME_EXCHANGE:
            moved.append(self._inodes.get(target_ino))
        if source.content is not None or moved[-1].content is not None:
            for inode in moved:
                await (self._settling.persist_inode if replaces else self._settling.settle_closed)(inode)
            await self._settling.begin_in_order()
            source = self._listing.existing(parent, name)
            target_ino = self._dentries.find(new_parent, new_name)
        if replaces and not flags and target_ino is not None:
            replaced = self._inodes.get(target_ino)
            if self._settling.rests(replaced):
                await self._seal_to_keep(replaced)
                source = self._listing.existing(parent, name)
                target_ino = self._dentries.find(new_parent, new_name)
        to = self._directory(new_parent, new_name, source.mode, source)
        self._policy.check_move(parent, name, source, new_parent)
        if flags & RENAME_EXCHANGE or leaves_whiteout:
            self._policy.check_swap(parent)
        target = None if target_ino is None else self._inodes.get(target_ino)
        if target is not None and flags & RENAME_NOREPLACE:
            raise FsError(errno.EEXIST)
        if target is None and flags & RENAME_EXCHANGE:
            raise FsError(errno.ENOENT)
        if target is source:
            return
        if parent != new_parent:
            if source.is_directory:
                self._policy.check_directory(new_parent)
            self._listing.check_loop(source, new_parent)
            if target is not None and flags & RENAME_EXCHANGE:
                if target.is_directory:
                    self._policy.check_directory(parent)
                self._listing.check_loop(target, parent)
        if target is not None and not flags:
            self._listing.check_replaceable(source, target)
        if target is not None and flags:
            self._policy.check_move(new_parent, new_name, target, parent)
            self._policy.check_add(parent, name, target.mode, target)
        elif target is not None:
            self._policy.check_replace(new_parent, new_name, target)
        if leaves_whiteout:
            self._filestore.space.claim_rows(ROW_BYTES)
        origin = self._inodes.get(parent)
        self._kernel.answer(None)
        noted = self._policy.noted()
        move = (origin, name, to, new_name, source)
        try:
            if target is not None and not flags and not target.is_directory:
                self._policy.leaves(target, new_parent, new_name, uid, Reason.REPLACED)
            if leaves_whiteout:
                self._leave_whiteout(origin, name, source, target, to, new_name, uid, gid)
            elif flags and target is not None:
                beside = self._policy.moves(source, parent, name, new_parent, new_name, target)
                self._directories.exchange(*move, target, beside)
            else:
                beside = self._policy.moves(source, parent, name, new_parent, new_name, None)
                self._directories.move(*move, target, beside)
        except BaseException:
            self._policy.forget_since(noted)
            raise
        for each in filter(None, arrived):
            await each()

    def move(self, parent: int, name: bytes, inode: Inode, new_parent: int, new_name: bytes) -> None:
        """As `rename`, of a file to a name that is not taken. Inside a transaction, without a wait."""
        to = self._directory(new_parent, new_name, inode.mode, inode)
        self._policy.check_move(parent, name, inode, new_parent)
        if self._dentries.find(new_parent, new_name) is not None:
            raise FsError(errno.EEXIST)
        beside = self._policy.moves(inode, parent, name, new_parent, new_name, None)
        self._directories.move(self._inodes.get(parent), name, to, new_name, inode, None, beside)

    def _leave_whiteout(
        self,
        directory: Inode,
        name: bytes,
        source: Inode,
        target: Inode | None,
        to: Inode,
        new_name: bytes,
        uid: int,
        gid: int,
    ) -> None:
        """A rename with RENAME_WHITEOUT."""
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
        whiteout = self._inodes.create(WHITEOUT_MODE, uid, gid)
        inherit = partial(self._xattrs.inherit, directory, whiteout, WHITEOUT_MODE)
        try:
            self._directories.move_leaving(
                directory, name, whiteout, to, new_name, source, target, beside=inherit
            )
        except BaseException:
            self._inodes.remove(whiteout)
            raise
