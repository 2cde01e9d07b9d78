"""What changes behind the kernel's back, told as it is done.

The kernel knows what became of what it has asked for. What a command does, or the file system by itself, it
has to be told, or its caches go on to show what was. `Directories` reports each change of a name here; those
that are `unseen` are collected for who tells the kernel (fuse/caches.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from casfs.fs.scheduler import Scheduler


@dataclass(slots=True, eq=False)
class Unseen:
    """Changes that the kernel has not asked for.

    `names`: (directory, name) -> the number of the inode that has no name any more, or 0. `inos`: inodes
    whose attributes or, of directories, names have changed. `held`: may the kernel know names of that
    directory? None: of every one.
    """

    held: Callable[[int], bool] | None = None
    names: dict[tuple[int, bytes], int] = field(default_factory=dict)
    inos: set[int] = field(default_factory=set)


_current: ContextVar[Unseen | None] = ContextVar("unseen", default=None)
"""Of the task that runs: a request of the kernel that is served meanwhile has none."""


class Changes:
    """The feed. Owned by the thread that runs the file system.

    `collecting`: how many collect what is unseen. While nobody does, nothing has to be reported. `_later`:
    directories that have got names by no command.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.collecting = 0
        self._later: set[int] = set()
        self._more = scheduler.event()

    @contextmanager
    def unseen(self, held: Callable[[int], bool] | None = None) -> Iterator[Unseen]:
        """Collect what the task does inside: the kernel has not asked for it."""
        unseen = Unseen(held)
        before = _current.set(unseen)
        self.collecting += 1
        try:
            yield unseen
        finally:
            self.collecting -= 1
            _current.reset(before)

    def name(self, directory: int, name: bytes, gone: int = 0) -> None:
        """A name was given, taken away, or stands for something else. `gone`: the number of the inode that it
        was the last name of."""
        unseen = _current.get()
        if unseen is not None and (unseen.held is None or unseen.held(directory)):
            key = directory, name
            unseen.names[key] = gone or unseen.names.get(key, 0)
            unseen.inos.add(directory)

    def inode(self, ino: int) -> None:
        """The attributes of an inode have changed."""
        unseen = _current.get()
        if unseen is not None and unseen.held is None:
            unseen.inos.add(ino)

    def names_later(self, directory: int) -> None:
        """A directory has got names, which no command has to wait for."""
        self._later.add(directory)
        self._more.set()

    async def later(self) -> list[int]:
        """Wait for directories that have got such names. For one task."""
        await self._more.wait()
        self._more = self._scheduler.event()
        later, self._later = self._later, set()
        return list(later)
