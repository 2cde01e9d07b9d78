"""The file system of a store that is not mounted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.repositories.filesystem import file_system, follower_of
from casfs.repositories.integrations import clean
from casfs.store import Store
from casfs.trash.undelete import expire


@contextlib.contextmanager
def opened(path: str) -> Iterator[FileSystem]:
    """The file system of an unmounted store, for this process alone. Raises as `Store` does."""
    store = Store(path)
    try:
        fs = file_system(store, InlineScheduler())
        run_inline(fs.start())
        yield fs
        run_inline(follower_of(fs).drain())
        run_inline(fs.stop())
    finally:
        store.close()


def expire_trash(store: str, limit: int) -> int:
    """As `trash.undelete.expire`, by age: how many files went, `limit` at the most. Raises as `opened`."""
    with opened(store) as fs:
        return run_inline(expire(fs, time.time_ns(), limit=limit)).files


def clean_integrations(store: str, limit: int) -> int:
    """As `repositories.integrations.clean`: how many files went to the trash. Raises as `opened`."""
    with opened(store) as fs:
        return run_inline(clean(fs, time.time_ns(), limit)).files
