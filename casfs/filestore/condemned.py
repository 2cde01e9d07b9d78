"""Blobs whose rows are being deleted: their files go once that is durable (I3), if nobody has the content
again by then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class Condemned:
    """The digests of these blobs. From any thread: they change under a lock that is held while a file is
    removed. `remove` unlinks the file of a blob, of so many bytes; it raises OSError."""

    def __init__(self, remove: Callable[[bytes, int], None]) -> None:
        self._remove = remove
        self._digests: set[bytes] = set()
        self._lock = threading.Lock()

    def add(self, digests: Iterable[bytes]) -> None:
        """Note blobs whose rows are being deleted, so that `remove` may take their files then."""
        with self._lock:
            self._digests.update(digests)

    def spare(self, digest: bytes) -> bool:
        """Leave the file, if it was condemned, to who has that content again; False when it has gone, or was
        never condemned. Waits while it is being unlinked."""
        if digest not in self._digests:
            return False
        with self._lock:
            if digest not in self._digests:
                return False
            self._digests.discard(digest)
            return True

    def remove(self, digest: bytes, size: int) -> bool:
        """Remove the file of a blob if it is condemned, which it is not any more then. False when it was
        spared.

        Raises OSError, FileNotFoundError when there is none.
        """
        with self._lock:
            if digest not in self._digests:
                return False
            try:
                self._remove(digest, size)
            finally:
                self._digests.discard(digest)
        return True

    def digests(self) -> list[bytes]:
        """Those that are condemned."""
        with self._lock:
            return list(self._digests)

    def remove_all(self) -> None:
        """At the end, once their rows are gone for good: the files of batches that were cut off. Blocks.

        Raises OSError for the first that cannot be removed; the others are all the same.
        """
        failed: list[OSError] = []
        for digest in list(self._digests):
            try:
                self.remove(digest, 0)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append(error)
        if failed:
            raise failed[0]
