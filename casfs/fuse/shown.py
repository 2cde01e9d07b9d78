"""Requests whose effects the kernel does not know: names that follow from others, in trees (fs/nodes.py).

The kernel knows what it has asked for. What is done to a name changes names elsewhere, where a tree shows it;
and what is done in a tree changes those that it follows from. Either is followed, and the kernel is told,
before the request is answered.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

import outcome
import trio

from casfs.fs.attributes import Changes
from casfs.fs.filesystem import FileSystem
from casfs.fs.nodes import DerivedDirectory, Names
from casfs.fuse.callers import CALLER
from casfs.fuse.options import ACLS

log = logging.getLogger(__name__)

R = TypeVar("R")
Method = TypeVar("Method", bound=Callable[..., Any])


class Caches(Protocol):
    """What the kernel remembers (caches.py)."""

    def names_invalidated(self, held: frozenset[int]) -> AbstractAsyncContextManager[None]:
        """Invalidate the names that are changed inside. `held` as in `tell`."""

    async def tell(self, held: frozenset[int]) -> None:
        """Of names that it remembers otherwise. `held`: directories that it keeps others from until the
        request is answered; what has to wait for that is told later."""


class NoCaches:
    """There is no kernel that remembers anything."""

    @asynccontextmanager
    async def names_invalidated(self, held: frozenset[int]) -> AsyncIterator[None]:
        yield

    async def tell(self, held: frozenset[int]) -> None:
        """Nobody is to be told."""


class ShownNames:
    """Of one mount. Runs on the event loop's thread.

    `derived`: those of `Nodes`. `caller`: whose request is it that a verb is called for (callers.py)?
    """

    def __init__(self, fs: FileSystem, caches: Caches) -> None:
        self._fs = fs
        self._caches = caches
        self.derived = fs.nodes.derived
        self.caller: Callable[[], int] = CALLER.get

    def may_change(self, names: Names, *, is_new: bool) -> bool:
        """May trees show those names, or be going to show them?"""
        return any(self._trees().may_show(*name, is_new=is_new) for name in names)

    def may_open(self, ino: int) -> bool:
        """May trees show what is below that directory, according to who may look into it?"""
        return ino in self.derived or self._trees().may_show(ino, None, is_new=False)

    def _trees(self) -> DerivedDirectory:
        """All have the same."""
        return next(iter(self.derived.values()))

    async def caught_up(self, directory: int) -> None:
        """Have the names of a directory follow from those that they are derived from. Raises OSError."""
        derived = self.derived.get(directory)
        if derived is not None and not derived.catch_up():
            await derived.caught_up()

    async def beside(
        self, names: Names | None, method: Callable[[], Awaitable[R]], held: frozenset[int] = frozenset()
    ) -> R:
        """In directories that are no tree's. `names` are changed, or, None, the access of a directory, which
        is `held` by the kernel until it is answered."""
        if names is not None:
            held = self._held(names, self._fs.store.namespace.dentries.find)
        with self._fs.kernel.answers_held():
            result = await method()
            await self._settle(names, held)
        return result

    async def through(self, names: Names, method: Callable[[], Awaitable[R]], caller: int) -> R:
        """In directories of trees, in a task of its own, by which is known what it has changed elsewhere. The
        kernel keeps others from those directories, and from what is removed, until it is answered."""
        done = self._fs.scheduler.event()
        result: outcome.Outcome[R] | None = None

        async def run() -> R:
            CALLER.set(caller)
            for directory, _ in names:
                await self.caught_up(directory)
            held = self._held(names, self._trees().find)
            with self._fs.kernel.answers_held():
                async with self._caches.names_invalidated(held):
                    changed = await method()
                await self._settle(None, held)
            return changed

        async def task() -> None:
            nonlocal result
            result = await outcome.acapture(run)
            done.set()

        trio.lowlevel.spawn_system_task(task)
        await done.wait()
        assert result is not None
        return result.unwrap()

    @staticmethod
    def _held(names: Names, find: Callable[[int, bytes], int | None]) -> frozenset[int]:
        """What the kernel keeps others from: the directories, and what has the names before."""
        held = {directory for directory, _ in names}
        return frozenset(held | {ino for name in names if (ino := find(*name))})

    async def _settle(self, names: Names | None, held: frozenset[int]) -> None:
        """What was done is done: that it cannot follow yet is no reason to say otherwise."""
        if not self.derived:
            return
        try:
            await self._trees().settle(names)
        except OSError as error:
            log.warning("trees show what was just changed later: %s", error)
            self._fs.remembered.forget_attributes()
        await self._caches.tell(held)


def seen_in_trees(*directories: int, is_new: bool = False) -> Callable[[Method], Method]:
    """For what gives or takes names in directories, which are arguments at those positions, each before its
    name. `is_new`: the name is not there before."""

    def decorate(method: Method) -> Method:
        def verb(self: Any, *args: Any) -> Any:
            shown: ShownNames = self.shown
            if not shown.derived:
                return method(self, *args)
            names = tuple((args[position], args[position + 1]) for position in directories)
            if any(directory in shown.derived for directory, _ in names):
                return shown.through(names, functools.partial(method, self, *args), shown.caller())
            if shown.may_change(names, is_new=is_new):
                return shown.beside(names, functools.partial(method, self, *args))
            return method(self, *args)

        return functools.wraps(method)(verb)  # type: ignore[return-value]

    return decorate


def access_seen_in_trees(method: Method) -> Method:
    """For what may change who may look into a directory: the first argument, before the `Changes` or the name
    of an attribute."""

    def verb(self: Any, ino: int, what: Changes | bytes, *args: Any) -> Any:
        shown: ShownNames = self.shown
        changes = bool(shown.derived) and (what in ACLS if isinstance(what, bytes) else what.access)
        if changes and self.inode(ino).is_directory and shown.may_open(ino):
            change = functools.partial(method, self, ino, what, *args)
            return shown.beside(None, change, frozenset({ino}))
        return method(self, ino, what, *args)

    return functools.wraps(method)(verb)  # type: ignore[return-value]
