"""Reading blobs and comparing them with their digests (I2): the engine of `fsck --deep`, scrub and heal.

Sound on a store in use: a blob never changes. Its file may, when a writer gets it and the blob a copy
(fs/content/passthrough.py): then the blob is read again. One that is missing may have been collected, which
its row tells, for whoever asks to look up.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from casfs.filestore.hashing import ALGORITHMS, Hasher, new_hasher
from casfs.filestore.local import LocalBlobs
from casfs.maintenance.check.problems import Kind
from casfs.namespace.damage import BlobToRead

THREADS = max(1, min(4, os.cpu_count() or 1))
"""Hashing and read(2) release the GIL."""

CHUNK = 1 << 20
"""Bytes read at a time."""

STOP_SECONDS = 0.25
"""So long a stop may take to be noticed by who waits for a rate."""

CREDIT_SECONDS = 0.1
"""So much of the time that a rate would have given and nobody used may be made up for."""

MEDIUM_ERRORS = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EILSEQ, errno.ENODATA})
"""What reading ends with when the disk, or the file system on it, is to blame."""

NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ESPIPE})
"""What opening or reading ends with when something else than a file lies there."""

RETRY_SECONDS = 1.0
"""A disk that gives an error is asked once more after so long: a cable or a path to it may have been away."""

Batch = list[BlobToRead]


class Identity(NamedTuple):
    """Which file it was, in which state: a number is given again to another file, at another time."""

    device: int
    number: int
    changed_ns: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)


class Bad(NamedTuple):
    """A blob that is not what its name says.

    `kind`: MISSING_BLOB, BLOB_SIZE or CORRUPT_BLOB. `file`: what was read, as it was before; None when
    there is none. No descriptor of it is kept: in a store that is bad all over there would be too many.
    """

    blob: BlobToRead
    kind: Kind
    reason: str
    file: Identity | None = None


Wrong = Callable[[BlobToRead, dict[str, bytes]], None]
"""Called with a blob that is whole, and the right values of those of its `others` that are wrong."""


def unasked(_blob: BlobToRead, _right: dict[str, bytes]) -> None:
    """The `Wrong` of who reads blobs for their own sake."""


class Interrupted(Exception):
    """It was to stop."""


def never() -> bool:
    """For those who read to the end."""
    return False


class Verifier:
    """Reads blobs in threads. `rate`: bytes per second at the most; `read` is called with the bytes of each
    read(2), `stop` often, to know whether to end, `wrong` for further digests, all by any of the threads."""

    def __init__(
        self,
        blobs: LocalBlobs,
        read: Callable[[int], None],
        *,
        rate: float | None = None,
        stop: Callable[[], bool] = never,
        wrong: Wrong = unasked,
    ) -> None:
        self._blobs = blobs
        self._wrong = wrong
        self._read = read
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._stop = stop
        self._ended = threading.Event()

    def _is_stopped(self) -> bool:
        return self._ended.is_set() or self._stop()

    def verified(self, batches: Iterable[Batch]) -> Generator[tuple[Batch, list[Bad]], None, None]:
        """Each batch with those of its blobs that are bad, in their order, to its end or a stop.

        A batch is read by one thread, and taken from `batches` by the caller's own. Raises OSError for what
        is not the blob's fault, as too many open files.
        """
        threads = 1 if self._rate else THREADS
        running: deque[tuple[Batch, Future[list[Bad]]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for batch in batches:
                    running.append((batch, pool.submit(self._read_batch, batch)))
                    if len(running) > (threads if threads > 1 else 0):
                        yield self._first(running)
                while running:
                    yield self._first(running)
            except Interrupted:
                return
            finally:
                self._ended.set()
                for _, future in running:
                    future.cancel()

    def _first(self, running: deque[tuple[Batch, Future[list[Bad]]]]) -> tuple[Batch, list[Bad]]:
        batch, future = running[0]
        result = future.result()
        running.popleft()
        return batch, result

    def _read_batch(self, batch: Batch) -> list[Bad]:
        buffer = memoryview(bytearray(CHUNK))
        found = (self.verify(blob, buffer) for blob in batch)
        return [bad for bad in found if bad is not None]

    def verify(self, blob: BlobToRead, buffer: memoryview | None = None) -> Bad | None:
        """Read one blob; None when it is whole. Raises OSError, Interrupted."""
        digests = self.digests(blob, [algorithm for algorithm, _ in blob.others], buffer)
        if isinstance(digests, Bad):
            return digests
        right = {name: digests[name] for name, value in blob.others if digests[name] != value}
        if right:
            self._wrong(blob, right)
        return None

    def digests(
        self, blob: BlobToRead, algorithms: Iterable[str], buffer: memoryview | None = None
    ) -> dict[str, bytes] | Bad:
        """Read one blob for its digests, by algorithm, of bytes that have been compared with BLAKE3's in the
        same read. Raises OSError, Interrupted."""
        algorithms = tuple(algorithms)
        if buffer is None:
            buffer = memoryview(bytearray(max(1, min(CHUNK, blob.size + 1))))
        failed = False
        while True:
            if self._is_stopped():
                raise Interrupted
            fd, file = -1, None
            try:
                file = Identity.of(self._blobs.status(blob.digest))
                fd = self._blobs.open(blob.digest)
                file = Identity.of(os.fstat(fd))
                others = {name: ALGORITHMS[name].new() for name in algorithms}
                digest = self._digest(fd, buffer, others.values())
                if digest == blob.digest:
                    return {name: hasher.digest() for name, hasher in others.items()}
                if self._is_still_there(blob.digest, fd):
                    return _bad(blob, f"its bytes have the digest {digest.hex()}", file)
            except FileNotFoundError:
                return Bad(blob, Kind.MISSING_BLOB, "is missing")
            except OSError as error:
                if error.errno not in MEDIUM_ERRORS | NO_FILE:
                    raise
                if failed or error.errno in NO_FILE:
                    return Bad(blob, Kind.CORRUPT_BLOB, f"cannot be read: {error.strerror}", file)
                failed = True
                self._ended.wait(RETRY_SECONDS)
            finally:
                if fd >= 0:
                    os.close(fd)

    def is_bad(self, blob: BlobToRead) -> bool:
        """Read the file that is there once more, at once. Raises OSError."""
        try:
            fd = self._blobs.open(blob.digest)
            try:
                hasher, buffer = new_hasher(), memoryview(bytearray(CHUNK))
                while count := os.readv(fd, [buffer]):
                    hasher.update(buffer[:count])
                return hasher.digest() != blob.digest
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in MEDIUM_ERRORS | NO_FILE:
                raise
            return True

    def _digest(self, fd: int, buffer: memoryview, others: Iterable[Hasher]) -> bytes:
        """From the disk, as far as nobody has the file mapped: what the page cache has may be right where
        the disk is not. And what nobody else reads shall not take the place of what somebody does."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher = new_hasher()
        hashers = (hasher, *others)
        offset = 0
        while count := os.readv(fd, [buffer]):
            for each in hashers:
                each.update(buffer[:count])
            os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)
            offset += count
            self._read(count)
            self._wait(count)
            if self._is_stopped():
                raise Interrupted
        return hasher.digest()

    def _wait(self, count: int) -> None:
        """Take the time that `count` bytes may take, the reading included."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - CREDIT_SECONDS) + count / self._rate
            delay = self._free_at - now
        while delay > 0 and not self._is_stopped():
            self._ended.wait(min(delay, STOP_SECONDS))
            delay -= STOP_SECONDS

    def _is_still_there(self, digest: bytes, fd: int) -> bool:
        try:
            there = self._blobs.status(digest)
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(fd).st_ino


def _bad(blob: BlobToRead, reason: str, file: Identity) -> Bad:
    if file.size != blob.size:
        return Bad(blob, Kind.BLOB_SIZE, f"has {file.size} bytes, should have {blob.size}", file)
    return Bad(blob, Kind.CORRUPT_BLOB, reason, file)
