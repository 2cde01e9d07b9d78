"""The filestore of a store: publishing blobs, opening them, removing them."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable

from casfs.errors import FormatError
from casfs.filestore.condemned import Condemned
from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.durable import Durable, write_whole
from casfs.filestore.hashing import hash_descriptor
from casfs.filestore.held import HeldFiles
from casfs.filestore.local import BLOB_MODE, LocalBlobs
from casfs.filestore.pending import Pending
from casfs.filestore.staging import FOLDER as STAGING
from casfs.filestore.staging import StagedFile, Staging
from casfs.space import Space


class FileStore:
    """What lies in a store besides its rows, made of parts:

    `blobs`, the place where they are; `staging`; the buffer of those that were accepted; those that are
    condemned; `held`, removed files that still take room; and `space`, which the database shares. Every
    method may be called from any thread, except those of `staging` and `space`.
    """

    def __init__(self, directory: StoreDirectory, fan_out: int) -> None:
        self.directory = directory
        self.blobs = LocalBlobs(directory, fan_out)
        self.staging = Staging(directory)
        self.held = HeldFiles(directory, self.blobs.open)
        self._pending = Pending(self.blobs.publish_bytes)
        self._condemned = Condemned(self._remove)
        self._doubtful: set[bytes] = set()
        self.space = Space(directory.statvfs, self._pending.room)

    @property
    def durable(self) -> Durable:
        """The seam that all files of the store go through."""
        return self.directory.durable

    def create(self) -> None:
        """Make the folders of a new store, durable."""
        self.staging.make_folder()
        self.blobs.create()

    def has(self, digest: bytes, size: int) -> bool:
        """Is there a file of that size for the digest, or will there be? Does not read it."""
        data = self._pending.get(digest)
        return (self.blobs.size(digest) if data is None else len(data)) == size

    # Publishing

    def publish_bytes(self, digest: bytes, data: bytes | bytearray) -> None:
        """Write `data`, whole, under its digest. Not durable before `sync_each`.

        A file that is there already is not trusted but replaced: it may be the torn rest of a crash.
        """
        self.blobs.publish_bytes({digest: data})

    def accept(self, digest: bytes, data: bytes | bytearray) -> None:
        """Take a blob whose file is made later, by `write_pending` or the first `open`. `data` must not be
        changed any more."""
        self._pending.accept(digest, data)

    @property
    def pending_are_many(self) -> bool:
        """Should blobs be published at once instead of being accepted, for what they take of memory?"""
        return self._pending.are_many

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
        self._pending.write(digests)

    def forget(self, digest: bytes) -> None:
        """Nobody wants a pending blob any more: it is not written."""
        self._pending.forget(digest)

    def publish_staged(self, digest: bytes, staged: StagedFile, *, keep_name: bool) -> None:
        """Make a staged file that was lent to nobody the blob of its digest and close it. Not durable before
        `sync_each`.

        `keep_name`: a committed row names the staged file, so it must outlive the next commit (I5);
        the caller removes it then.
        """
        assert not staged.is_lent, "who has mapped it could write to the blob (I2)"
        with self._pending.taken([digest]):
            self.blobs.publish_file(digest, staged, keep=keep_name)
        os.close(staged.fd)

    # Removing

    def remove(self, digest: bytes) -> None:
        """Remove a blob's file. Raises OSError, FileNotFoundError when there is none."""
        self.blobs.remove(digest)

    def condemn(self, digests: Iterable[bytes]) -> None:
        """Note blobs whose rows are being deleted, so that `remove_condemned` may take their files then."""
        self._condemned.add(digests)

    def spare(self, digest: bytes) -> bool:
        """Leave the file, if it was condemned, to who has that content again; False when it has gone, or was
        never condemned. Waits while it is being unlinked."""
        return self._condemned.spare(digest)

    def remove_condemned(self, digest: bytes, size: int) -> bool:
        """As `remove`, if the blob, of `size` bytes, is condemned; it is not any more then. False when it was
        spared."""
        return self._condemned.remove(digest, size)

    @property
    def has_condemned(self) -> bool:
        """Are there blobs whose files are still to go?"""
        return bool(self._condemned.digests())

    def condemned(self) -> list[bytes]:
        """Their digests."""
        return self._condemned.digests()

    def remove_all_condemned(self) -> None:
        """At the end, once their rows are gone for good: the files of batches that were cut off. Blocks.

        Raises OSError for the first that cannot be removed; the others are all the same.
        """
        self._condemned.remove_all()

    def _remove(self, digest: bytes, size: int) -> None:
        self.held.will_remove(digest, size)
        self.remove(digest)

    # Using what is there

    def open(self, digest: bytes) -> int:
        """A read-only descriptor of the blob. OSError EIO when it is missing: a row said it is there.

        The file of a pending blob is made now; if it cannot be, the descriptor is of a copy in memory. One
        that is in `doubt` is read whole before.
        """
        if digest in self._pending:
            try:
                self._pending.write([digest])
            except OSError:
                data = self._pending.get(digest)
                if data is not None:
                    return open_copy(data)
        try:
            fd = self.blobs.open(digest)
        except FileNotFoundError:
            raise OSError(errno.EIO, f"blob {digest.hex()} is missing from the filestore") from None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise OSError(errno.EIO, f"blob {digest.hex()} is no file in the filestore") from None
        if digest in self._doubtful and hash_descriptor(fd, os.fstat(fd).st_size) != digest:
            os.close(fd)
            raise OSError(errno.EIO, f"blob {digest.hex()} could not be written to the disk")
        return fd

    def doubt(self, digests: Iterable[bytes]) -> None:
        """These could not be synced. What the kernel could not write it drops from memory as if it had been,
        and then there are other bytes in the file (Documentation/core-api/errseq.rst of Linux)."""
        self._doubtful.update(digests)

    def check_folders(self) -> None:
        """Is there everything that files are written to? Raises FormatError."""
        for folder in (self.blobs.folders()[0], STAGING):
            if not self.directory.is_folder(folder):
                raise FormatError(
                    f"{self.directory.path}/{folder} is no directory", hint="casfs fsck --repair makes it one"
                )

    def may_be_lent(self, fd: int) -> bool:
        """May the file of a blob, open, become a staged file (`displace`)? Not if it has a name that is not
        known here: who wrote to it would change what is somewhere else (I2, I9)."""
        return os.fstat(fd).st_nlink == 1

    def sync_all(self) -> None:
        """Make many published blobs durable at once, by syncfs(2). Blocks, for as long as all dirty
        data of that file system takes, other programs' included."""
        self.blobs.sync_all()

    def sync_each(self, digests: Collection[bytes], staged: Collection[str] = ()) -> None:
        """Make published blobs durable, their bytes and their names (I1), and staged files, of which one that
        is gone already is no error. Blocks."""
        self.blobs.sync_bytes(digests)
        self.staging.sync(staged)
        self.blobs.sync_names(digests)
        if staged:
            self.staging.sync_names()

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
        name = Staging.new_name(lent=True)
        self.copy_to(digest, fresh, size)
        os.fchmod(fresh.fd, BLOB_MODE)
        self.durable.fdatasync(fresh.fd)
        self.blobs.link(digest, self.staging.name(name))
        try:
            lent = self.staging.reopen(name, links=2)
            if os.fstat(lent.fd).st_nlink > 2:
                os.close(lent.fd)
                raise OSError(errno.EIO, f"the file of blob {digest.hex()} has a name outside of the store")
            try:
                self.blobs.publish_file(digest, fresh, keep=False)
                os.close(fresh.fd)
                fresh.fd = -1
                self.blobs.sync_names([digest])
            except OSError:
                os.fchmod(lent.fd, BLOB_MODE)
                os.close(lent.fd)
                raise
        except OSError:
            self.staging.remove(name)
            raise
        return lent

    def take_back(self, digest: bytes, staged: StagedFile) -> bool:
        """Let a staged file that is the file of a blob, too, of which there is no row, be a staged file only;
        False when it is not, or has more names. Its descriptor is another one afterwards."""
        try:
            there = self.blobs.status(digest)
        except FileNotFoundError:
            return False
        if not os.path.samestat(there, os.fstat(staged.fd)):
            return False
        self.remove(digest)
        reopened = self.staging.reopen(staged.name)
        os.close(staged.fd)
        staged.fd = reopened.fd
        return not staged.has_other_names

    def copy_lent(self, lent: StagedFile, fresh: StagedFile, size: int) -> None:
        """Copy a staged file that programs may have mapped into an empty one, which nobody can. Blocks."""
        copy_range(lent.fd, fresh.fd, size)


def open_copy(data: bytes | bytearray) -> int:
    """A descriptor of an unnamed file in memory that holds `data`, memfd_create(2). Raises OSError."""
    fd = os.memfd_create("blob", os.MFD_CLOEXEC)
    try:
        write_whole(fd, data)
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
