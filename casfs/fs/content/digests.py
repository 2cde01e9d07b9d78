"""Further digests of contents (filestore/hashing.py): who gets which, and where they are kept.

They are computed when content is sealed, from the same bytes, and written with the rows of its group; of
large contents, whose sealing does not wait for them, with a later one. A content that came by another way, or
before somebody wanted a digest, gets it when somebody asks for it, or by `casfs digests`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from casfs.filestore.hashing import ALGORITHMS, hash_all, other_digests
from casfs.fs.content.blobs import BlobFiles
from casfs.fs.content.prefix import PrefixHash
from casfs.fs.core import Core
from casfs.fs.inodes import Inode
from casfs.fs.policy import Policy
from casfs.fs.scheduler import Event, Mutex
from casfs.namespace.digests import DigestRow

NOTED = 400
"""Digests after which rows are written before the commit does: less than a millisecond of work."""

LARGE = 32 << 20
"""Bytes that take so long to read, 20 to 100 ms, that others do not wait for it."""

Values = dict[str, bytes]
"""Digests of one content, by algorithm."""


class Digesting:
    """Owned by the thread that runs the file system.

    `wanted`: algorithms whose digests every content gets. `_noted`: digests that no row has yet, of blobs
    that may go before they have one. `_under_way`: blobs of which jobs compute some. `_computing`: one
    content at a time is read for who asks, and beside it one that is LARGE: anybody may ask for that of a
    file which takes hours.
    """

    def __init__(self, core: Core, blobs: BlobFiles, policy: Policy) -> None:
        self._filestore = core.store.filestore
        self._blob_rows = core.store.namespace.blobs
        self._rows = core.store.namespace.digests
        self._damage = core.store.namespace.damage
        self._group = core.group
        self._scheduler = core.scheduler
        self._blobs = blobs
        self._policy = policy
        self._noted: dict[int, Values] = {}
        self._under_way: dict[int, Event] = {}
        self._computing = {False: Mutex(core.scheduler), True: Mutex(core.scheduler)}
        self.wanted = self._known()

    # Which

    def set_wanted(self, algorithms: Iterable[str]) -> None:
        """Let every new content have these, and no others. Inside a transaction."""
        self._rows.set_wanted(algorithms)
        self._group.count()
        self.wanted = self._known()

    def _known(self) -> tuple[str, ...]:
        """What the rows say, without what is none: fsck tells of it."""
        return tuple(name for name in self._rows.wanted() if name in ALGORITHMS)

    def of(self, inode: Inode) -> tuple[str, ...]:
        """The algorithms whose digests a file's content gets."""
        asked = self._policy.digests
        return self.wanted if asked is None else tuple({*self.wanted, *asked(inode)})

    # At sealing

    def lacking(self, blob: int, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        """Those of which a blob has no digest yet."""
        if not algorithms:
            return ()
        there = self.known(blob)
        return tuple(name for name in algorithms if name not in there)

    def known(self, blob: int) -> Values:
        """The digests that a blob has."""
        values = self._rows.of(blob)
        return {**values, **self._noted[blob]} if blob in self._noted else values

    def note(self, blob: int, values: Values) -> None:
        """A blob has these digests. They are written with the transaction that is open, or comes next."""
        if values:
            self._noted.setdefault(blob, {}).update(values)
            if len(self._noted) > NOTED and self._group.active:
                self.flush()

    def follow(self, blob: int, prefix: PrefixHash) -> None:
        """The file that jobs read has become a blob: when they have come to its end, that has the digests."""
        if blob in self._under_way:
            prefix.abandon()
            return
        done = self._under_way[blob] = self._scheduler.event()
        self._blobs.enter_thread(blob)

        def ended(values: Values) -> None:
            self._blobs.leave_thread(blob)
            del self._under_way[blob]
            self.note(blob, values)
            self._group.wake()
            done.set()

        prefix.finish(self._scheduler, ended)

    @property
    def has_noted(self) -> bool:
        """Are there digests that no row has yet?"""
        return bool(self._noted)

    async def finished(self) -> None:
        """Return when the jobs have ended that compute digests now."""
        for job in list(self._under_way.values()):
            await job.wait()

    def flush(self) -> None:
        """Write the rows of what is noted. Inside a transaction. Raises DatabaseError."""
        if self._noted:
            self._rows.add_to_present(
                DigestRow(blob, name, value)
                for blob, values in self._noted.items()
                for name, value in values.items()
            )
            self._noted.clear()

    # For who asks

    def find(self, algorithm: str, low: bytes, high: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Digests in a range, and the blobs that have them, up to `limit`. Raises DatabaseError."""
        if self._noted and self._group.active:
            self.flush()
        return [(row.value, row.blob_id) for row in self._rows.find(algorithm, low, high, limit)]

    async def value(self, inode: Inode, algorithm: str, *, wanted: bool = False) -> bytes | None:
        """The digest of a sealed file; None where nobody has asked for it, or the file is not sealed.

        Computed where it is `wanted`, or the file's content should have it, and has not. Raises OSError EIO
        for damaged content.
        """
        content = inode.content
        if not inode.is_regular or inode.staged is not None or (content is not None and content.is_staged):
            return None
        blob = inode.blob
        if blob is None:
            return None if inode.size else other_digests(b"", [algorithm])[algorithm]
        value = self.known(blob).get(algorithm)
        if value is None and blob in self._under_way:
            await self._under_way[blob].wait()
            value = self.known(blob).get(algorithm)
        if value is None and (wanted or algorithm in self.of(inode)):
            value = await self._compute(blob, algorithm, self._computing[inode.size > LARGE])
        return value

    async def _compute(self, blob: int, algorithm: str, computing: Mutex) -> bytes:
        async with computing:
            value = self.known(blob).get(algorithm)
            if value is not None:
                return value
            digest = self._blob_rows.digest(blob)
            if digest is None:
                raise OSError(errno.EIO, f"blob {blob} is not there any more")
            fd = self._filestore.open(digest)
            try:
                with self._blobs.in_thread(blob):
                    found, values = await self._scheduler.run(hash_all, fd, os.fstat(fd).st_size, [algorithm])
            finally:
                os.close(fd)
            await self._group.begin()
            if found != digest:
                self._damage.note(blob, "its bytes have another digest", time.time_ns())
                raise OSError(errno.EIO, f"blob {digest.hex()} is damaged; see casfs scrub")
            self.note(blob, values)
            return values[algorithm]
