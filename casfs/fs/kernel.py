"""What the file system may have to ask of the kernel that shows it, in the middle of a request."""

from __future__ import annotations

from typing import Protocol


class Kernel(Protocol):
    """The kernel of one mount."""

    def forget_attributes(self, ino: int) -> None:
        """A request has changed attributes of an inode that its answer does not tell of. At once, on the
        event loop's thread."""

    def write_back(self, ino: int) -> None:
        """Have what mappings have left in the page cache written here. Blocks until that is done, in a
        thread, while the requests are served."""


class NoKernel:
    """Of a store that nobody has mounted."""

    def forget_attributes(self, ino: int) -> None:
        """Nobody remembers any."""

    def write_back(self, ino: int) -> None:
        """Nobody has a mapping."""
