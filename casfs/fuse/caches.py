"""The kernel's caches: the one place that tells it what it does not know by itself (fs/changes.py)."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyfuse3
import trio

from casfs.fs.changes import Unseen
from casfs.fs.filesystem import FileSystem
from casfs.fs.kernel import Backings
from casfs.fs.scheduler import Event
from casfs.fuse import accelerator
from casfs.fuse.callers import CALLER, groups_of
from casfs.fuse.options import MountOptions

log = logging.getLogger(__name__)


class MountKernel:
    """The kernel, as fs/kernel.py wants it.

    `native`: the accelerator that the requests come through, if any; `plain`: why there is none. `depth`: of
    the file systems below the store, 1 when it is not a stacked one. `answer`: replies at once where a mount
    does not promise that what is answered is durable.
    """

    def __init__(self, store: str, options: MountOptions) -> None:
        self.native, self.plain = accelerator.chosen(options.native, pyfuse3.__file__)
        self.backings: Backings | None = None
        self.depth = self.native.stack_depth(store) if self.native else 1
        self.trusts_leases = self.depth == 1
        early = self.native is not None and options.commit_interval > 0
        self._answer = self.native.reply_early if self.native is not None and early else _answered_later
        self._holding = 0
        self.answer: Callable[[object], object] = self._answer

    @contextmanager
    def answers_held(self) -> Iterator[None]:
        """As `Kernel.answers_held`."""
        self._holding += 1
        self.answer = _answered_later
        try:
            yield
        finally:
            self._holding -= 1
            if not self._holding:
                self.answer = self._answer

    def groups(self, uid: int) -> frozenset[int]:
        """As `Kernel.groups`, of the program whose request the task serves."""
        return groups_of(self._caller(), uid)

    def _caller(self) -> int:
        return CALLER.get() or (self.native.caller() if self.native is not None else 0)

    def forget_attributes(self, ino: int) -> bool:
        """As `Kernel.forget_attributes`: without its pages the kernel waits for nothing
        (fuse_reverse_inval_inode, fs/fuse/inode.c)."""
        return _unless_unknown(pyfuse3.invalidate_inode, ino, True)

    def forget_name(self, directory: int, name: bytes) -> bool:
        """As `Kernel.forget_name`."""
        return _unless_unknown(pyfuse3.invalidate_entry, directory, name)

    def write_back(self, ino: int) -> None:
        """As `Kernel.write_back`. Not on the event loop's thread, which serves the writes, nor in a request
        that changes the size: they wait for its end (fuse_set_nowrite, fs/fuse/dir.c)."""
        _unless_unknown(pyfuse3.invalidate_inode, ino, False)


def _answered_later(result: object) -> None:
    """The request is answered when its verb has ended."""


PATIENCE_SECONDS = 0.2
"""So long a request waits until the kernel has been told, before it is answered anyway."""


@dataclass(frozen=True, slots=True, eq=False)
class Telling:
    """A request that is answered when the kernel has been told `names`, which sets `done`, or at the time
    `until`. `held`: the directories that the kernel keeps others from so long."""

    held: frozenset[int]
    names: list[tuple[int, bytes]]
    until: float
    done: Event

    @property
    def wanted(self) -> set[int]:
        """The directories that it waits for, until others are answered that hold them."""
        return {directory for directory, _ in self.names}


def may_wait(directory: int, held: frozenset[int], telling: Iterable[Telling]) -> bool:
    """May a request that holds `held` wait for a directory? Not when who holds it waits, whoever is between
    them, for this one: none of them would ever be answered."""
    reached, waiting = {directory}, list(telling)
    while held.isdisjoint(reached):
        found = [each for each in waiting if not each.held.isdisjoint(reached)]
        if not found:
            return True
        waiting = [each for each in waiting if each not in found]
        reached.update(*(each.wanted for each in found))
    return False


class KernelCaches:
    """What one mount's kernel remembers: names, attributes, pages. Used from the event loop's thread; the
    kernel is told by others, since it may have to wait for a request on the same directory, which this loop
    serves (pyfuse3.invalidate_entry).

    `_telling`: who waits for the kernel now; `_watched`: is there a task that lets those go on who have
    waited too long?
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._telling: list[Telling] = []
        self._watched = False

    async def run(self) -> None:
        """Tell of directories that have got names by no command. Until cancelled."""
        while True:
            later = await self._fs.changes.later()
            try:
                await self.tell(frozenset())
                await self.invalidate(later)
            except OSError as error:
                log.warning("the kernel may show what was in %d directories: %s", len(later), error)

    @asynccontextmanager
    async def invalidated(self, held: Callable[[int], bool] | None = None) -> AsyncIterator[None]:
        """Invalidate what is changed inside, whether that ends well or not. `held` as in `Unseen`."""
        with self._fs.changes.unseen(held) as unseen:
            try:
                yield
            finally:
                await self._invalidate(unseen)
                if self._fs.nodes.derived and (unseen.names or unseen.inos):
                    await next(iter(self._fs.nodes.derived.values())).settle(None)
                    await self.tell(frozenset())

    @asynccontextmanager
    async def names_invalidated(self, held: frozenset[int]) -> AsyncIterator[None]:
        """As `invalidated`, inside a request that holds those directories: who waits for its answer holds the
        inodes that have lost names too, so that those are only forgotten by him; but what the kernel does not
        know goes at once."""
        with self._fs.changes.unseen() as unseen:
            try:
                yield
            finally:
                self._fs.remembered.names.update(unseen.names)
                await self.tell(held)
                await self.invalidate({directory for directory, _ in unseen.names})
                kernel, gone = self._fs.kernel, filter(None, unseen.names.values())
                await self._fs.tree.forget([ino for ino in gone if not kernel.forget_attributes(ino)])

    async def tell(self, held: frozenset[int]) -> None:
        """Of names that stand for something else; not of those in directories that a request holds which
        waits for this, or for which another request would have to be answered that waits for this one: those
        come after it. So do those that take too long: programs that wait for files which a request holds may
        hold directories themselves, and no request says so."""
        names = self._fs.remembered.names
        told = [name for name in names if may_wait(name[0], held, self._telling)]
        names.difference_update(told)
        if told and not held:
            await trio.to_thread.run_sync(_invalidate_entries, told)
        elif told:
            scheduler = self._fs.scheduler
            telling = Telling(held, told, scheduler.now() + PATIENCE_SECONDS, scheduler.event())
            self._telling.append(telling)
            if not self._watched:
                self._watched = True
                trio.lowlevel.spawn_system_task(self._watch)
            scheduler.background(partial(_tell, told), partial(self._end, telling))
            await telling.done.wait()
        if names:
            self._fs.changes.names_later(next(iter(names))[0])

    def _end(self, telling: Telling) -> None:
        """Let a request go on, if it does not already."""
        if telling in self._telling:
            self._telling.remove(telling)
            telling.done.set()

    async def _watch(self) -> None:
        """While there are requests that wait for the kernel; for one task."""
        while self._telling:
            await trio.sleep(PATIENCE_SECONDS / 4)
            now = self._fs.scheduler.now()
            for telling in [each for each in self._telling if each.until < now]:
                self._fs.remembered.names.update(telling.names)
                self._end(telling)
        self._watched = False

    async def _invalidate(self, unseen: Unseen) -> None:
        """An inode without a name goes when the kernel forgets it: which it is told to, or it would remember
        it until it needs the memory. One that it does not hold goes at once."""
        names = dict(unseen.names)
        left = await trio.to_thread.run_sync(_invalidate_names, names) if names else []
        await self.invalidate(unseen.inos)
        await self._fs.tree.forget(left)

    async def invalidate(self, inos: Iterable[int]) -> None:
        """Drop attributes and pages of inodes: the pages of a directory are its names."""
        if todo := list(inos):
            await trio.to_thread.run_sync(_invalidate_inodes, todo)


def _tell(names: list[tuple[int, bytes]]) -> None:
    """As `_invalidate_entries`, where nobody looks at what comes of it."""
    try:
        _invalidate_entries(names)
    except OSError as error:
        log.warning("the kernel may show %d names as they were: %s", len(names), error)


def _invalidate_inodes(inos: Iterable[int]) -> None:
    for ino in inos:
        _unless_unknown(pyfuse3.invalidate_inode, ino, False)


def _invalidate_names(names: dict[tuple[int, bytes], int]) -> list[int]:
    """Drop names, and the inodes that they were the last ones of. Those that the kernel does not know: it
    may have known the name as that of something else."""
    for (directory, name), gone in names.items():
        _invalidate_entry(directory, name, gone)
    return [
        gone for gone in names.values() if gone and not _unless_unknown(pyfuse3.invalidate_inode, gone, True)
    ]


def _invalidate_entries(names: Iterable[tuple[int, bytes]]) -> None:
    for directory, name in names:
        _invalidate_entry(directory, name, 0)


def _invalidate_entry(directory: int, name: bytes, gone: int) -> None:
    """Drop a name, and the inode `gone` that it was the last one of."""
    if not gone or not _unless_unknown(pyfuse3.invalidate_entry, directory, name, gone):
        _unless_unknown(pyfuse3.invalidate_entry, directory, name)


def _unless_unknown(invalidate: Callable[..., None], *args: Any) -> bool:
    """False when the kernel knows nothing of it."""
    try:
        invalidate(*args)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
