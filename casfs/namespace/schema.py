"""The schema of the database: creating it, telling its version, and bringing an older one to the present.

schema.sql makes a new database; migrations/NNNN.sql makes one of version NNNN out of one of the version
before. A migration is never changed once it was released: there are databases that went through it.
"""

from __future__ import annotations

import functools
import os
import re
import uuid
from collections.abc import Sequence

import apsw

from casfs.errors import FormatError, FormatTooNew
from casfs.namespace.connection import connect, run_script
from casfs.namespace.digests import Digests
from casfs.namespace.inodes import Inodes, directory_row
from casfs.types import ROOT_INO

APPLICATION_ID = 0x63617366
"""PRAGMA application_id of a casfs database, "casf"."""

SCHEMA_VERSION = 5
"""PRAGMA user_version written by this release."""

SCHEMA = f"{os.path.dirname(__file__)}/schema.sql"
MIGRATIONS = f"{os.path.dirname(__file__)}/migrations"


def create(path: str, now_ns: int, uid: int, gid: int, digests: Sequence[str] = ()) -> None:
    """A new database with an empty root directory that `uid` and `gid` own. `digests`: what every content
    gets besides BLAKE3."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = connect(path)
    try:
        run_script(connection, "PRAGMA journal_mode = WAL")
        run_script(connection, "PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        run_script(connection, _read(SCHEMA))
        run_script(connection, f"PRAGMA application_id = {APPLICATION_ID}")
        run_script(connection, f"PRAGMA user_version = {SCHEMA_VERSION}")
        values = {
            "next_ino": ROOT_INO + 1,
            "clean_end": ROOT_INO + 1,
            "next_cookie": 3,
            "uuid": uuid.uuid4().hex,
        }
        for item in values.items():
            connection.execute("INSERT INTO meta VALUES (?, ?)", item)
        if digests:
            Digests(connection).set_wanted(digests)
        Inodes(connection).write([directory_row(ROOT_INO, 0o755, uid, gid, now_ns)])
        connection.execute("COMMIT")
    finally:
        connection.close()


def check_version(connection: apsw.Connection, path: str) -> int:
    """The schema version of an open database. Raises FormatError, FormatTooNew."""
    try:
        application = connection.execute("PRAGMA application_id").get
        version = _version(connection)
    except apsw.Error as error:
        raise FormatError(f"{path} cannot be read: {error}", hint="restore it from a backup") from error
    if application != APPLICATION_ID:
        raise FormatError(f"{path} is not a casfs database")
    if version > SCHEMA_VERSION:
        raise FormatTooNew(
            f"{path} has format {version}; this casfs knows up to {SCHEMA_VERSION}",
            hint="use a newer casfs",
        )
    return version


def check_schema(connection: apsw.Connection, path: str) -> None:
    """Is the schema of a database of the present version ours, and nothing else there? A trigger, a view, an
    index on an expression would run what somebody else wrote. Raises FormatError."""
    try:
        encoding = connection.execute("PRAGMA encoding").get
        found = _objects(connection)
    except (apsw.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}", hint="restore it from a backup") from error
    expected = _expected()
    for kind, name in sorted(found.keys() | expected.keys()):
        if found.get((kind, name)) != expected.get((kind, name)):
            what = "another" if (kind, name) in expected else "a foreign"
            raise FormatError(f"{path} has {what} {kind} {name}", hint="restore it from a backup")
    if encoding != "UTF-8":
        raise FormatError(f"{path} has the encoding {encoding}", hint="restore it from a backup")


_SMALL = (
    "SELECT 'meta' FROM meta WHERE typeof(key) <> 'text'",
    """SELECT 'trash_rule' FROM trash_rule WHERE typeof(directory) <> 'blob' OR typeof(exclude) <> 'text'
        OR typeof(days) <> 'integer' OR days NOT BETWEEN 0 AND 1000000""",
    """SELECT 'pin' FROM pin WHERE typeof(reason) <> 'text' OR typeof(everything) <> 'integer'
        OR typeof(created_ns) <> 'integer' OR typeof(expires_ns) NOT IN ('integer', 'null')""",
    "SELECT 'damage' FROM damage WHERE typeof(found_ns) <> 'integer' OR typeof(reason) <> 'text'",
    """SELECT 'collection' FROM collection WHERE typeof(kind) <> 'text'
        OR typeof(error) NOT IN ('text', 'null')
        OR typeof(started_ns) <> 'integer' OR typeof(ended_ns) NOT IN ('integer', 'null')
        OR typeof(blobs + bytes + strays + failures) <> 'integer'""",
    """SELECT 'repository' FROM repository WHERE typeof(ino) <> 'integer' OR typeof(kind) <> 'text'
        OR typeof(layout) NOT IN ('text', 'null') OR typeof(deploy) NOT IN ('integer', 'null')
        OR typeof(rules) <> 'text' OR octet_length(rules) > 1048576""",
    """SELECT 'member' FROM member WHERE typeof(repository) <> 'integer' OR typeof(position) <> 'integer'
        OR typeof(member) <> 'integer'""",
    """SELECT 'layout' FROM layout WHERE typeof(name) <> 'text' OR typeof(definition) <> 'text'
        OR octet_length(definition) > 65536""",
    "SELECT 'follow' FROM follow WHERE typeof(ino) <> 'integer' OR typeof(cookie) <> 'integer'",
    """SELECT 'locked' FROM locked WHERE typeof(ino) <> 'integer' OR typeof(locked_ns) <> 'integer'
        OR typeof(reason) <> 'text' OR octet_length(reason) > 65536""",
    "SELECT 'noted' FROM noted WHERE typeof(parent) <> 'integer' OR typeof(name) <> 'blob'",
)
"""What rows of the small tables cannot be, which a STRICT table would have refused."""


def check_small_tables(connection: apsw.Connection, path: str) -> None:
    """Are the rows of the small tables what they can be? Those of the others are looked at when they are
    read. Raises FormatError, apsw.Error."""
    for (table,) in connection.execute(" UNION ALL ".join(_SMALL)):
        raise FormatError(f"{path} has a row in {table} that cannot be one", hint="restore it from a backup")


def _objects(connection: apsw.Connection) -> dict[tuple[str, str], str]:
    """(type, name) -> the statement that made it, without comments and the spaces around them."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {
        (str(kind), str(name)): " ".join(re.sub("--[^\n]*", "", f"{table} {sql}").split())
        for kind, name, table, sql in rows
    }


@functools.cache
def _expected() -> dict[tuple[str, str], str]:
    connection = apsw.Connection(":memory:")
    try:
        run_script(connection, _read(SCHEMA))
        return _objects(connection)
    finally:
        connection.close()


def migrate(
    connection: apsw.Connection,
    path: str,
    *,
    migrations: str = MIGRATIONS,
    target: int = SCHEMA_VERSION,
) -> None:
    """Bring an older database to the `target` version, each step one transaction.

    Raises FormatError for a version no migration starts from, and apsw.Error.
    """
    version = _version(connection)
    while version < target:
        step = f"{migrations}/{version + 1:04}.sql"
        if not os.path.exists(step):
            raise FormatError(f"{path} has format {version}, which this casfs cannot migrate")
        connection.execute("BEGIN IMMEDIATE")
        try:
            run_script(connection, _read(step))
            version += 1
            run_script(connection, f"PRAGMA user_version = {version}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _version(connection: apsw.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").get)
