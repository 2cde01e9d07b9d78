"""Reading every blob and comparing it with its digest (I2)."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from blake3 import blake3

from casfs.filestore.filestore import FileStore
from casfs.maintenance.files import Tell
from casfs.namespace.checks import Checks

THREADS = max(1, min(4, os.cpu_count() or 1))
"""BLAKE3 and read(2) release the GIL."""

CHUNK = 1 << 20
"""Bytes read at a time."""


class Corrupt(NamedTuple):
    digest: bytes
    blob: int
    reason: str


class Scrub:
    """Hashes the blobs that have a row, shard by shard, each shard in one thread.

    Sound on a store in use: a blob never changes, and one that is gone meanwhile was collected; those that
    are missing without that are found by `files.BlobScan`. One that was given another file meanwhile is read
    again.
    """

    def __init__(self, filestore: FileStore, checks: Checks, tell: Tell) -> None:
        self._paths = filestore.paths
        self._checks = checks
        self._tell = tell
        self._total = checks.blob_bytes()
        self._done = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def corrupt(self) -> Iterator[Corrupt]:
        """Those whose bytes are others, or cannot be read. A repair may follow only when all are found."""
        running: deque[Future[list[Corrupt]]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for shard in self._paths.shards():
                    rows = self._checks.shard(os.path.basename(shard))
                    running.append(pool.submit(self._read_shard, rows))
                    if len(running) > THREADS:
                        yield from running.popleft().result()
                while running:
                    yield from running.popleft().result()
            finally:
                self._stopped.set()

    def _read_shard(self, rows: dict[bytes, tuple[int, int]]) -> list[Corrupt]:
        buffer = memoryview(bytearray(CHUNK))
        found = []
        for digest, (blob, _) in rows.items():
            if self._stopped.is_set():
                break
            try:
                reason = self._compare(digest, buffer)
            except OSError as error:
                reason = f"cannot be read: {error.strerror}"
            if reason:
                found.append(Corrupt(digest, blob, reason))
        return found

    def _compare(self, digest: bytes, buffer: memoryview) -> str:
        try:
            fd = os.open(self._paths.blob(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return ""
        try:
            hasher = blake3()
            while (count := os.readv(fd, [buffer])) and not self._stopped.is_set():
                hasher.update(buffer[:count])
                self._count(count)
            if count or hasher.digest() == digest:
                return ""
            if not self._is_still_there(digest, fd):
                return self._compare(digest, buffer)
            return f"its bytes have the digest {hasher.hexdigest()}"
        finally:
            os.close(fd)

    def _is_still_there(self, digest: bytes, fd: int) -> bool:
        """Is the file the blob's? A writer may have got it, and the blob a copy (fs/passthrough.py)."""
        try:
            there = os.stat(self._paths.blob(digest), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(fd).st_ino

    def _count(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._tell("reading blobs", self._done, self._total)
