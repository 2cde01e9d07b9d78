"""The files of blobs that are open for reads, and the threads that read them."""

from __future__ import annotations

import contextlib
import errno
import time
from collections import Counter
from collections.abc import Collection, Iterator

from casfs.fs.content.content import Content
from casfs.fs.core import Core
from casfs.fs.inodes import Inode

DESCRIPTOR_LIMIT = 512
"""Blobs that are kept open for the reads of open files."""


class BlobFiles:
    """Owned by the thread that runs the file system.

    `_opened`: the contents whose `blob_fd` is open, the oldest first, and some whose is not any more.
    `_threads`: blob -> how many threads read its file.
    """

    def __init__(self, core: Core) -> None:
        self._filestore = core.store.filestore
        self._blobs = core.store.namespace.blobs
        self._scheduler = core.scheduler
        self._opened: dict[Content, None] = {}
        self._threads: Counter[int] = Counter()

    def digest(self, inode: Inode) -> bytes:
        """The digest of the blob of an inode. Raises OSError EIO when it has none."""
        digest = None if inode.blob is None else self._blobs.digest(inode.blob)
        if digest is None:
            raise OSError(errno.EIO, f"inode {inode.ino} has no blob")
        return digest

    def is_there(self, blob: int) -> bool:
        """Is there such a blob? Nobody may have kept it from being collected."""
        return self._blobs.digest(blob) is not None

    async def open(self, content: Content) -> int:
        """The descriptor of the blob of sealed content, opened if it is not: `content.blob_fd`, which others
        may close while the caller waits. Raises OSError.

        May wait; who does not hold the mutex has to see whether the content is still that blob. It is -1 when
        the content has become a staged one. A wait counts as a thread (`in_thread`), and what was opened in
        it is void when the blob was closed meanwhile: its file may have become a staged one.
        """
        return self.open_now(content)

    def open_now(self, content: Content) -> int:
        """As `open`, without a wait."""
        if content.blob_fd < 0:
            content.blob_fd = self._filestore.open(self.digest(content.inode))
            self._opened.pop(content, None)  # it had one before: now it is the newest
            self._opened[content] = None
            if len(self._opened) > DESCRIPTOR_LIMIT:
                self._close_oldest()
        return content.blob_fd

    def _close_oldest(self) -> None:
        """Close half of the blobs that are open: the next read of one opens it again."""
        opened = [content for content in self._opened if content.blob_fd >= 0]
        half = len(opened) // 2
        for content in opened[:half]:
            content.close_blob()
        self._opened = dict.fromkeys(opened[half:])

    def close(self, blobs: Collection[int], *, but: Content | None = None) -> None:
        """Close these blobs, except the descriptor that one content has."""
        for content in self._opened:
            if content.inode.blob in blobs and content is not but:
                content.close_blob()

    @contextlib.contextmanager
    def in_thread(self, blob: int | None) -> Iterator[None]:
        """While a thread reads a blob's file: it must not become a staged file (passthrough.py)."""
        if blob is None:
            yield
            return
        self.enter_thread(blob)
        try:
            yield
        finally:
            self.leave_thread(blob)

    def enter_thread(self, blob: int) -> None:
        """As `in_thread`, until `leave_thread`."""
        self._threads[blob] += 1

    def leave_thread(self, blob: int) -> None:
        self._threads[blob] -= 1
        if not self._threads[blob]:
            del self._threads[blob]

    async def wait_for_threads(self, blob: int) -> None:
        """Return when no thread reads the blob's file any more."""
        while self._threads.get(blob):
            await self._scheduler.run(time.sleep, 0.001)
