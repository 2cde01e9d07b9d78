"""Publishing, opening and enumerating blobs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from casfs.filestore.claims import Claims, Left
from casfs.filestore.durable import Durable
from casfs.filestore.held import HeldFiles
from casfs.filestore.paths import BlobPaths
from casfs.filestore.staging import StagedFile, Staging
from casfs.types import Digest

BLOB_MODE = 0o400
"""Blobs are private to the store's owner and never written again (I2)."""

FILE_ROOM = 4096
"""Bytes that a file takes on disk besides its content, at the most: the rest of its last block."""

PENDING_LIMIT = 64 << 20
"""Bytes of accepted blobs that may wait in memory to be written; beyond it they are written at once."""

PENDING_COUNT = 20_000
"""And so many blobs: each is a directory entry and an inode that the next commit has to make."""

WRITE_BATCH = 64
"""Pending blobs written in one go, some 4 ms: so long a reader of one of them may have to wait."""


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A file found under `blobs/`; `digest` is None when its name is not one."""

    path: str
    digest: Digest | None
    size: int


class FileStore(Claims):
    """The blobs below `root`. Every method may be called from any thread, except those of `staging` and
    `Claims`."""

    def __init__(self, root: str, fan_out: int, durable: Durable | None = None) -> None:
        super().__init__(root)
        self.durable = durable or Durable()
        self.paths = BlobPaths(f"{root}/blobs", fan_out)
        self.staging = Staging(f"{root}/staging", self.durable)
        self._pending: dict[bytes, bytes | bytearray] = {}
        self._pending_room = 0
        self._writing: set[bytes] = set()
        self._written = threading.Condition(threading.Lock())
        self._condemned: set[bytes] = set()
        self._condemning = threading.Lock()
        self.held = HeldFiles(self.paths.root)

    def create(self) -> None:
        """Make the folders of a new store, durable."""
        os.mkdir(self.paths.root, 0o700)
        os.mkdir(self.staging.root, 0o700)
        for shard in self.paths.shards():
            os.mkdir(shard, 0o700)
        self.durable.fsync_path(self.paths.root)
        self.durable.fsync_path(self.root)

    def has(self, digest: bytes, size: int) -> bool:
        """Is there a file of that size for the digest, or will there be? Does not read it."""
        pending = self._pending.get(digest)
        if pending is not None:
            return len(pending) == size
        try:
            return os.stat(self.paths.blob(digest), follow_symlinks=False).st_size == size
        except FileNotFoundError:
            return False

    # Publishing

    def publish_bytes(self, digest: bytes, data: bytes | bytearray) -> None:
        """Write `data`, whole, under its digest. Not durable before `sync_each`.

        Written where it stays: a rename would cost as much again, and until its row is committed, which
        is after it is durable (I1), a blob file is nobody's anyhow. For the same reason a file that is
        there already is not trusted but replaced: it may be the torn rest of a crash.
        """
        self.durable.write_files([(self.paths.blob(digest), data, BLOB_MODE)])

    def accept(self, digest: bytes, data: bytes | bytearray) -> None:
        """Take a blob whose file is made later, by `write_pending` or the first `open`: a file costs more
        than all else about a small blob. `data` must not be changed any more."""
        with self._written:
            self._pending[digest] = data
            self._pending_room += len(data) + FILE_ROOM

    @property
    def waiting(self) -> Left:
        return Left(self._pending_room, len(self._pending))

    @property
    def pending_are_many(self) -> bool:
        """Should blobs be published at once instead of being accepted, for what they take of memory?"""
        return len(self._pending) >= PENDING_COUNT or self._pending_room >= PENDING_LIMIT

    def is_pending(self, digest: bytes) -> bool:
        """Was the blob accepted and not yet written?"""
        return digest in self._pending

    @property
    def has_pending(self) -> bool:
        """Are there blobs that were accepted and not yet written?"""
        return bool(self._pending)

    def accepted(self, digest: bytes) -> bytes | bytearray | None:
        """The content of a pending blob; None when it is not pending any more."""
        return self._pending.get(digest)

    def write_pending(self, digests: list[bytes]) -> None:
        """Write those of the blobs that are pending. Not durable before `sync_each`. Blocks.

        Raises OSError; what was not written, and maybe some that was, is pending as before.
        """
        for start in range(0, len(digests), WRITE_BATCH):
            with self._taken(digests[start : start + WRITE_BATCH]) as blobs:
                self.durable.write_files(
                    [(self.paths.blob(digest), data, BLOB_MODE) for digest, data in blobs.items()]
                )

    def forget(self, digest: bytes) -> None:
        """Nobody wants a pending blob any more: it is not written."""
        with self._taken([digest]):
            pass

    @contextmanager
    def _taken(self, digests: list[bytes]) -> Iterator[dict[bytes, bytes | bytearray]]:
        """Those of the blobs that are pending; no other thread writes them meanwhile.

        Left without an exception, they are pending no more.
        """
        with self._written:
            self._written.wait_for(lambda: self._writing.isdisjoint(digests))
            blobs = {digest: self._pending[digest] for digest in digests if digest in self._pending}
            self._writing.update(digests)
        done: Iterable[bytes] = ()
        try:
            yield blobs
            done = blobs
        finally:
            with self._written:
                for digest in done:
                    self._pending_room -= len(self._pending.pop(digest)) + FILE_ROOM
                self._writing.difference_update(digests)
                self._written.notify_all()

    def publish_staged(self, digest: bytes, staged: StagedFile, *, keep_name: bool) -> None:
        """Make a staged file that was lent to nobody the blob of its digest and close it. Not durable before
        `sync_each`.

        `keep_name`: a committed row names the staged file, so it must outlive the next commit (I5);
        the caller removes it then.
        """
        assert not staged.is_lent, "who has mapped it could write to the blob (I2)"
        source, target = self.staging.path(staged.name), self.paths.blob(digest)
        os.fchmod(staged.fd, BLOB_MODE)
        with self._taken([digest]):
            if keep_name:
                try:
                    self.durable.link(source, target)
                except FileExistsError:
                    self.durable.unlink(target)
                    self.durable.link(source, target)
            else:
                self.durable.rename(source, target)
        os.close(staged.fd)

    # Removing

    def remove(self, digest: bytes) -> None:
        """Unlink the file of a blob. Raises OSError, FileNotFoundError when there is none."""
        self.durable.unlink(self.paths.blob(digest))

    def condemn(self, digests: Iterable[bytes]) -> None:
        """Note blobs whose rows are being deleted, so that `remove_condemned` may take their files then."""
        with self._condemning:
            self._condemned.update(digests)

    def spare(self, digest: bytes) -> bool:
        """Leave the file, if it was condemned, to who has that content again; False when it has gone, or was
        never condemned. Waits while it is being unlinked."""
        if digest not in self._condemned:
            return False
        with self._condemning:
            if digest not in self._condemned:
                return False
            self._condemned.discard(digest)
            return True

    def remove_condemned(self, digest: bytes, size: int) -> bool:
        """As `remove`, if the blob, of `size` bytes, is condemned; it is not any more then. False when it was
        spared."""
        with self._condemning:
            if digest not in self._condemned:
                return False
            try:
                self.held.will_remove(self.paths.blob(digest), size)
                self.remove(digest)
            finally:
                self._condemned.discard(digest)
        return True

    def remove_all_condemned(self) -> None:
        """At the end, once their rows are gone for good: the files of batches that were cut off. Blocks.

        Raises OSError for the first that cannot be removed; the others are all the same.
        """
        failed: list[OSError] = []
        for digest in list(self._condemned):
            try:
                self.remove_condemned(digest, 0)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    # Using what is there

    def open(self, digest: bytes) -> int:
        """A read-only descriptor of the blob. OSError EIO when it is missing: a row said it is there.

        The file of a pending blob is made now; if it cannot be, the descriptor is of a copy in memory.
        """
        if digest in self._pending:
            try:
                self.write_pending([digest])
            except OSError:
                data = self._pending.get(digest)
                if data is not None:
                    return open_copy(data)
        try:
            return os.open(self.paths.blob(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise OSError(errno.EIO, f"blob {digest.hex()} is missing from the filestore") from None

    def sync_all(self) -> None:
        """Make many published blobs durable at once, by syncfs(2). Blocks, for as long as all dirty
        data of that file system takes, other programs' included."""
        self.durable.syncfs(self.paths.root)

    def sync_each(self, digests: Collection[bytes], staged: Collection[str] = ()) -> None:
        """Make published blobs durable, their bytes and their names (I1), and staged files, of which one that
        is gone already is no error. Blocks."""
        for digest in digests:
            self.durable.fsync_path(self.paths.blob(digest))
        for name in staged:
            with suppress(FileNotFoundError):
                self.durable.fsync_path(self.staging.path(name))
        folders = {self.paths.shard(digest) for digest in digests}
        for folder in sorted(folders | ({self.staging.root} if staged else set())):
            self.durable.fsync_path(folder)

    def copy_to(self, digest: bytes, staged: StagedFile, length: int) -> None:
        """Copy the first `length` bytes of a blob into an empty staged file, in the kernel. Blocks."""
        source = self.open(digest)
        try:
            copy_range(source, staged.fd, length)
        finally:
            os.close(source)

    def displace(self, digest: bytes, fresh: StagedFile, size: int) -> StagedFile:
        """Make a blob's file a staged file, and `fresh`, an empty staged file, the blob with a copy. Blocks.

        Durable before it returns, since who asked is going to write to the file: power must not
        come back to a blob with another content (I2). Raises OSError; then the blob is as it was, or, when
        `fresh` is closed (fd -1), is the copy, and maybe not durable.
        """
        path, name = self.paths.blob(digest), Staging.new_name(lent=True)
        self.copy_to(digest, fresh, size)
        os.fchmod(fresh.fd, BLOB_MODE)
        self.durable.fdatasync(fresh.fd)
        self.durable.link(path, self.staging.path(name))
        try:
            lent = self.staging.reopen(name)
            try:
                self.durable.rename(self.staging.path(fresh.name), path)
                os.close(fresh.fd)
                fresh.fd = -1
                self.durable.fsync_path(self.paths.shard(digest))
            except OSError:
                os.close(lent.fd)
                raise
        except OSError:
            self.staging.remove(name)
            raise
        return lent

    def copy_lent(self, lent: StagedFile, fresh: StagedFile, size: int) -> None:
        """Copy a staged file that programs may have mapped into an empty one, which nobody can. Blocks."""
        copy_range(lent.fd, fresh.fd, size)

    def enumerate(self) -> Iterator[BlobFile]:
        """Every file below `blobs/`, shard by shard, in order of the shards."""
        for shard in self.paths.shards():
            try:
                entries = os.scandir(shard)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    size = entry.stat(follow_symlinks=False).st_size
                    yield BlobFile(entry.path, self.paths.digest_of(entry.path), size)


def open_copy(data: bytes | bytearray) -> int:
    """A descriptor of an unnamed file in memory that holds `data`, memfd_create(2). Raises OSError."""
    fd = os.memfd_create("blob", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, data, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def copy_range(source: int, target: int, length: int, offset: int = 0, target_offset: int = 0) -> None:
    """Copy `length` bytes from one descriptor to another, holes as data. Blocks.

    copy_file_range(2) shares extents where the file system can (XFS and btrfs with reflink).
    """
    done = 0
    while done < length:
        copied = os.copy_file_range(source, target, length - done, offset + done, target_offset + done)
        if copied == 0:
            raise OSError(errno.EIO, f"content ends after {offset + done} of {offset + length} bytes")
        done += copied
