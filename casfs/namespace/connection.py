"""Opening the database: pragmas, errors, creation and migration of the schema."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import apsw

from casfs.errors import FormatError, FormatTooNew

APPLICATION_ID = 0x63617366
"""PRAGMA application_id of a casfs database, "casf"."""

SCHEMA_VERSION = 2
"""PRAGMA user_version written by this release."""

READ_TIMEOUT_MS = 10_000
"""Who opens the database may meet the moment in which its last user closes it. Writers wait elsewhere, and
set it to 0 when they are in."""

Migration = Callable[[apsw.Connection], None]


def _add_maintenance(connection: apsw.Connection) -> None:
    _drain(connection, _sql("maintenance.sql"))


MIGRATIONS: dict[int, Migration] = {1: _add_maintenance}
"""version -> what turns a database of that version into one of the next; run inside one transaction."""

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


def connect(path: str, *, readonly: bool = False) -> apsw.Connection:
    """A connection with the pragmas of a store. Raises DatabaseError or FormatError."""
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
    connection = None
    try:
        connection = apsw.Connection(path, flags=flags)
        connection.set_busy_timeout(READ_TIMEOUT_MS)
        # Without it SQLite prepares a join again for each new binding: 25 µs in place of 2 for a lookup.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for pragma in (
            "synchronous = NORMAL",
            "temp_store = MEMORY",
            "cache_size = -64000",
            "cache_spill = OFF",
            "foreign_keys = OFF",
            "trusted_schema = OFF",
        ):
            _drain(connection, f"PRAGMA {pragma}")
        return connection
    except apsw.Error as error:
        if connection is not None:
            connection.close()
        if isinstance(error, apsw.NotADBError | apsw.CorruptError | apsw.CantOpenError):
            raise FormatError(f"{path} cannot be opened: {error}", hint="restore it from a backup") from None
        raise translate(error) from error


def create(path: str, now_ns: int, uid: int, gid: int) -> None:
    """A new database with an empty root directory that `uid` and `gid` own."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = connect(path)
    try:
        _drain(connection, "PRAGMA journal_mode = WAL")
        _drain(connection, "PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _drain(connection, _sql("schema.sql"))
        _add_maintenance(connection)
        _drain(connection, f"PRAGMA application_id = {APPLICATION_ID}")
        _drain(connection, f"PRAGMA user_version = {SCHEMA_VERSION}")
        values = {"next_ino": 2, "clean_end": 2, "next_cookie": 3, "uuid": uuid.uuid4().hex}
        for item in values.items():
            connection.execute("INSERT INTO meta VALUES (?, ?)", item)
        connection.execute(
            "INSERT INTO inode VALUES (1, ?, 2, ?, ?, 0, 0, 0, NULL, NULL, NULL, ?, ?, ?, ?)",
            (0o40755, uid, gid, now_ns, now_ns, now_ns, now_ns),
        )
        connection.execute("COMMIT")
    finally:
        connection.close()


def check_version(connection: apsw.Connection, path: str) -> int:
    """The schema version of an open database. Raises FormatError, FormatTooNew."""
    try:
        application = _value(connection, "PRAGMA application_id")
        version = _value(connection, "PRAGMA user_version")
    except apsw.Error as error:
        raise FormatError(f"{path} cannot be read: {error}", hint="restore it from a backup") from error
    if application != APPLICATION_ID:
        raise FormatError(f"{path} is not a casfs database")
    if version > SCHEMA_VERSION:
        raise FormatTooNew(
            f"{path} has format {version}; this casfs knows up to {SCHEMA_VERSION}",
            hint="use a newer casfs",
        )
    return int(version)


def migrate(
    connection: apsw.Connection,
    path: str,
    migrations: dict[int, Migration] | None = None,
    target: int = SCHEMA_VERSION,
) -> None:
    """Bring an older database to the `target` version, each step one transaction.

    Raises FormatError for a version no migration starts from, and what the steps raise.
    """
    steps = MIGRATIONS if migrations is None else migrations
    version = check_version(connection, path) if target == SCHEMA_VERSION else _version(connection)
    while version < target:
        if version not in steps:
            raise FormatError(f"{path} has format {version}, which this casfs cannot migrate")
        connection.execute("BEGIN IMMEDIATE")
        try:
            steps[version](connection)
            version += 1
            _drain(connection, f"PRAGMA user_version = {version}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _version(connection: apsw.Connection) -> int:
    return int(_value(connection, "PRAGMA user_version"))


def _value(connection: apsw.Connection, sql: str) -> Any:
    return connection.execute(sql).get


def _drain(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> None:
    """Run every statement of `sql`; APSW stops at the first row nobody fetches."""
    for _ in connection.execute(sql, bindings):
        pass
