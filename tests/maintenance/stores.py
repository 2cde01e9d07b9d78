"""A small store with one of everything, and the tools to damage it behind its back."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3

from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.maintenance.offline import opened

ONE, TWO, ORPHAN = b"one" * 1000, b"two" * 500, b"nobody has me"


class Damaged:
    """A store nobody uses, changed behind its back. Rows through the standard library's SQLite."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path / "casfs.db", isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def ino(self, path: str) -> int:
        number = 1
        for name in path.strip("/").split("/"):
            ((number,),) = self.sql(
                "SELECT ino FROM dentry WHERE parent = ? AND name = ?", number, name.encode()
            )
        return number

    def add_name(self, parent: str, name: bytes, ino: int, type_: int) -> None:
        """One more name, with a cookie of its own; no link is counted."""
        ((cookie,),) = self.sql("SELECT value FROM meta WHERE key = 'next_cookie'")
        self.sql("UPDATE meta SET value = value + 1 WHERE key = 'next_cookie'")
        folder = self.ino(parent) if parent != "/" else 1
        self.sql("INSERT INTO dentry VALUES (?, ?, ?, ?, ?)", folder, cookie, name, ino, type_)

    def remove_name(self, path: str) -> None:
        self.sql("DELETE FROM dentry WHERE ino = ?", self.ino(path))

    def add_links(self, path: str, change: int) -> None:
        ino = self.ino(path) if path != "/" else 1
        self.sql("UPDATE inode SET nlink = nlink + ? WHERE ino = ?", change, ino)

    def set(self, path: str, column: str, value: object) -> None:
        self.sql(f"UPDATE inode SET {column} = ? WHERE ino = ?", value, self.ino(path))

    def blob(self, content: bytes) -> Path:
        name = blake3(content).hexdigest()
        return self.path / "blobs" / name[0] / name

    def set_blob(self, content: bytes, column: str, value: object) -> None:
        self.sql(f"UPDATE blob SET {column} = ? WHERE blake3 = ?", value, blake3(content).digest())

    def add_blob_file(self, content: bytes, data: bytes | None = None) -> Path:
        """A file at the place of a content, with that content or other data."""
        path = self.blob(content)
        path.write_bytes(content if data is None else data)
        path.chmod(0o400)
        return path

    def overwrite(self, path: Path, data: bytes) -> None:
        path.chmod(0o600)
        path.write_bytes(data)
        path.chmod(0o400)

    def files(self) -> dict[bytes, bytes]:
        """Every regular file that can be reached from the root and read: path -> content."""
        return dict(self._walk(1, b"", set()))

    def _walk(self, directory: int, path: bytes, above: set[int]) -> Iterator[tuple[bytes, bytes]]:
        assert directory not in above, "a loop"
        for name, ino in self.sql("SELECT name, ino FROM dentry WHERE parent = ?", directory):
            rows = self.sql("SELECT mode, size, blob_id, staged FROM inode WHERE ino = ?", ino)
            for mode, size, blob, staged in rows:
                if stat.S_ISDIR(mode):
                    yield from self._walk(ino, path + b"/" + name, above | {directory})
                elif stat.S_ISREG(mode) and (content := self._content(size, blob, staged)) is not None:
                    yield path + b"/" + name, content

    def _content(self, size: int, blob: int | None, staged: str | None) -> bytes | None:
        if staged is not None:
            file = self.path / "staging" / staged
        elif blob is not None:
            rows = self.sql("SELECT blake3 FROM blob WHERE id = ?", blob)
            if not rows:
                return None
            name = rows[0][0].hex()
            file = self.path / "blobs" / name[0] / name
        else:
            return b"" if not size else None
        return file.read_bytes()[:size] if file.is_file() else None

    def quarantine(self) -> set[bytes]:
        """The contents of the files there."""
        return {
            file.read_bytes()
            for file in (self.path / "quarantine").glob("**/*")
            if file.is_file() and not file.is_symlink()
        }


def make_file(fs: FileSystem, parent: int, name: bytes, content: bytes) -> int:
    inode = run_inline(fs.tree.make(parent, name, stat.S_IFREG | 0o644, 0, 0))
    handle = fs.files.open(inode, True, 0)
    run_inline(fs.files.write(handle, 0, content))
    run_inline(fs.files.flush(handle))
    run_inline(fs.files.release(handle))
    return inode.ino


def make_directory(fs: FileSystem, parent: int, name: bytes) -> int:
    return run_inline(fs.tree.make(parent, name, stat.S_IFDIR | 0o755, 0, 0)).ino


def fill(fs: FileSystem) -> None:
    a, b = make_directory(fs, 1, b"a"), make_directory(fs, 1, b"b")
    deep = make_directory(fs, a, b"deep")
    one = make_file(fs, a, b"one", ONE)
    run_inline(fs.xattrs.set(one, b"user.note", b"kept", lambda gid: True))
    run_inline(fs.xattrs.set(one, b"user.casfs.prop.qa", b"passed\nagain", lambda gid: True))
    run_inline(fs.tree.link(one, b, b"link"))
    make_file(fs, deep, b"two", TWO)
    make_file(fs, b, b"two again", TWO)
    run_inline(fs.tree.make(b, b"empty", stat.S_IFREG | 0o600, 0, 0))
    run_inline(fs.tree.make(b, b"fifo", stat.S_IFIFO | 0o600, 0, 0))
    run_inline(fs.tree.make(b, b"symlink", stat.S_IFLNK | 0o777, 0, 0, target=b"../a/one"))
    make_file(fs, 1, b"gone", ORPHAN)
    run_inline(fs.group.durable())
    removed = run_inline(fs.tree.unlink(1, b"gone"))
    run_inline(fs.tree.forget([removed.ino]))


LAYOUT = "[layout.own]\nartifact = '[org]/[module<t>][baseRev<wo>]'\n"
"""/a/deep/two is an artifact then, where /a has it."""


def add_repositories(store: Damaged) -> None:
    """/a has a layout of the store's own, /b has one that is built in."""
    a, b, deep = store.ino("/a"), store.ino("/b"), store.ino("/a/deep")
    store.sql("INSERT INTO layout VALUES ('own', ?)", LAYOUT)
    store.sql("INSERT INTO repository VALUES (?, 'local', 'own', NULL, '{}')", a)
    store.sql("INSERT INTO repository VALUES (?, 'local', 'maven-2-default', NULL, '{}')", b)
    store.sql(
        """INSERT INTO artifact VALUES
           (?, CAST('two' AS BLOB), ?, 'deep', 't', 'wo', 'wo', '', 0, '', '', '', '', '{}')""",
        deep,
        a,
    )


TURNED = "[layout.turned]\nartifact = '[baseRev<wo>]/[org]/[module<t>]'\n"
"""/a/deep/two is /view/wo/deep/t then."""


def add_views(store: Damaged) -> None:
    """/all has what is in /a and /b, /view what is in /a in another layout, and a directory of its own."""
    add_repositories(store)
    with opened(str(store)) as fs:
        every, view = make_directory(fs, 1, b"all"), make_directory(fs, 1, b"view")
    a, b = store.ino("/a"), store.ino("/b")
    store.sql("INSERT INTO layout VALUES ('turned', ?)", TURNED)
    store.sql("INSERT INTO repository VALUES (?, 'virtual', NULL, ?, '{}')", every, a)
    store.sql("INSERT INTO repository VALUES (?, 'view', 'turned', NULL, '{}')", view)
    store.sql("INSERT INTO member VALUES (?, 0, ?), (?, 1, ?), (?, 0, ?)", every, a, every, b, view, a)
    store.sql("INSERT INTO follow VALUES (?, 0), (?, 0)", every, view)
    with opened(str(store)):
        pass
