"""Opening the database: its pragmas, and what SQLite complains of as errno values."""

from __future__ import annotations

import errno
import urllib.parse

import apsw

from casfs.errors import FormatError
from casfs.namespace.opening import name_database

READ_TIMEOUT_MS = 10_000
"""Who opens the database may meet the moment in which its last user closes it. Writers wait elsewhere, and
set it to 0 when they are in."""

_ERRNO: tuple[tuple[type[apsw.Error], int], ...] = (
    (apsw.FullError, errno.ENOSPC),
    (apsw.ReadOnlyError, errno.EROFS),
    (apsw.BusyError, errno.EBUSY),
    (apsw.LockedError, errno.EBUSY),
    (apsw.NoMemError, errno.ENOMEM),
    (apsw.Error, errno.EIO),
)


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class DatabaseError(OSError):
    """A failure of the database as an errno: ENOSPC, EDQUOT, EROFS, EBUSY, ENOMEM or EIO."""


def translate(error: apsw.Error, system_errno: int = 0) -> DatabaseError:
    """The errno that says best what SQLite reports. `system_errno`: what the system said to it, if known.

    Only a write(2) that meets ENOSPC is SQLITE_FULL: a quota, and a log whose index (-shm) cannot grow,
    are I/O errors to SQLite (os_unix.c, unixWrite and unixShmMap).
    """
    number = next(number for kind, number in _ERRNO if isinstance(error, kind))
    if isinstance(error, apsw.IOError):
        if system_errno in _NO_ROOM:
            number = system_errno
        elif getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
            number = errno.ENOSPC
    return DatabaseError(number, f"database: {error}")


def database_errno(error: BaseException) -> int | None:
    """The errno of an exception that came out of the namespace; None when it is something else."""
    return translate(error).errno if isinstance(error, apsw.Error) else None


ROW_BYTES = 16 << 20
"""Length of a row, or a value in it, at the most: the longest of ours is an attribute of 64 KiB."""

_DISTRUST = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
)
"""A database may come from anywhere (I9): nothing in it is run (sqlite.org/security.html)."""


CACHE_KIB = 64_000
"""What a connection keeps of its database in memory, at the most."""


def connect(
    path: str, *, readonly: bool = False, frozen: bool = False, cache_kib: int = CACHE_KIB
) -> apsw.Connection:
    """A connection with the pragmas of a store. `frozen`: the file never changes, so that no lock is taken
    and nothing looked for beside it ("immutable", sqlite.org/uri.html). Raises DatabaseError or
    FormatError."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    connection = None
    name_database(path)
    try:
        name = path
        if frozen:
            name, flags = f"file:{urllib.parse.quote(path)}?immutable=1", flags | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(name, flags=flags | apsw.SQLITE_OPEN_NOFOLLOW)
        connection.set_busy_timeout(READ_TIMEOUT_MS)
        # Without it SQLite prepares a join again for each new binding: 25 µs in place of 2 for a lookup.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for option, value in _DISTRUST:
            connection.config(option, value)
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, ROW_BYTES)
        for pragma in (
            "synchronous = NORMAL",
            "temp_store = MEMORY",
            f"cache_size = -{cache_kib}",
            "cache_spill = OFF",
            "foreign_keys = OFF",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            run_script(connection, f"PRAGMA {pragma}")
        return connection
    except apsw.Error as error:
        if connection is not None:
            connection.close()
        if isinstance(error, apsw.NotADBError | apsw.CorruptError | apsw.CantOpenError):
            raise FormatError(f"{path} cannot be opened: {error}", hint="restore it from a backup") from None
        raise translate(error) from error


def run_script(connection: apsw.Connection, sql: str) -> None:
    """Run every statement of `sql`; APSW stops at the first row nobody fetches."""
    for _ in connection.execute(sql):
        pass


class Savepoint:
    """All or nothing inside the open transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("SAVEPOINT operation")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK TO operation")
        if self._connection.in_transaction:
            self._connection.execute("RELEASE operation")
