"""Staged files: content that is being written and is not yet a blob.

They live on the file system of `blobs/`, so that publishing one is a rename. A staged file that no
committed row names is rubbish after a crash; one that a row names holds data somebody has fsynced.
"""

from __future__ import annotations

import errno
import os

from casfs.filestore.durable import Durable

POOL_SIZE = 32
"""Emptied staged files kept for the next writer: ext4 reuses freed inodes slowly, a truncate is cheap."""


class StagedFile:
    """One staged file, open read-write. Owned by the one open content that writes it."""

    __slots__ = ("fd", "name")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd


class Staging:
    """The folder of staged files. Used from the thread that owns the namespace only."""

    def __init__(self, root: str, durable: Durable) -> None:
        self.root = root
        self._durable = durable
        self._pool: list[StagedFile] = []

    def path(self, name: str) -> str:
        """Raises OSError EIO for a name no staged file has: rows may be damaged, or hostile (I9)."""
        if name in ("", ".", "..") or "/" in name:
            raise OSError(errno.EIO, f"{name!r} is not the name of a staged file")
        return f"{self.root}/{name}"

    def create(self) -> StagedFile:
        """An empty staged file, from the pool when it has one."""
        if self._pool:
            return self._pool.pop()
        name = self.new_name()
        return StagedFile(name, self._durable.create(self.path(name), 0o600))

    @staticmethod
    def new_name() -> str:
        return os.urandom(8).hex()

    def reopen(self, name: str) -> StagedFile:
        """A staged file that a committed row names. Raises OSError EIO when it is missing.

        It has the mode of a blob when a crash came between its publication and the commit.
        """
        path = self.path(name)
        try:
            os.chmod(path, 0o600)
            return StagedFile(name, os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            raise OSError(errno.EIO, f"staged content {name} is missing") from None

    def drop(self, staged: StagedFile) -> None:
        """Forget content that no row names; the file goes to the pool."""
        if len(self._pool) < POOL_SIZE:
            os.ftruncate(staged.fd, 0)
            self._pool.append(staged)
        else:
            os.close(staged.fd)
            self._durable.unlink(self.path(staged.name))

    def remove(self, name: str) -> None:
        """Remove a staged file by its name; one that is gone already is no error."""
        try:
            self._durable.unlink(self.path(name))
        except FileNotFoundError:
            return

    def names(self) -> list[str]:
        return os.listdir(self.root)

    def usage(self) -> tuple[int, int]:
        """Number of staged files that hold something, and the bytes they occupy on disk."""
        count = size = 0
        with os.scandir(self.root) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                if stat.st_size:
                    count += 1
                    size += stat.st_blocks * 512
        return count, size

    def close(self) -> None:
        """Remove the pool: a store that is not in use has no empty staged files."""
        for staged in self._pool:
            os.close(staged.fd)
            self.remove(staged.name)
        self._pool.clear()
