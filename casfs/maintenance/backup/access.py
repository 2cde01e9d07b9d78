"""What only the daemon can do that has a store mounted, or who has the store for himself."""

from __future__ import annotations

from typing import Protocol


class RestoredRows(Protocol):
    """What restoring has done in a store: names that came back, and bytes of their files; that
    went; that stand for another content, or have other attributes; that went back to their place."""

    @property
    def restored(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def removed(self) -> int: ...
    @property
    def replaced(self) -> int: ...
    @property
    def attributes(self) -> int: ...
    @property
    def renamed(self) -> int: ...


class Access(Protocol):
    """To any store, by its path (control/backups.py). Methods raise CasfsError and OSError."""

    def create_snapshot(self, store: str, name: str, reason: str, expires_ns: int) -> None:
        """As maintenance/snapshots/create.py."""

    def drop_snapshot(self, store: str, name: str) -> None:
        """One that is gone already is no error."""

    def restore_snapshot(self, store: str, name: str, path: str, to: str, *, force: bool) -> RestoredRows:
        """As maintenance/snapshots/restore.py; `path` "": everything; `to` "": where it was."""

    def await_collection(self, store: str) -> None:
        """Return when no file is going to be removed by a daemon that has decided so before; at once when no
        daemon has the store."""

    def damaged(self, store: str, blobs: list[int]) -> None:
        """Tell who has the store mounted that the files of these blobs were taken away."""
