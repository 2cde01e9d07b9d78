"""The namespace as one object: the table groups over one connection, and its transactions."""

from __future__ import annotations

import errno
import logging
import os
from typing import Any

import apsw

from casfs.errors import FormatError
from casfs.namespace.artifacts import Artifacts
from casfs.namespace.blobs import Blobs
from casfs.namespace.connection import CACHE_KIB, Savepoint, connect, translate
from casfs.namespace.damage import Damage
from casfs.namespace.dentries import Dentries
from casfs.namespace.derived import Derived
from casfs.namespace.digests import Digests
from casfs.namespace.inodes import Inodes
from casfs.namespace.integrations import IntegrationRows
from casfs.namespace.locked import LockedRows
from casfs.namespace.redo import Redo
from casfs.namespace.repositories import RepositoryRows
from casfs.namespace.schema import SCHEMA_VERSION, check_schema, check_small_tables, check_version, migrate
from casfs.namespace.searches import Searches
from casfs.namespace.table import Table
from casfs.namespace.trash import TrashRows
from casfs.namespace.xattrs import Xattrs
from casfs.syscalls import KEEP_SIZE, fallocate
from casfs.types import HIGHEST_NUMBER

log = logging.getLogger(__name__)

PAGE = 4096
"""SQLite's page size; a frame of the WAL is a page and 24 bytes (sqlite.org/fileformat2.html#walformat)."""

MEND = "casfs fsck --repair mends it"

CHECKPOINT_PAGES = 8192
"""Length of the WAL, in pages, from which it is checkpointed (32 MiB); less on a small disk."""

OPERATION_LOG_BYTES = 8 * PAGE
"""What one operation may add to the log at the most: the pages it changes, with splits of B-tree pages."""


class Namespace(Table):
    """Rows of one store.

    Owned by one thread: the event loop's in the mount daemon. Exceptions: `sync_log` and `checkpoint`
    have a descriptor and a connection of their own and may run in another one at any time.

    `shared`: another process may write too; then closing leaves the log to whoever closes last, and COMMIT
    syncs the log before others see its rows: when the collector is killed behind a COMMIT, nobody may find a
    digest free whose row power could still bring back (I1).
    """

    def __init__(
        self,
        path: str,
        *,
        readonly: bool = False,
        shared: bool = False,
        frozen: bool = False,
        cache_kib: int = CACHE_KIB,
    ) -> None:
        """`frozen`: read-only, and the file never changes (copies.py). `cache_kib`: as `connect`. Raises
        FormatError, FormatTooNew, DatabaseError."""
        self.path = path
        self.readonly = readonly
        self._shared = shared
        self.log_pages = 0
        self._connection = connect(path, readonly=readonly, frozen=frozen, cache_kib=cache_kib)
        try:
            self.version = check_version(self._connection, path)
            if not readonly:
                self._open_log()
            elif self.version < SCHEMA_VERSION:
                hint = "mount it once, which brings it to the present one"
                raise FormatError(f"{path} has the older format {self.version}", hint=hint)
            else:
                check_schema(self._connection, path)
            check_small_tables(self._connection, path)
        except BaseException as error:
            self._connection.close()
            if isinstance(error, apsw.Error):
                raise translate(error) from error
            raise
        stat = os.statvfs(path)
        self._disk_share = max(64, stat.f_blocks * stat.f_frsize // PAGE // 128)
        self._redo = Redo(self._connection)
        self.inodes = Inodes(self._connection)
        self.dentries = Dentries(self._connection)
        self.blobs = Blobs(self._connection)
        self.digests = Digests(self._connection)
        self.xattrs = Xattrs(self._connection)
        self.damage = Damage(self._connection)
        self.trash = TrashRows(self._connection)
        self.repositories = RepositoryRows(self._connection)
        self.artifacts = Artifacts(self._connection)
        self.derived = Derived(self._connection)
        self.searches = Searches(self._connection)
        self.locked = LockedRows(self._connection)
        self.integrations = IntegrationRows(self._connection)

    def _open_log(self) -> None:
        migrate(self._connection, self.path)
        self.version = SCHEMA_VERSION
        if self._value("PRAGMA journal_mode = WAL") != "wal":
            raise FormatError(f"{self.path} cannot have a write-ahead log", hint="restore it from a backup")
        check_schema(self._connection, self.path)
        self._connection.set_wal_hook(self._count_pages)
        if self._shared:
            self._connection.execute("PRAGMA synchronous = FULL")
        self._value("SELECT count(*) FROM meta")  # makes the log, if there is none
        self._connection.set_busy_timeout(0)
        self._log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        self._checkpointer: apsw.Connection | None = None

    # Transactions

    def try_begin(self, *, repeatable: bool = False) -> bool:
        """BEGIN IMMEDIATE; False when another process has the write lock. Raises DatabaseError.

        `repeatable`: a COMMIT that SQLite rolls back leaves the transaction as it was all the same, for which
        its statements are kept in memory.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if repeatable:
                self._redo.start()
        except apsw.BusyError as error:
            if getattr(error, "extendedresult", 0) == apsw.SQLITE_BUSY_SNAPSHOT:  # waiting would not help
                log.error("a statement was left half read, which keeps the database from being written")
            return False
        except apsw.Error as error:
            raise translate(error) from error
        return True

    def reserve_log(self, operations: int) -> None:
        """Allocate what the COMMIT of so many operations may append to the log.

        SQLite rolls a transaction back when its COMMIT meets ENOSPC. Space that fallocate(2) has given
        does not run out on most file systems, so a full disk is known before COMMIT and nothing is lost (I5);
        for the others, and for the log's index, which may grow too, there is Redo. Raises OSError ENOSPC; the
        transaction stays as it is.
        """
        try:
            self._extend_log(min(self._cached_bytes(), 64 * PAGE + OPERATION_LOG_BYTES * operations))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._connection.release_memory()  # of the cache, only what the COMMIT will write is left
            self._extend_log(self._cached_bytes())

    def _cached_bytes(self) -> int:
        return self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0]

    def _extend_log(self, size: int) -> None:
        try:
            fallocate(self._log, KEEP_SIZE, os.fstat(self._log).st_size, size + size // 64 + PAGE)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise

    def commit(self) -> None:
        """COMMIT into the page cache; durable after `sync_log`. Raises DatabaseError: `in_transaction` says
        whether the transaction is as it was, or SQLite has rolled it back."""
        try:
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            translated = translate(error, self._connection.system_errno)
            if not self._connection.in_transaction:
                self._redo.run_again()
            raise translated from error
        self._redo.end()

    def rollback(self) -> None:
        self._redo.end()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def savepoint(self) -> Savepoint:
        """`with namespace.savepoint():` what is inside happens wholly or not at all."""
        return Savepoint(self._connection)

    def sync_log(self) -> None:
        """Make every commit so far durable: fdatasync(2) of the log. Blocks. Raises OSError.

        With synchronous=NORMAL, SQLite itself syncs the log only around checkpoints
        (sqlite.org/pragma.html#pragma_synchronous): COMMIT stays short, and the wait is ours, in a thread.
        The log carries no POSIX locks, so opening and closing it here drops none.
        """
        os.fdatasync(self._log)

    # The write-ahead log

    def _count_pages(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK

    @property
    def log_is_long(self) -> bool:
        return self.log_pages > min(CHECKPOINT_PAGES, self._disk_share)

    def checkpoint(self, *, restart: bool) -> None:
        """Move committed pages from the log into the database, through a connection of its own. Blocks.

        `restart`: no transaction is open; afterwards the log starts again from its beginning. The
        commit that does it syncs the log's header, which is why it is made here and not by the next one.
        Raises DatabaseError (ENOSPC): nothing is lost, the log stays long.
        """
        if self._checkpointer is None:
            self._checkpointer = connect(self.path)
            self._checkpointer.set_busy_timeout(0)
        try:
            self._checkpointer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if restart:
                self._checkpointer.execute("UPDATE meta SET value = value WHERE key = 'uuid'")
        except apsw.BusyError:
            return  # another process writes: the log starts again after the next checkpoint
        except apsw.Error as error:
            raise translate(error) from error

    # Single values

    def meta(self, key: str) -> Any:
        return self._value("SELECT value FROM meta WHERE key = ?", (key,))

    def counter(self, key: str) -> int:
        """A number that was given to nobody yet. Raises FormatError."""
        value = self.meta(key)
        if not isinstance(value, int) or not 0 < value < HIGHEST_NUMBER:
            raise FormatError(f"{self.path} has no numbers left to give ({key} is {value!r:.50})", MEND)
        return value

    def set_meta(self, key: str, value: int | str) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def note_start(self, now_ns: int) -> bool:
        """A process takes the file system into use: did the last one end cleanly? Inside a transaction.

        One of a version that knows no such mark has changed `next_ino`, if it did not.
        """
        clean = bool(self.meta("clean_end") == self.meta("next_ino"))
        self._connection.execute("DELETE FROM meta WHERE key = 'clean_end'")
        if not clean:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('strays_since_ns', ?)", (now_ns,))
        return clean

    def note_end(self) -> None:
        """It is left cleanly, with `next_ino` as it is. Inside a transaction."""
        self._connection.execute(
            "INSERT OR REPLACE INTO meta SELECT 'clean_end', value FROM meta WHERE key = 'next_ino'"
        )

    def forget_end(self) -> None:
        """Nobody knows how the last process ended: whatever has no row may be there. Inside a transaction."""
        self._connection.execute("DELETE FROM meta WHERE key = 'clean_end'")

    def _value(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        return self._connection.execute(sql, bindings).get

    def query(self, sql: str, bindings: tuple[Any, ...] = ()) -> apsw.Cursor:
        """For the reports of this package (`namespace/usage.py`, `namespace/checks.py`) only."""
        return self._connection.execute(sql, bindings)

    def read_through(self) -> None:
        """It is going to be read from one end to the other: little of it is kept in memory."""
        self._value("PRAGMA cache_size = -8000")

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        if self.readonly:
            self._connection.close()
            return
        self.rollback()
        if self._checkpointer is not None:
            self._checkpointer.close()
        os.close(self._log)
        if not self._shared:  # it would keep the other one from writing while it lasts
            _checkpoint_quietly(self._connection)
        self._connection.close()


def _checkpoint_quietly(connection: apsw.Connection) -> None:
    """Leave a short log behind; what cannot be moved now stays in it and is moved next time."""
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error:
        return
