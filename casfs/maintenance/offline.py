"""`casfs cp`, `mv`, `undelete` and `trash` on a store that is not mounted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from casfs.fs import copy as trees
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.store import Store
from casfs.trash import undelete as trashed
from casfs.trash.filesystem import file_system
from casfs.trash.policy import Trash


@contextlib.contextmanager
def opened(path: str) -> Iterator[FileSystem]:
    """The file system of an unmounted store, for this process alone. Raises as `Store` does."""
    with _with_trash(path) as (fs, _):
        yield fs


@contextlib.contextmanager
def _with_trash(path: str) -> Iterator[tuple[FileSystem, Trash]]:
    store = Store(path)
    try:
        fs, trash = file_system(store, InlineScheduler())
        run_inline(fs.start())
        yield fs, trash
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


def undelete(store: str, path: str, since_ns: int, before_ns: int) -> tuple[int, int]:
    """As `trash.undelete.undelete`: how many files were restored, and how many names were taken."""
    with _with_trash(store) as (fs, trash):
        changed = run_inline(trashed.undelete(fs, trash, os.fsencode(path), since_ns, before_ns))
    return changed.files, changed.skipped


def empty_trash(store: str, older_seconds: float | None, *, limit: int | None = None) -> tuple[int, int]:
    """As `trash.undelete.expire`: how many files went, and their bytes."""
    older_ns = None if older_seconds is None else int(older_seconds * 1e9)
    with _with_trash(store) as (fs, trash):
        changed = run_inline(trashed.expire(fs, trash, time.time_ns(), older_ns, limit=limit))
    return changed.files, changed.size


def set_trash_rule(
    store: str, directory: str, days: int | None, exclude: list[str] | None, minimal_age: int | None
) -> None:
    """As `trash.undelete.change_rule`."""
    with _with_trash(store) as (fs, trash):
        run_inline(trashed.change_rule(fs, trash, os.fsencode(directory), days, exclude, minimal_age))
