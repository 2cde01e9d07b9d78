"""What the file system may have to ask of the kernel that shows it, in the middle of a request."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Backings(Protocol):
    """What registers backing files with the kernel. Raises OSError."""

    def backing_open(self, fd: int) -> int: ...
    def backing_close(self, backing: int) -> None: ...


class Kernel(Protocol):
    """The kernel of one mount. Used on the event loop's thread, but for `write_back` and `forget_name`.

    `backings`: None while nothing can be passed through, or no more. `trusts_leases`: do leases tell who has
    a file of the store mapped? Not on a stacked file system, whose files are not those that are mapped.
    """

    backings: Backings | None
    trusts_leases: bool

    def answer(self, result: object, /) -> object:
        """Before a verb writes rows that cannot be refused any more: what its request is answered with."""

    def answers_held(self) -> AbstractContextManager[None]:
        """Inside `answer` does nothing: what has been asked is answered at its end."""

    def groups(self, uid: int) -> frozenset[int]:
        """All groups of user `uid`, who has asked, as far as they are known. Blocks for a moment."""

    def forget_attributes(self, ino: int) -> bool:
        """A request has changed attributes of an inode that its answer does not tell of. At once, on the
        event loop's thread. False when the kernel does not know the inode."""

    def forget_name(self, directory: int, name: bytes) -> object:
        """A request that keeps nobody from that directory has changed what a name stands for. Blocks, in a
        thread, while the requests are served."""

    def write_back(self, ino: int) -> None:
        """Have what mappings have left in the page cache written here. Blocks until that is done, in a
        thread, while the requests are served."""


class NoKernel:
    """Of a store that nobody has mounted."""

    def __init__(self) -> None:
        self.backings: Backings | None = None
        self.trusts_leases = True

    def answer(self, result: object, /) -> object:
        """Nobody has asked."""

    def answers_held(self) -> AbstractContextManager[None]:
        """Nobody has asked."""
        return nullcontext()

    def groups(self, uid: int) -> frozenset[int]:
        """Nobody has asked."""
        return frozenset()

    def forget_attributes(self, ino: int) -> bool:
        """Nobody remembers any."""
        return False

    def forget_name(self, directory: int, name: bytes) -> object:
        """Nobody remembers any."""

    def write_back(self, ino: int) -> None:
        """Nobody has a mapping."""
