"""What a policy says to the verbs: which names and contents may be changed, what becomes of what goes."""

from __future__ import annotations

from collections.abc import Callable, Container
from enum import StrEnum
from typing import Protocol

from casfs.fs.inodes import Inode


class Reason(StrEnum):
    """Why a file goes (schema.sql)."""

    REMOVED = "removed"
    REPLACED = "replaced"
    TRUNCATED = "truncated"


class Policy(Protocol):
    """Asked by the verbs, inside the transaction of what they do; what it notes is undone by `forget_since`
    when that fails. Owned by the thread that runs the file system.

    `attributes`: names of extended attributes that no row has.
    """

    @property
    def attributes(self) -> Container[bytes]: ...

    def check_add(self, directory: int, name: bytes) -> None:
        """May this name be given? Raises FsError EPERM."""

    def check_change(self, ino: int) -> None:
        """May a file get another content, or one more name? Raises FsError EPERM."""

    def check_leave(self, ino: int) -> None:
        """May a directory lose its name? Raises FsError EPERM."""

    def check_swap(self, directory: int) -> None:
        """May something come in the place of what is moved out of a directory? Raises FsError EPERM."""

    def keeps(self, since_ns: int) -> bool:
        """May what is there since then be kept when it goes? Then its content is sealed before."""

    def leaves(self, inode: Inode, directory: int, name: bytes, uid: int, reason: Reason) -> None:
        """A file is about to lose that name, by what user `uid` does."""

    def truncates(self, inode: Inode, uid: int) -> None:
        """A file is about to be cut to nothing by user `uid`."""

    def check_directory(self, above: int) -> None:
        """May a directory come to be in that one? Raises FsError EACCES."""

    def moves(
        self, inode: Inode, directory: int, name: bytes, to: int, new_name: bytes, other: Inode | None
    ) -> Callable[[], object] | None:
        """Something is about to get another name, or to change it for that of `other`: what rows have to
        change with that, if any. It is called last."""

    @property
    def lags(self) -> bool:
        """Has a store of before to be changed at the start?"""

    def catch_up(self) -> None:
        """Change it. Inside a transaction, before the kernel knows of anything."""

    def access_changed(self, ino: int) -> None:
        """A directory has another mode, owner or access list. Inside the transaction of that."""

    def noted(self) -> int:
        """How much is noted of what goes."""

    def forget_since(self, noted: int) -> None:
        """What was noted since then is forgotten: what it was noted for has failed."""

    @property
    def pending(self) -> int:
        """Rows to be written, at the most, for what is noted."""

    def flush(self, limit: int | None = None) -> None:
        """Write the rows of what is noted, about the first `limit` only. Inside a transaction. Raises
        DatabaseError."""

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        """The value of one of `attributes`; None where there is none."""
