"""Contents by their digests: /.casfs/by-sha256/HEX is the content itself, as a file that can only be read.

So a content that is there is deployed by `cp /mnt/.casfs/by-sha256/HEX PLACE`: copy_file_range(2) of the
whole file, one row. The directories are of root and the store's owner, who may read every blob anyway. They
are not listed, and list nothing. Files in them have the mode that a copy shall have. All of their inodes are
generated (nodes.py).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import partial
from typing import NamedTuple

from casfs.errors import FsError
from casfs.filestore.hashing import ALGORITHMS, hash_bytes, other_digests
from casfs.fs.content.content import Handle
from casfs.fs.content.contents import Contents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.nodes import CASFS, generated_number, number_in_kind
from casfs.types import DIGEST_SIZE, ROOT_INO

CONTENT, DIRECTORY = 0, 1
"""Kinds of generated inodes (nodes.py)."""

BASE = 0
"""Number of the directory /.casfs, where no row has it; those of BY follow."""

SIZES = {"blake3": DIGEST_SIZE} | {name: algorithm.size for name, algorithm in ALGORITHMS.items()}
"""Algorithm -> bytes of a digest."""

BY = {b"by-" + name.encode(): name for name in SIZES}
"""Name of a directory -> its algorithm."""

MATCHES = 100
"""Contents that are told of a beginning of a digest, at the most."""

_HEX = re.compile(rb"[0-9a-f]+")
_EMPTY = 0
"""Number of the content that has no blob."""


class Known(NamedTuple):
    """A content: a digest of it, and the id of its blob, 0 for the empty content."""

    digest: bytes
    blob: int


class ByDigest:
    """Owned by the thread that runs the file system."""

    def __init__(self, core: Core, contents: Contents) -> None:
        self._blobs = core.store.namespace.blobs
        self._inodes = core.inodes
        self._places = core.places
        self._digesting = contents.digesting
        self._settling = contents.settling
        self._blob_files = contents.blobs
        owner = os.stat(core.store.path)
        self._uid, self._gid = owner.st_uid, owner.st_gid
        nodes = core.nodes
        nodes.makers[CONTENT] = self._content
        nodes.makers[DIRECTORY] = self._directory
        self._nodes, self._dentries = nodes, core.store.namespace.dentries
        nodes.names[ROOT_INO] = lambda name: CASFS if name == b".casfs" and not nodes.base else None
        nodes.names[CASFS] = self._find_in_base
        for number, directory in enumerate(BY, BASE + 1):
            nodes.base_names[directory] = generated_number(DIRECTORY, number)
            nodes.names[generated_number(DIRECTORY, number)] = partial(self._find, BY[directory])

    # Names

    def _find_in_base(self, name: bytes) -> int | None:
        """The kernel may know /.casfs for a moment as it was before a row had it."""
        known = self._nodes.base_names.get(name)
        if known is None and self._nodes.base:
            return self._dentries.find(self._nodes.base, name)
        return known

    def _find(self, algorithm: str, name: bytes) -> int | None:
        """Raises FsError ENOTUNIQ where several contents have that digest."""
        if len(name) != 2 * SIZES[algorithm] or not _HEX.fullmatch(name):
            return None
        found = self.contents(algorithm, name.decode())
        if len(found) > 1:
            raise FsError(errno.ENOTUNIQ)
        return self.number(found[0]) if found else None

    @staticmethod
    def number(known: Known) -> int:
        """Of the inode of a content."""
        return generated_number(CONTENT, known.blob)

    def contents(self, algorithm: str, beginning: str) -> list[Known]:
        """The contents whose digest begins so, in hex; MATCHES at the most."""
        size = SIZES[algorithm]
        low = bytes.fromhex(beginning.ljust(2 * size, "0"))
        high = bytes.fromhex(beginning.ljust(2 * size, "f"))
        if algorithm == "blake3":
            empty: bytes = hash_bytes(b"")
            found = [Known(digest, blob) for blob, digest in self._blobs.between(low, high, MATCHES)]
        else:
            empty = other_digests(b"", [algorithm])[algorithm]
            found = [Known(*match) for match in self._digesting.find(algorithm, low, high, MATCHES)]
        return [*found, Known(empty, _EMPTY)] if low <= empty <= high else found

    async def settled(self) -> None:
        """Have what is closed sealed, so that it can be found. What cannot be is not."""
        await self._settling.write_back()
        await self._settling.seal_all_closed()
        await self._digesting.finished()

    async def opened(self, handle: Handle) -> None:
        """Somebody has opened a content. Nothing keeps that from being collected; he reads it all the same.
        Raises FsError ESTALE, OSError."""
        blob = handle.inode.blob
        if blob is not None and not self._blob_files.is_there(blob):
            raise FsError(errno.ESTALE)
        if blob is not None and not handle.passthrough:
            await self._blob_files.open(handle.content)

    # Inodes

    def _content(self, number: int) -> Inode | None:
        blob = number_in_kind(number)
        row = None if blob == _EMPTY else self._blobs.get(blob)
        if row is None and blob != _EMPTY:
            return None
        size, made = (0, 0) if row is None else (row.size, row.created_ns)
        inode = self._new(number, stat.S_IFREG | 0o644, 1, made)
        inode.size, inode.allocated = size, size + 511 & ~511
        inode.blob = blob or None
        return inode

    def _directory(self, number: int) -> Inode | None:
        which = number_in_kind(number)
        root = self._inodes.get(ROOT_INO)
        if which == BASE:
            inode = self._new(number, stat.S_IFDIR | root.mode & 0o7777, 2, root.ctime)
            inode.uid, inode.gid, inode.xattrs = root.uid, root.gid, dict(self._places.access(root))
            return inode
        return self._new(number, stat.S_IFDIR | 0o500, 2, root.btime) if which <= len(BY) else None

    def _new(self, number: int, mode: int, nlink: int, time: int) -> Inode:
        inode = Inode(
            number, mode, nlink, self._uid, self._gid, 0, 0, 0, None, None, None, time, time, time, time
        )
        inode.xattrs = {}
        return inode
