"""Staged files: content that is being written and is not yet a blob.

They live on the file system of `blobs/`, so that publishing one is a rename. A staged file that no
committed row names is rubbish after a crash; one that a row names holds data somebody has fsynced.

A name that ends in `-lent` is that of a file the kernel was given as a backing file for handles that may
write (fs/content/passthrough.py): a program's mapping of it can outlive everything the daemon knows, the
daemon itself too. It never becomes a blob (I2), and is never used for another content.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress

from casfs.filestore.directory import NO_FILE, WRITE, StoreDirectory
from casfs.filestore.lease import others_may_write

FOLDER = "staging"

POOL_SIZE = 32
"""Emptied staged files kept for the next writer: ext4 reuses freed inodes slowly, a truncate is cheap."""

NAME_BYTES = 64
"""Length of the name of a staged file at the most; ours have 21 bytes."""

RESERVE = 1024
"""Descriptors of the process, or a quarter of them, that staged files leave to the commit and to readers: any
user may keep as many files open as there are."""

LENT = "-lent"
"""End of the name of a staged file that programs may have mapped."""


class StagedFile:
    """One staged file, open read-write. Owned by the one open content that writes it.

    `read_only`: it can only be read, since it may be the file of something else, too, or could not be opened
    otherwise; who wants to write takes a copy.
    """

    __slots__ = ("fd", "name", "read_only")

    def __init__(self, name: str, fd: int, *, read_only: bool = False) -> None:
        self.name = name
        self.fd = fd
        self.read_only = read_only

    @property
    def has_other_names(self) -> bool:
        """Is it the file of something else, too, which nobody may change?"""
        return os.fstat(self.fd).st_nlink > 1

    @property
    def path(self) -> str:
        """Where it is, below STORE."""
        return f"{FOLDER}/{self.name}"

    @property
    def is_lent(self) -> bool:
        """May a program have mapped it, and write to it?"""
        return self.name.endswith(LENT)


class Staging:
    """The folder of staged files. Used from the thread that owns the namespace only."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._directory = directory
        self._pool: list[StagedFile] = []

    def name(self, name: str) -> str:
        """Where a staged file is, below STORE. Raises OSError EIO for a name no staged file has: rows may be
        damaged, or hostile (I9)."""
        if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > NAME_BYTES:
            raise OSError(errno.EIO, f"{name!r} is not the name of a staged file")
        return f"{FOLDER}/{name}"

    def path(self, name: str) -> str:
        """The same, from the root of the machine's files, for people to read."""
        return f"{self._directory.path}/{self.name(name)}"

    def make_folder(self) -> None:
        """In a new store; not durable."""
        self._directory.make_folder(FOLDER)

    def create(self) -> StagedFile:
        """An empty staged file, from the pool when it has one. Raises OSError, EMFILE when they take too many
        descriptors."""
        if self._pool:
            return self._pool.pop()
        name = self.new_name()
        fd = self._directory.create(self.name(name), 0o600)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if fd >= limit - min(RESERVE, limit // 4):  # open(2) gives the lowest that is free
            os.close(fd)
            self.remove(name)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return StagedFile(name, fd)

    @staticmethod
    def new_name(*, lent: bool = False) -> str:
        return os.urandom(8).hex() + (LENT if lent else "")

    def reopen(self, name: str, *, links: int = 1) -> StagedFile:
        """A staged file that a committed row names. Raises OSError EIO when it is missing, or no file.

        With a second name, `has_other_names`, it is open for reading only: it may be the file of a blob, when
        a crash came between its publication and the commit, or any file outside of STORE (I9). It has the
        mode of a blob then, or when that name went before the crash.
        """
        path = self.name(name)
        try:
            fd = self._directory.open(path)
            try:
                if os.fstat(fd).st_nlink > links:
                    return StagedFile(name, os.dup(fd), read_only=True)
                try:
                    return StagedFile(name, self._directory.open(path, WRITE))
                except PermissionError:
                    os.fchmod(fd, 0o600)
                    return StagedFile(name, self._directory.open(path, WRITE))
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise OSError(errno.EIO, f"staged content {name} is missing") from None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            raise OSError(errno.EIO, f"staged content {name} is no file") from None

    def open_again(self, staged: StagedFile) -> int:
        """Another descriptor of a staged file, to read it. Raises OSError."""
        return self._directory.open(self.name(staged.name))

    def others_may_write(self, staged: StagedFile) -> bool:
        """May a program still write to the file, by a mapping? Nobody else may use its descriptor meanwhile:
        it is another one afterwards. Raises OSError when the file cannot be opened anew; it is `read_only`
        then."""
        path = self.name(staged.name)
        reader = self._directory.open(path)
        try:
            os.close(staged.fd)
            staged.fd, staged.read_only = reader, True
            written = others_may_write(reader)
            staged.fd, staged.read_only = self._directory.open(path, WRITE), False
            return written
        finally:
            if staged.fd != reader:
                os.close(reader)

    def drop(self, staged: StagedFile) -> None:
        """Forget content that no row names; the file goes to the pool, if nobody else may have it."""
        if len(self._pool) < POOL_SIZE and not staged.is_lent and not staged.read_only:
            os.ftruncate(staged.fd, 0)
            self._pool.append(staged)
        else:
            os.close(staged.fd)
            self._directory.unlink(self.name(staged.name))

    def remove(self, name: str) -> None:
        """Remove a staged file by its name; one that is gone already is no error."""
        try:
            self._directory.unlink(self.name(name))
        except FileNotFoundError:
            return

    def names(self) -> list[str]:
        return self._directory.names(FOLDER)

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Whatever lies in the folder; nothing if there is none."""
        return self._directory.entries(FOLDER)

    def sync(self, names: Iterable[str]) -> None:
        """Make the bytes of staged files durable; one that is gone already is no error. Blocks."""
        for name in names:
            with suppress(FileNotFoundError):
                self._directory.sync(self.name(name))

    def sync_names(self) -> None:
        """Make durable which staged files there are. Blocks."""
        self._directory.sync(FOLDER)

    def usage(self) -> tuple[int, int]:
        """Number of staged files that hold something, and the bytes they occupy on disk."""
        count = size = 0
        for _, status in self.entries():
            if status.st_size:
                count += 1
                size += status.st_blocks * 512
        return count, size

    def close(self) -> None:
        """Remove the pool: a store that is not in use has no empty staged files."""
        for staged in self._pool:
            os.close(staged.fd)
            self.remove(staged.name)
        self._pool.clear()
