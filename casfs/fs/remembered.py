"""What the kernel may remember of directories whose names follow from others, and does not change by itself.

It keeps names for ever, as it does those of other directories; attributes too, by whose times it also knows
whether a listing is the one that it has. So before a request is answered that has changed what it may
remember, it is told. While it remembers nothing of them, whoever changes the names that others follow from
does not wait for those to follow.
"""

from __future__ import annotations

from casfs.fs.kernel import Kernel

BURST = 32
"""Changes that are followed at once, each by itself, since somebody has looked; then all attributes are
forgotten, and the next ones are free."""


class Remembered:
    """Owned by the thread that runs the file system.

    `attributes`: directories whose attributes the kernel may have. `names`: (directory, name) that stands for
    something else than it may remember, to be told by who can wait for it (fuse/caches.py).
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._followed = 0
        self.attributes: set[int] = set()
        self.names: set[tuple[int, bytes]] = set()

    def learned(self, directory: int) -> None:
        """The kernel is going to be told the attributes of a directory."""
        if not self.attributes:
            self._followed = 0
        self.attributes.add(directory)

    def changed(self, directory: int) -> None:
        """A directory has other names."""
        if directory in self.attributes:
            self.attributes.discard(directory)
            self._kernel.forget_attributes(directory)

    def followed(self) -> None:
        """A change was followed at once."""
        self._followed += 1
        if self._followed >= BURST:
            self.forget_attributes()

    def forget_attributes(self) -> None:
        """Of all directories."""
        for directory in self.attributes:
            self._kernel.forget_attributes(directory)
        self.attributes.clear()
