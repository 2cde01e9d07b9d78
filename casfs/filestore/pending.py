"""Accepted blobs whose files are made later: a file costs more than all else about a small blob."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from casfs.space import FILE_ROOM, Left

PENDING_LIMIT = 64 << 20
"""Bytes of accepted blobs that may wait in memory to be written; beyond it they are written at once."""

PENDING_COUNT = 20_000
"""And at most this many blobs: each is a directory entry and an inode that the next commit has to make."""

WRITE_BATCH = 64
"""Pending blobs written in one go, some 4 ms: so long a reader of one of them may have to wait."""

Content = bytes | bytearray


class Pending:
    """The buffer of accepted blobs. From any thread: what is in it is guarded by `_written`, a blob that one
    thread writes is left alone by all others.

    `write` makes the files of some blobs, in their order. It raises OSError and may then have made some.
    """

    def __init__(self, write: Callable[[Mapping[bytes, Content]], None]) -> None:
        self._write = write
        self._blobs: dict[bytes, Content] = {}
        self._room = 0
        self._writing: set[bytes] = set()
        self._written = threading.Condition(threading.Lock())

    def accept(self, digest: bytes, data: Content) -> None:
        """Take a blob whose file is made later, by `write`. `data` must not be changed any more. One that is
        pending already is not taken twice."""
        with self._written:
            if digest not in self._blobs:
                self._blobs[digest] = data
                self._room += len(data) + FILE_ROOM

    def room(self) -> Left:
        """Bytes and inodes that the blobs will take on disk."""
        return Left(self._room, len(self._blobs))

    @property
    def are_many(self) -> bool:
        """Should blobs be published at once instead of being accepted, for what they take of memory?"""
        return len(self._blobs) >= PENDING_COUNT or self._room >= PENDING_LIMIT

    def __contains__(self, digest: bytes) -> bool:
        """Was the blob accepted and not yet written?"""
        return digest in self._blobs

    def __bool__(self) -> bool:
        """Are there blobs that were accepted and not yet written?"""
        return bool(self._blobs)

    def get(self, digest: bytes) -> Content | None:
        """The content of a pending blob; None when it is not pending any more."""
        return self._blobs.get(digest)

    def write(self, digests: list[bytes]) -> None:
        """Write those of the blobs that are pending. Blocks.

        Raises OSError; what was not written, and maybe some that was, is pending as before.
        """
        for start in range(0, len(digests), WRITE_BATCH):
            with self.taken(digests[start : start + WRITE_BATCH]) as blobs:
                self._write(blobs)

    def forget(self, digest: bytes) -> None:
        """Nobody wants a pending blob any more: it is not written."""
        with self.taken([digest]):
            pass

    @contextmanager
    def taken(self, digests: list[bytes]) -> Iterator[Mapping[bytes, Content]]:
        """Those of the blobs that are pending; no other thread writes them meanwhile.

        Left without an exception, they are pending no more.
        """
        with self._written:
            self._written.wait_for(lambda: self._writing.isdisjoint(digests))
            blobs = {digest: self._blobs[digest] for digest in digests if digest in self._blobs}
            self._writing.update(digests)
        done: Iterable[bytes] = ()
        try:
            yield blobs
            done = blobs
        finally:
            with self._written:
                for digest in done:
                    self._room -= len(self._blobs.pop(digest)) + FILE_ROOM
                self._writing.difference_update(digests)
                self._written.notify_all()
