"""What `casfs cp`, `mv`, `rm` and `link` do, on a store that is mounted or not.

What is forced is so by root or by the owner of the store: nobody else is let in (server.py, locks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from casfs.control import asking
from casfs.control.messages import Copy, Done, Link, Move, Operation, Remove, Removed
from casfs.control.protocol import path_of
from casfs.fs import copy as trees
from casfs.fs.filesystem import FileSystem
from casfs.repositories.forcing import Forced, forcing
from casfs.repositories.removal import Amount, Removal
from casfs.text import printable


def _forced(force: bool, *words: str, looks: bool = False) -> Forced | None:
    return Forced(printable(" ".join(words)), asking.user(), looks=looks) if force else None


async def _copy(fs: FileSystem, asked: Copy) -> Done:
    with forcing(_forced(asked.force, "cp", asked.src, asked.dst)):
        await trees.copy(fs, path_of(asked.src), path_of(asked.dst), recursive=asked.recursive)
    return Done()


async def _link(fs: FileSystem, asked: Link) -> Done:
    await trees.link(fs, asked.algorithm, asked.digest, path_of(asked.dst), asking.user())
    return Done()


async def _move(fs: FileSystem, asked: Move) -> Done:
    with forcing(_forced(asked.force, "mv", asked.src, asked.dst)):
        await trees.move(fs, path_of(asked.src), path_of(asked.dst))
    return Done()


async def _remove(fs: FileSystem, asked: Remove) -> Removed:
    amount, releases, failures = Amount(), 0, []
    for path in asked.paths:
        removal = Removal(fs, path_of(path), asking.user(), amount)
        forced = _forced(asked.force, "rm", path, looks=asked.dry_run)
        try:
            with forcing(forced):
                await removal.look(recursive=asked.recursive, counts=asked.dry_run)
                releases += forced.releases if forced else 0
                if not asked.dry_run:
                    await removal.run()
        except OSError as error:
            failures.append((path, error.strerror or str(error)))
    await fs.group.durable()
    return Removed(amount.files, amount.directories, amount.size, releases, failures)


HANDLERS: dict[type[Operation[Any]], Callable[[FileSystem, Any], Coroutine[Any, Any, Any]]] = {
    Copy: _copy,
    Link: _link,
    Move: _move,
    Remove: _remove,
}
