"""The file system of a store as everybody has it: with its trash for a policy."""

from __future__ import annotations

from casfs.fs.core import Core
from casfs.fs.filesystem import FileSystem
from casfs.fs.kernel import Kernel
from casfs.fs.scheduler import Scheduler
from casfs.store import Store
from casfs.trash.policy import Trash


def file_system(store: Store, scheduler: Scheduler, kernel: Kernel | None = None) -> FileSystem:
    """Its parts put together; `start` it before its use. `kernel`: of the mount, if there is one."""
    core = Core(store, scheduler, kernel)
    return FileSystem(core, Trash(core))


def trash_of(fs: FileSystem) -> Trash:
    """The trash of what `file_system` has put together."""
    trash = fs.policy
    assert isinstance(trash, Trash)
    return trash
