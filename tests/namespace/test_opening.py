"""SQLite opens the files of a database, if they are files of their own, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
from pathlib import Path

import apsw
import pytest

from casfs.errors import FormatError
from casfs.namespace.connection import DatabaseError
from casfs.namespace.namespace import Namespace
from casfs.namespace.opening import name_database

MAGIC = bytes.fromhex("d9d505f920a163d7")


def hot_journal(database: Path, names: Path) -> None:
    """A rollback journal as a transaction over several databases leaves it, with that super-journal."""
    name = os.fsencode(names)
    pages = database.stat().st_size // 4096
    head = (MAGIC + struct.pack(">IIIII", 0, 0, pages, 512, 4096)).ljust(512, b"\0")
    tail = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    database.with_name(f"{database.name}-journal").write_bytes(head + tail)


def test_no_journal_that_is_there_removes_a_file(database: Path, scratch: Path) -> None:
    victim = scratch / "victim"
    victim.write_bytes(b"theirs")
    hot_journal(database, victim)
    for readonly in (False, True):
        with pytest.raises((FormatError, DatabaseError)):
            Namespace(str(database), readonly=readonly)
        assert victim.read_bytes() == b"theirs"
    connection = sqlite3.connect(database)
    connection.execute("SELECT * FROM meta").fetchall()
    connection.close()
    assert not victim.exists(), "SQLite by itself removes it: the journal is one"


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "fifo", "device", "second name"])
def test_what_lies_in_the_place_of_a_file_is_not_used(
    database: Path, scratch: Path, end: str, kind: str
) -> None:
    victim, place = scratch / "victim", Path(f"{database}{end}")
    (database if not end else victim).touch()
    if not end:
        database.rename(victim)
    before = victim.read_bytes()
    match kind:
        case "link":
            place.symlink_to(victim)
        case "fifo":
            os.mkfifo(place)
        case "device":
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        case _:
            os.link(victim, place)
    with pytest.raises((FormatError, OSError)):
        Namespace(str(database))
    assert victim.read_bytes() == before


def test_no_other_file_is_opened(database: Path, scratch: Path) -> None:
    other = scratch / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE a (b)").connection.close()
    namespace = Namespace(str(database))
    try:
        with pytest.raises(DatabaseError, match="unable to open"):
            namespace.query("ATTACH ? AS other", (str(other),))
        with pytest.raises(apsw.CantOpenError):
            apsw.Connection(str(other)).execute("SELECT * FROM a")
    finally:
        namespace.close()
    name_database(str(other))
    connection = apsw.Connection(str(other))
    assert connection.execute("SELECT * FROM a").fetchall() == []
    connection.close()
