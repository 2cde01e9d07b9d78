"""What snapshots hold back from collection: an orphan goes only if no snapshot refers to its content.

Their databases are asked by digest, so that no row is written for a blob. A snapshot whose database is not
whole yet holds everything, as long as its maker lives. Who asks inside a write transaction, with the
turnstile, or in the daemon's open group, has an answer that stays true until his transaction has ended: a
snapshot takes its moment between transactions, after its folder is there (maintenance/snapshots/create.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from casfs.filestore.directory import StoreDirectory
from casfs.namespace.copies import HeldDigests
from casfs.snapshots.folder import Database, SnapshotFolder

OPEN_LIMIT = 500
"""Databases that are kept open: each has a descriptor, and a process may have 1,024."""


class Holds:
    """Of one store. For one thread at a time; it keeps the databases open that it has asked."""

    def __init__(self, directory: StoreDirectory) -> None:
        self._folder = SnapshotFolder(directory)
        self._asked: dict[tuple[int, int], HeldDigests] = {}

    @property
    def nothing(self) -> bool:
        """Is there no snapshot at all?"""
        return not self._folder.unfinished() and not self._folder.names()

    def held(self, digests: Collection[bytes], but: Collection[tuple[int, int]] = ()) -> set[bytes]:
        """Those of the digests that stay. `but`: databases that were asked before, as `asked` has told; they
        never change. Raises FormatError, OSError for a snapshot that cannot be asked:
        then nothing may go."""
        databases: dict[tuple[int, int], Database] = {}
        # The unfinished first: one that gets its name in between is found twice, not never.
        for name in self._folder.unfinished():
            database = self._folder.unfinished_database(name)
            if database is not None:
                databases[database.file] = database
            elif self._folder.is_being_made(name):
                return set(digests)
        for name in self._folder.names():
            database = self._folder.file_of(name)
            if database is not None:
                databases[database.file] = database
        self._forget_but(databases)
        found: set[bytes] = set()
        for file, database in databases.items():
            if file in but:
                continue
            found.update(self._ask(database, [digest for digest in digests if digest not in found]))
        return found

    def _ask(self, database: Database, digests: list[bytes]) -> set[bytes]:
        try:
            asked = self._asked.get(database.file)
            if asked is not None:
                return asked.held(digests)
            asked = HeldDigests(database.path)
            if len(self._asked) < OPEN_LIMIT:
                self._asked[database.file] = asked
                return asked.held(digests)
            with contextlib.closing(asked):
                return asked.held(digests)
        except Exception:
            if self._folder.is_there(database):
                raise
            return set()  # dropped meanwhile

    def _forget_but(self, databases: Collection[tuple[int, int]]) -> None:
        for file in [file for file in self._asked if file not in databases]:
            self._asked.pop(file).close()

    @property
    def asked(self) -> frozenset[tuple[int, int]]:
        """The databases that were asked, the last time, and are open: another one could have the inode number
        of one that is not. After a further call that is true of those only that still are among them."""
        return frozenset(self._asked)

    def close(self) -> None:
        self._forget_but(())
