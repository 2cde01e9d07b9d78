"""The table of open contents: which inodes have one, who has a handle of it, and when it is closed."""

from __future__ import annotations

from collections.abc import Iterator

from casfs.fs.content.content import Content, Handle
from casfs.fs.content.staged import StagedContents
from casfs.fs.core import Core
from casfs.fs.inodes import Inode


class OpenContents:
    """Owned by the thread that runs the file system, and with it `Inode.content`.

    `_contents`: inode number -> the content of what is open, or not sealed yet.
    """

    def __init__(self, core: Core, staged: StagedContents) -> None:
        self._staged = staged
        self._scheduler = core.scheduler
        self._contents: dict[int, Content] = {}

    def __iter__(self) -> Iterator[Content]:
        return iter(self._contents.values())

    def find(self, inode: Inode) -> Content | None:
        """The content of an inode while it is open, or not sealed yet."""
        return self._contents.get(inode.ino)

    def get(self, inode: Inode) -> Content:
        """The content of a regular file, which `close_if_idle` closes again. Raises OSError EIO when its
        staged file is gone."""
        content = self._contents.get(inode.ino)
        if content is None:
            content = Content(inode, self._scheduler)
            if inode.staged is not None:
                self._staged.reopen(content, inode.staged)
            inode.content = self._contents[inode.ino] = content
        return content

    def open(self, inode: Inode, writable: bool, uid: int) -> Handle:
        """A handle of a regular file. Raises OSError as `get`, and for who wants to write when what was
        written before can be neither sealed nor kept."""
        content = self.get(inode)
        if content.broken and writable:
            raise OSError(content.broken, f"what was written to inode {inode.ino} cannot be kept")
        content.handles += 1
        content.writers += writable
        return Handle(inode, content, writable, uid)

    def close_all(self, inode: Inode) -> None:
        """The mount has gone: the kernel does not send each RELEASE that is left to send then."""
        content = self.find(inode)
        if content is not None:
            content.handles = content.writers = 0

    def close_if_idle(self, content: Content, *, gone: bool = False) -> None:
        """`gone`: the inode goes. Until then what is dirty stays, also without a name: the kernel may still
        open it for who has a descriptor of it (O_PATH), and its row says what it would be without it. So does
        what is lent to mappings that may have outlived their handles."""
        if content.handles or content.mutex.busy or ((content.dirty or content.backing) and not gone):
            return
        content.close_blob()
        if content.is_staged:  # what no row names may also be a copy for a change that was refused
            self._staged.drop(content)
        if content.inode.content is content:
            content.inode.content = None
            del self._contents[content.inode.ino]

    def is_open(self, ino: int) -> bool:
        """Has anybody a handle of that inode?"""
        content = self._contents.get(ino)
        return content is not None and content.handles > 0

    @property
    def handles(self) -> int:
        """How many handles there are of all files."""
        return sum(content.handles for content in self._contents.values())

    @property
    def writable(self) -> list[int]:
        """The numbers of the inodes that are open for writing."""
        return [ino for ino, content in self._contents.items() if content.writers]

    @property
    def unsealed(self) -> int:
        """Files whose content is staged."""
        return sum(content.dirty for content in self._contents.values())
