"""What somebody may have done to a store before root mounts it: its files, its rows, its schema."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sqlite3
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

NUMBERS = (
    -(2**63),
    -(2**31),
    -1,
    0,
    1,
    2,
    3,
    4,
    99,
    4096,
    0o100644,
    0o040755,
    0o120777,
    2**31,
    2**62,
    2**63 - 1,
)
NAMES = (
    *(b"", b".", b"..", b"/", b"a/b", b"../../outside/file", b"a\0b", b"\n", b"x" * 255, b"x" * 256),
    *(b".casfs", b"trash", b"lost+found", b"\xff\xfe", b"file", b"directory", b"x" * 100_000),
)
TEXTS = (
    *(
        "",
        ".",
        "..",
        "../../outside/file",
        "../blobs",
        "a\0b",
        "\n",
        "0" * 16,
        "abc-lent",
        "-lent",
        "x" * 5000,
    ),
    *("\ud7ff", "[" * 500, "9" * 400, "removed", "*"),
    *(
        "virtual",
        "view",
        "maven-2-default",
        '{"exclude": ' + "[" * 100_000,
        '{"quota_bytes": ' + "9" * 5000 + "}",
    ),
    *(
        "[layout.own]\nartifact = '" + "(" * 5000 + "'\n",
        "a = " + "[" * 100_000,
        "[layout.own]\n" + "a." * 20_000,
    ),
)
TABLES = (
    *("meta", "blob", "inode", "dentry", "xattr", "collection", "pin", "pinned", "damage", "trash"),
    *("blob_digest", "property"),
    *(
        "trash_rule",
        "repository",
        "member",
        "layout",
        "artifact",
        "follow",
        "noted",
        "derived",
        "kept",
        "property",
        "sqlite_sequence",
    ),
)
OFTEN = ("inode", "inode", "dentry", "dentry", "blob", "meta", "derived", "derived")
FOLDERS = ("staging", "run", "blobs", "quarantine", "blobs/0", "blobs/f")
RUN = (
    "lock",
    "turnstile",
    "gc.lock",
    "gcd.lock",
    "scrub",
    "digests",
    "control",
    "mount.log",
    "mount.log.1",
    "digests.log",
    "spare0",
)
DATABASE = ("casfs.db", "casfs.db-wal", "casfs.db-shm", "casfs.db-journal")
SCHEMA = (
    "CREATE TRIGGER evil AFTER UPDATE ON inode BEGIN DELETE FROM dentry; END",
    "CREATE TRIGGER evil AFTER DELETE ON blob BEGIN INSERT INTO meta VALUES (random(), 1); END",
    "CREATE VIEW evil AS SELECT * FROM inode",
    "CREATE TABLE evil (a INTEGER)",
    "CREATE INDEX evil ON inode (abs(size))",
    "CREATE UNIQUE INDEX evil ON dentry (type, cookie)",
    "ALTER TABLE inode ADD COLUMN evil INTEGER GENERATED ALWAYS AS (size * 2) VIRTUAL",
    "ALTER TABLE dentry RENAME COLUMN type TO kind",
    "DROP TABLE trash",
    "DROP INDEX dentry_cookie",
    "DROP TABLE dentry; CREATE VIEW dentry AS SELECT 1 parent, 5 cookie, x'61' name, 1 ino, 4 type",
    "DROP TABLE meta; CREATE TABLE meta (key, value)",
    "PRAGMA application_id = 7",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = 1",
    "PRAGMA user_version = 99",
    "PRAGMA user_version = -1",
    "PRAGMA journal_mode = DELETE",
    "ANALYZE",
)
CONFIGS = (
    *(b"", b"\0" * 100, b"[" * 3000, b"x" * 100_000, b"\xff\xfe", b"format = 1\n", b"a=" + b"{b=" * 900),
    *(b'format = 1\ndigest = "blake3"\nfan_out = %d\n' % fan_out for fan_out in (0, 2, 3, 99, -1)),
    b'format = 99999999999999999999\ndigest = "blake3"\nfan_out = 1\n',
    b'format = -1\ndigest = "blake3"\nfan_out = 1\n',
    b'format = 1\ndigest = "md5"\nfan_out = 1\n',
    b'format = 1\ndigest = "blake3"\nfan_out = 1\nevil = 2\n',
    b'format = true\ndigest = "blake3"\nfan_out = 1.5\n',
)


class Attacker:
    """Changes a store that nobody uses; `outside` is what no program may touch. The same seed does the same.

    `done`: what was changed, to be printed. `is_loose`: rows have values of other types than their columns.
    """

    def __init__(self, store: Path, outside: Path, seed: int) -> None:
        self._store = store
        self._outside = outside
        self._dice = random.Random(seed)
        self.done: list[str] = []
        self.is_loose = False

    def attack(self) -> None:
        ways: tuple[tuple[Callable[[], str], int], ...] = (
            (self._file, 6),
            (self._row, 8),
            (self._loose_row, 3),
            (self._staged, 2),
            (self._cycle, 1),
            (self._schema, 1),
            (self._bytes, 1),
            (self._config, 1),
            (self._journal, 1),
        )
        kinds, weights = zip(*ways, strict=True)
        for way in self._dice.choices(kinds, weights, k=self._dice.choice((1, 1, 2, 3, 5, 8))):
            with contextlib.suppress(OSError, sqlite3.Error, ValueError, IndexError, OverflowError):
                self.done.append(way())

    # Files

    def _file(self) -> str:
        path = self._place()
        way = self._dice.choice((*self._replacements, self._mode, self._swap, self._cut, self._grow))
        way(path)
        return f"{way.__name__.strip('_')} {path.relative_to(self._store)!s}"

    def _place(self) -> Path:
        """Raises ValueError for one that lies outside by now, behind a link that was put there before."""
        path = self._any_place()
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(self._store)):
            raise ValueError("it lies outside")
        return path

    def _any_place(self) -> Path:
        kind = self._dice.random()
        if kind < 0.2:
            return self._store / self._dice.choice(FOLDERS)
        if kind < 0.45:
            return self._store / "run" / self._dice.choice(RUN)
        if kind < 0.6:
            return self._store / self._dice.choice((*DATABASE, "casfs.toml"))
        if kind < 0.7:
            folder = self._store / self._dice.choice(FOLDERS)
            return folder / self._dice.choice(("new", "\n", "0" * 16, "a" * 64, "0" * 64, "\udcff"))
        there = sorted(self._store.glob("blobs/*/*")) + sorted(self._store.glob("staging/*"))
        return self._dice.choice(there)

    @property
    def _replacements(self) -> tuple[Callable[[Path], None], ...]:
        return (
            *(self._link_to_file, self._link_to_folder, self._link_to_itself, self._link_inside),
            *(self._fifo, self._socket, self._device, self._folder, self._empty, self._noise, self._nothing),
            *(self._second_name_outside, self._second_name_inside),
        )

    def _clear(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _link_to_file(self, path: Path) -> None:
        self._clear(path)
        path.symlink_to(self._outside / "file")

    def _link_to_folder(self, path: Path) -> None:
        self._clear(path)
        path.symlink_to(self._outside / self._dice.choice((".", "folder")))

    def _link_to_itself(self, path: Path) -> None:
        self._clear(path)
        path.symlink_to(path)

    def _link_inside(self, path: Path) -> None:
        self._clear(path)
        path.symlink_to(self._store / self._dice.choice(("blobs", "staging", "run", "casfs.db", ".")))

    def _fifo(self, path: Path) -> None:
        self._clear(path)
        os.mkfifo(path)

    def _socket(self, path: Path) -> None:
        self._clear(path)
        where = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
        finally:
            os.chdir(where)

    def _device(self, path: Path) -> None:
        self._clear(path)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, self._dice.choice((5, 7, 3))))

    def _folder(self, path: Path) -> None:
        self._clear(path)
        path.mkdir()
        (path / "below").touch()

    def _empty(self, path: Path) -> None:
        self._clear(path)
        path.touch()

    def _noise(self, path: Path) -> None:
        self._clear(path)
        path.write_bytes(self._dice.randbytes(self._dice.choice((1, 100, 5000))))

    def _nothing(self, path: Path) -> None:
        self._clear(path)

    def _second_name_outside(self, path: Path) -> None:
        self._clear(path)
        os.link(self._outside / "file", path)

    def _second_name_inside(self, path: Path) -> None:
        other = self._place()
        if other.is_file() and not other.is_symlink() and other != path:
            self._clear(path)
            os.link(other, path)

    def _mode(self, path: Path) -> None:
        if not os.path.islink(path):  # which has no mode, and may lead outside
            os.chmod(path, self._dice.choice((0, 0o777, 0o4755, 0o200, 0o1777)))

    def _swap(self, path: Path) -> None:
        other, aside = self._place(), path.with_name("aside")
        path.rename(aside)
        if os.path.lexists(other):
            other.rename(path)
        aside.rename(other)

    def _cut(self, path: Path) -> None:
        if path.is_file() and not path.is_symlink():
            os.truncate(path, self._dice.randrange(path.stat().st_size + 1))

    def _grow(self, path: Path) -> None:
        if path.is_file() and not path.is_symlink():
            os.truncate(path, self._dice.choice((5000, 1 << 20, 1 << 26)))

    def _bytes(self) -> str:
        path = self._store / self._dice.choice(("casfs.db", "casfs.db", "casfs.db", "casfs.toml"))
        if not stat.S_ISREG(path.lstat().st_mode):
            return f"{path.name} is no file"
        data = bytearray(path.read_bytes())
        for _ in range(self._dice.choice((1, 1, 5, 50))):
            data[self._dice.randrange(len(data))] = self._dice.randrange(256)
        path.write_bytes(data)
        return f"bytes of {path.name}"

    def _config(self) -> str:
        text = self._dice.choice(CONFIGS)
        self._clear(self._store / "casfs.toml")
        (self._store / "casfs.toml").write_bytes(text)
        return f"casfs.toml {text[:60]!r}"

    def race(self) -> NoReturn:
        """Until it is killed: links in the place of folders and files, for a moment each."""
        folders = ("staging", "blobs", "blobs/0", "blobs/3", "blobs/6", "blobs/a")
        files = ("casfs.db", "casfs.db-wal", "casfs.db-shm", "casfs.toml", "run/mount.log", "run/gc.lock")
        while True:
            name = self._dice.choice((*folders, *folders, *files))
            path, aside = self._store / name, self._store / "aside"
            with contextlib.suppress(OSError):
                path.rename(aside)
                path.symlink_to(self._outside / ("folder" if name in folders else "file"))
                time.sleep(self._dice.random() * 0.003)
                path.unlink()
            with contextlib.suppress(OSError):
                aside.rename(path)
            time.sleep(self._dice.random() * 0.003)

    def _journal(self) -> str:
        """A rollback journal that names a file outside as its super-journal."""
        name = os.fsencode(self._outside / "file")
        magic = bytes.fromhex("d9d505f920a163d7")
        pages = (self._store / "casfs.db").stat().st_size // 4096
        head = (magic + struct.pack(">IIIII", 0, 0, pages, 512, 4096)).ljust(512, b"\0")
        tail = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name))
        self._clear(self._store / "casfs.db-journal")
        (self._store / "casfs.db-journal").write_bytes(head + tail + magic)
        return "journal"

    # The database

    def _connect(self) -> sqlite3.Connection:
        for end in ("", "-journal", "-wal", "-shm"):  # a fifo, of an attack before, would be waited for
            path = f"{self._store}/casfs.db{end}"
            if (not end or os.path.lexists(path)) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise OSError("the database is no file any more")
        return sqlite3.connect(self._store / "casfs.db", isolation_level=None, timeout=1)

    def _schema(self) -> str:
        statement = self._dice.choice(SCHEMA)
        with contextlib.closing(self._connect()) as database:
            database.executescript(statement)
        return statement

    def _value(self, old: Any) -> Any:
        kind = self._dice.random()
        if isinstance(old, int) and kind < 0.2:
            return old + self._dice.choice((-1, 1))
        if kind < 0.05:
            return None
        if isinstance(old, bytes):
            return self._dice.choice((*NAMES, old[:-1], old + b"\0", self._dice.randbytes(len(old))))
        if isinstance(old, str):
            return self._dice.choice(TEXTS)
        return self._dice.choice(NUMBERS)

    def _row(self, *, loose: bool = False) -> str:
        with contextlib.closing(self._connect()) as database:
            if loose:
                _set_strict(database, on=False)
            try:
                return self._change(database, loose)
            finally:
                if loose:
                    _set_strict(database, on=True)

    def _loose_row(self) -> str:
        """A row that a STRICT table cannot have: who writes the file writes what he likes."""
        self.is_loose = True
        return self._row(loose=True)

    def _change(self, database: sqlite3.Connection, loose: bool) -> str:
        table = self._dice.choice((*TABLES, *OFTEN))
        cursor = database.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
        columns = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        if not rows:
            return f"{table} is empty"
        row = list(self._dice.choice(rows))
        number = self._dice.randrange(len(row))
        where = " AND ".join(f"{column} IS ?" for column in columns)
        kind = self._dice.random()
        if kind < 0.1:
            database.execute(f"DELETE FROM {table} WHERE {where}", row)
            return f"DELETE {table} {row}"
        old = list(row)
        row[number] = self._odd(row[number]) if loose else self._value(row[number])
        if kind < 0.3:
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            return f"INSERT {table} {row!s:.200}"
        database.execute(f"UPDATE {table} SET {columns[number]} = ? WHERE {where}", (row[number], *old))
        return f"UPDATE {table} {old!s:.200} SET {columns[number]} = {row[number]!r:.80}"

    def _odd(self, old: Any) -> Any:
        return self._dice.choice([v for v in ("text", b"bytes", 1.5, None, 7) if type(v) is not type(old)])

    def _staged(self) -> str:
        """A row that names a staged file, and whatever lies there."""
        name = self._dice.choice((*TEXTS, "00ff00ff00ff00ff", "00ff00ff00ff00ff-lent"))
        with contextlib.closing(self._connect()) as database:
            inodes = [ino for (ino,) in database.execute("SELECT ino FROM inode ORDER BY ino")]
            database.execute(
                "UPDATE inode SET staged = ?, blob_id = NULL, size = ? WHERE ino = ?",
                (name, self._dice.choice((0, 10, 10_000, -1, 2**62)), self._dice.choice(inodes)),
            )
        self._dice.choice(self._replacements)(self._store / "staging" / "00ff00ff00ff00ff")
        return f"staged {name!r}"

    def _cycle(self) -> str:
        """A directory that gets a name in another one."""
        with contextlib.closing(self._connect()) as database:
            directories = [
                ino for (ino,) in database.execute("SELECT ino FROM inode WHERE mode >> 12 = 4 ORDER BY ino")
            ]
            parent, child = self._dice.choice(directories), self._dice.choice(directories)
            if self._dice.random() < 0.3:
                column = self._dice.choice(("parent", "ino", "tree", "source_parent"))
                database.execute(f"UPDATE derived SET {column} = ? WHERE ino = ?", (parent, child))
            elif self._dice.random() < 0.5:
                database.execute("UPDATE dentry SET parent = ? WHERE ino = ?", (parent, child))
            else:
                database.execute("INSERT INTO dentry VALUES (?, 1000, x'6379636c65', ?, 4)", (parent, child))
        return f"cycle {parent} {child}"


def _set_strict(database: sqlite3.Connection, *, on: bool) -> None:
    ends = {True: (") STRICT", ") WITHOUT ROWID, STRICT"), False: (")", ") WITHOUT ROWID")}
    database.execute("PRAGMA writable_schema = ON")
    for table in TABLES[:-1]:
        ((sql,),) = database.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
        kind = "WITHOUT ROWID" in sql
        sql = sql.removesuffix(ends[not on][kind]) + ends[on][kind]
        database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
    database.execute("PRAGMA writable_schema = RESET")
