"""What a policy says to the verbs: which names and contents may be changed, what becomes of what goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from casfs.fs.inodes import Inode


class Reason(StrEnum):
    """Why a file goes (schema.sql)."""

    REMOVED = "removed"
    REPLACED = "replaced"
    TRUNCATED = "truncated"


class Room(NamedTuple):
    """Bytes and files that there may be where something lies, and what is left of them; where one of the
    first two is 0 there is no limit."""

    bytes: int
    bytes_left: int
    files: int
    files_left: int


class Claims(Protocol):
    """Who compares what some files say about others with those."""

    def concern(self, inode: Inode, /) -> bool:
        """May a file be, or have, what is compared?"""

    def made(self, inode: Inode, directory: int, name: bytes, /) -> bool:
        """A file was made under that name. Is it to be compared when it is closed, written or not?"""

    async def released(self, inode: Inode, /) -> None:
        """The last handle of a file that may have written it is gone. Raises OSError."""

    async def closed(self, inode: Inode, /) -> None:
        """A file was written and closed. Raises FsError EIO."""

    async def arrives(
        self, inode: Inode, directory: int, name: bytes, /
    ) -> Callable[[], Awaitable[None]] | None:
        """A file is about to get a name. Raises FsError EIO. What it returns is called when it has it."""


class AccessTimes(Protocol):
    """Who keeps the times at which some files were last opened, not more often than once a day."""

    def due(self, inode: Inode, now_ns: int, /) -> bool:
        """A program has opened it: does its time of access move?"""

    def due_at(self, inode: Inode, now_ns: int, /) -> int:
        """Until then nobody has to ask for this file again, at most a day: it may get another place. In
        nanoseconds since 1970."""


class Policy(Protocol):
    """Asked by the verbs, inside the transaction of what they do; what it notes is undone by `forget_since`
    when that fails. Owned by the thread that runs the file system.

    `attributes`: names of extended attributes that no row has.
    """

    @property
    def attributes(self) -> Container[bytes]: ...

    def check_add(self, directory: int, name: bytes, mode: int, inode: Inode | None, /) -> object:
        """May this name be given? `mode` says what gets it, 0: a file that is to have no name yet. `inode`:
        it is there already, with all that is below it. Raises FsError."""

    def check_write(self, inode: Inode, /) -> object:
        """May a file get another content? Raises FsError."""

    def check_link(self, inode: Inode, /) -> object:
        """May a file get one more name? Raises FsError."""

    def check_attributes(self, inode: Inode, /) -> object:
        """May somebody change its attributes? Raises FsError."""

    def check_rules(self, inode: Inode, /) -> object:
        """May the rules be changed of what is a repository, or is to be one? Raises FsError."""

    def check_remove(self, directory: int, name: bytes, inode: Inode, /) -> object:
        """May what has that name be removed? A directory is empty. Raises FsError."""

    def check_replace(self, directory: int, name: bytes, inode: Inode, /) -> object:
        """May what has that name lose it to something else? Raises FsError."""

    def check_move(self, directory: int, name: bytes, inode: Inode, to: int, /) -> object:
        """May what has that name have another one, in the directory `to`? Raises FsError."""

    def check_swap(self, directory: int) -> None:
        """May something come in the place of what is moved out of a directory? Raises FsError."""

    @property
    def resizes(self) -> Callable[[Inode, int], object] | None:
        """To be called before a file gets another size, with that, if somebody has to know. Raises FsError
        EDQUOT."""

    @property
    def claims(self) -> Claims | None:
        """None while there is nothing to compare."""

    @property
    def digests(self) -> Callable[[Inode], tuple[str, ...]] | None:
        """Which further digests the content of a file is to have where it lies, besides those of every
        content; None while no place asks for any."""

    @property
    def access_times(self) -> AccessTimes | None:
        """None while no times of access are kept."""

    def room(self, inode: Inode, /) -> Room | None:
        """What there may be where that lies; None without a limit."""

    def removed(self, directory: int, inode: Inode, /) -> object:
        """A directory that was in another one has been removed."""

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

    def noted_since(self, noted: int) -> list[Any]:
        """What was noted since then, for `forget`."""

    def forget(self, noted: list[Any]) -> None:
        """That is forgotten, whatever was noted after it: what it was noted for is undone. Inside the same
        group."""

    @property
    def pending(self) -> int:
        """Rows to be written, at the most, for what is noted."""

    def flush(self, limit: int | None = None) -> None:
        """Write the rows of what is noted, about the first `limit` only. Inside a transaction. Raises
        DatabaseError."""

    def attribute(self, ino: int, name: bytes) -> bytes | None:
        """The value of one of `attributes`; None where there is none."""
