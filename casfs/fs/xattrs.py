"""Extended attributes, xattr(7), with the limits and errors of ext4."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Callable, Iterator

from casfs import properties
from casfs.errors import FsError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs import acl
from casfs.fs.commit import OPERATION_BYTES
from casfs.fs.content.sealing import Sealing
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy
from casfs.types import ROOT_INO

DIGEST = b"user.casfs.blake3"
"""Read-only: the digest of a sealed regular file in 64 hex characters. Not listed: no tool shall copy it."""

DIGESTS = {b"user.casfs." + name.encode(): name for name in ALGORITHMS}
"""As DIGEST, of further algorithms: attribute -> algorithm."""

_OWN = b"user.casfs."
"""Of the file system's own, but for properties, which anybody sets."""

_VALUE_LIMIT = 64 << 10
_INODE_LIMIT = 1 << 20
"""Bytes of names and values on one inode."""

_FIELDS = ("mode", "uid", "gid", "atime", "mtime", "ctime")

_PREFIXES = (b"user.", b"trusted.", b"security.")


class ExtendedAttributes:
    """The xattr verbs. Owned by the thread that runs the file system."""

    def __init__(self, core: Core, sealing: Sealing, policy: Policy) -> None:
        self._filestore = core.store.filestore
        self._rows = core.store.namespace.xattrs
        self._savepoint = core.store.namespace.savepoint
        self._inodes = core.inodes
        self._group = core.group
        self._places = core.places
        self._sealing = sealing
        self._policy = policy

    def all(self, inode: Inode) -> dict[bytes, bytes]:
        """Every stored attribute of an inode: `InodeTable.attributes`."""
        return self._inodes.attributes(inode)

    def get(self, ino: int, name: bytes) -> bytes:
        """Raises FsError ENODATA; EOPNOTSUPP for a name no file system here keeps, EINVAL for half a one."""
        inode = self._inodes.get(ino)
        if name == DIGEST:
            digest = self._sealing.digest(inode)
            if digest is None:
                raise FsError(errno.ENODATA)
            return digest.hex().encode()
        if name in self._policy.attributes:
            computed = self._policy.attribute(ino, name)
            if computed is None:
                raise FsError(errno.ENODATA)
            return computed
        value = self.all(inode).get(name)
        if value is None:
            if name in _PREFIXES:
                raise FsError(errno.EINVAL)
            if not name.startswith(_PREFIXES) and name not in (acl.ACCESS, acl.DEFAULT):
                raise FsError(errno.EOPNOTSUPP)
            raise FsError(errno.ENODATA)
        return value

    def list(self, ino: int) -> list[bytes]:
        return list(self.all(self._inodes.get(ino)))

    async def set(self, ino: int, name: bytes, value: bytes, in_group: Callable[[int], bool]) -> None:
        """setxattr(2). `in_group(gid)`: may the caller keep S_ISGID for that group?"""
        inode = self._inodes.changeable(ino)
        self._policy.check_attributes(inode)
        if name in (acl.ACCESS, acl.DEFAULT):
            await self._set_acl(inode, name, value, in_group)
            return
        self._check_value(inode, name, value)
        await self._group.begin()
        self._filestore.space.claim_rows(512 + len(value))
        self._store(inode, name, value)
        self._inodes.changed(inode)
        self._group.count(1 + len(value) // OPERATION_BYTES)

    def check(self, inode: Inode, name: bytes, value: bytes | None) -> None:
        """May it be set, or with None removed, if it is no access list? Raises FsError as `set`."""
        self._policy.check_attributes(inode)
        if value is None:
            self._check_writable(inode, name)
        else:
            self._check_value(inode, name, value)

    def change(self, inode: Inode, name: bytes, value: bytes | None) -> None:
        """As `set`, with None as `remove`. Inside a transaction, without a wait."""
        self.check(inode, name, value)
        if value is None:
            self._drop(inode, name)
        else:
            self._filestore.space.claim_rows(512 + len(value))
            self._store(inode, name, value)
        self._inodes.changed(inode)
        self._group.count(1 + len(value or b"") // OPERATION_BYTES)

    def bring_back(self, inode: Inode, name: bytes, value: bytes | None) -> None:
        """Undo `change`: the value that there was, None for none."""
        if value is None:
            self._drop(inode, name)
        else:
            self._store(inode, name, value)

    def _check_value(self, inode: Inode, name: bytes, value: bytes) -> None:
        self._check_writable(inode, name)
        if len(name) > properties.NAME_LIMIT:
            raise FsError(errno.ERANGE)
        if len(value) > _VALUE_LIMIT:
            raise FsError(errno.E2BIG)
        if name.startswith(properties.PREFIX):
            properties.check(name, value)
        attributes = self.all(inode)
        used = sum(len(key) + len(held) for key, held in attributes.items() if key != name)
        if used + len(name) + len(value) > _INODE_LIMIT:
            raise FsError(errno.ENOSPC)

    async def remove(self, ino: int, name: bytes) -> None:
        """Raises FsError ENODATA."""
        inode = self._inodes.changeable(ino)
        self._policy.check_attributes(inode)
        if name not in (acl.ACCESS, acl.DEFAULT):
            self._check_writable(inode, name)
        if name not in self.all(inode):
            raise FsError(errno.ENODATA)
        await self._group.begin()
        if inode.is_directory:
            self._places.invalidate()
        with self._with_others(inode):
            self._drop(inode, name)
            if inode.is_directory:
                self._policy.access_changed(ino)
        self._inodes.changed(inode)
        self._group.count()

    def _check_writable(self, inode: Inode, name: bytes) -> None:
        if name.startswith(_OWN) and not name.startswith(properties.PREFIX):
            raise FsError(errno.EPERM)
        if name in _PREFIXES:  # as xattr_resolve_name of fs/xattr.c does it for other file systems
            raise FsError(errno.EINVAL)
        if not name.startswith(_PREFIXES):
            raise FsError(errno.EOPNOTSUPP)
        if name.startswith(b"user.") and stat.S_IFMT(inode.mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise FsError(errno.EPERM)

    def _store(self, inode: Inode, name: bytes, value: bytes) -> None:
        self._rows.set(inode.ino, name, value)
        self.all(inode)[name] = value
        self._inodes.attributes_grew(inode, len(value))

    def _drop(self, inode: Inode, name: bytes) -> None:
        if name in self.all(inode):
            self._rows.remove(inode.ino, name)
            del self.all(inode)[name]

    # Access control lists

    async def _set_acl(
        self, inode: Inode, name: bytes, value: bytes, in_group: Callable[[int], bool]
    ) -> None:
        entries = acl.decode(value)
        if stat.S_ISLNK(inode.mode):
            raise FsError(errno.EOPNOTSUPP)
        if name == acl.DEFAULT and not inode.is_directory:
            raise FsError(errno.EACCES if entries else errno.ENODATA)
        await self._group.begin()
        self._filestore.space.claim_rows(512 + len(value))
        if inode.is_directory:
            self._places.invalidate()
        mode = inode.mode
        if name == acl.ACCESS and entries:
            mode = mode & ~0o777 | acl.mode_of(entries)
            if mode & stat.S_ISGID and not in_group(inode.gid):
                mode &= ~stat.S_ISGID
        with self._with_others(inode):
            if not entries or (name == acl.ACCESS and acl.is_minimal(entries)):
                self._drop(inode, name)
            else:
                self._store(inode, name, value)
            inode.mode = mode
            if inode.is_directory:
                self._policy.access_changed(inode.ino)
        self._inodes.changed(inode)
        self._group.count(1 + len(value) // OPERATION_BYTES)

    @contextlib.contextmanager
    def whole(self, inode: Inode) -> Iterator[None]:
        """What is inside happens to an inode and its attributes wholly or not at all. Inside a transaction,
        without a wait."""
        held = dict(self.all(inode))
        fields = [getattr(inode, name) for name in _FIELDS]
        try:
            if held or inode.ino == ROOT_INO:  # without any there is no row that could change, but for others
                with self._savepoint():
                    yield
            else:
                yield
        except BaseException:
            inode.xattrs = held
            for name, value in zip(_FIELDS, fields, strict=True):
                setattr(inode, name, value)
            raise

    def _with_others(self, inode: Inode) -> contextlib.AbstractContextManager[None]:
        """`whole`, where other directories follow; one row alone is so anyway."""
        return self.whole(inode) if inode.ino == ROOT_INO else contextlib.nullcontext()

    def change_mode(self, inode: Inode, mode: int) -> None:
        """Keep the access list in step with chmod(2). Inside a transaction."""
        value = self.all(inode).get(acl.ACCESS)
        if value is not None:
            self._store(inode, acl.ACCESS, acl.encode(acl.with_mode(acl.decode(value), mode)))

    def inherited_mode(self, parent: Inode, mode: int, umask: int) -> int:
        """The mode of what is made in `parent`, by its default list if it has one, else by `umask`."""
        default = self.all(parent).get(acl.DEFAULT)
        return mode & ~umask if default is None else acl.inherit(acl.decode(default), mode)[1]

    def inherit(self, parent: Inode, child: Inode, mode: int) -> None:
        """Give a new file or directory the lists its parent's default list asks for."""
        default = self.all(parent).get(acl.DEFAULT)
        if default is None:
            return
        entries, _ = acl.inherit(acl.decode(default), mode)
        if not acl.is_minimal(entries):
            self._store(child, acl.ACCESS, acl.encode(entries))
        if child.is_directory:
            self._store(child, acl.DEFAULT, default)
