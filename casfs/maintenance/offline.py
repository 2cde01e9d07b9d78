"""`casfs cp` and `casfs mv` on a store that is not mounted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from casfs.fs import copy as trees
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.store import Store


@contextlib.contextmanager
def opened(path: str) -> Iterator[FileSystem]:
    """The file system of an unmounted store, for this process alone. Raises as `Store` does."""
    store = Store(path)
    try:
        fs = FileSystem(store, InlineScheduler())
        run_inline(fs.start())
        yield fs
        run_inline(fs.stop())
    finally:
        store.close()


def copy(store: str, source: str, destination: str, *, recursive: bool) -> None:
    """As `fs.copy.copy`, by paths from the root of the store."""
    with opened(store) as fs:
        run_inline(trees.copy(fs, os.fsencode(source), os.fsencode(destination), recursive=recursive))


def move(store: str, source: str, destination: str) -> None:
    """As `fs.copy.move`, by paths from the root of the store."""
    with opened(store) as fs:
        run_inline(trees.move(fs, os.fsencode(source), os.fsencode(destination)))
