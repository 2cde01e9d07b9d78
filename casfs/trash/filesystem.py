"""The trash of a file system, whose policy has it."""

from __future__ import annotations

from casfs.fs.filesystem import FileSystem
from casfs.trash.policy import Trash


def trash_of(fs: FileSystem) -> Trash:
    """That of what repositories/filesystem.py has put together."""
    trash = getattr(fs.policy, "trash", None)
    assert isinstance(trash, Trash)
    return trash
