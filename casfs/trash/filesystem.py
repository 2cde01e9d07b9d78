"""The file system of a store as everybody has it: with its trash for a policy."""

from __future__ import annotations

from casfs.fs.core import Core
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import Scheduler
from casfs.store import Store
from casfs.trash.policy import Trash


def file_system(store: Store, scheduler: Scheduler) -> tuple[FileSystem, Trash]:
    """Its parts put together; `start` it before its use."""
    core = Core(store, scheduler)
    trash = Trash(core)
    return FileSystem(core, trash), trash
