"""What differs between two snapshots, or one and the store: in order, by number and by digest."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import msgspec
import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.diff import comparing, differences_below, told
from casfs.namespace.connection import DatabaseError
from casfs.namespace.differences import Parts
from casfs.snapshots.folder import SnapshotFolder
from tests.session import Session

OLD, NEW = b"old " * 10, b"new " * 20


def found(
    session: Session, old: str = "a", new: str | None = None, path: bytes = b""
) -> list[tuple[str, bytes]]:
    """(what, path) in order; of a rename with the other path."""
    session.kernel.sync()
    with comparing(str(session.path), old, new) as differences:
        lines = []
        for each in told(differences_below(differences, path)):
            what = each.what.value
            if what == "changed" and not each.parts & Parts.CONTENT:
                what = "attributes"
            lines.append((what, each.path + (b" " + each.new_path) * (what == "renamed")))
        return lines


def take(session: Session, name: str) -> None:
    run_inline(create(session.fs, name))


@pytest.fixture
def filled(session: Session) -> Session:
    kernel = session.kernel
    for name in ("a", "a/b", "c"):
        kernel.mkdir(name)
    for name in ("a/b/one", "a/two", "c/three", "four"):
        kernel.write_file(name, OLD + name.encode())
    kernel.symlink("two", "a/link")
    take(session, "a")
    return session


def test_nothing_differs(filled: Session) -> None:
    assert found(filled) == []
    take(filled, "b")
    assert found(filled, "a", "b") == []
    assert found(filled, "a", "a") == []


def test_each_kind_of_difference(filled: Session) -> None:
    kernel = filled.kernel
    kernel.unlink("a/b/one")
    kernel.write_file("a/two", NEW)
    kernel.write_file("a/new", NEW)
    kernel.chmod("c/three", 0o600)
    kernel.setxattr("c", b"user.x", b"y")
    kernel.rename("four", "c/five")
    kernel.unlink("a/link")
    kernel.symlink("elsewhere", "a/link")
    expected = [
        ("removed", b"a/b/one"),
        ("changed", b"a/link"),
        ("added", b"a/new"),
        ("changed", b"a/two"),
        ("attributes", b"c"),
        ("attributes", b"c/three"),
        ("renamed", b"four c/five"),
    ]
    assert found(filled) == expected
    take(filled, "b")
    assert found(filled, "a", "b") == expected
    assert found(filled, path=b"/c") == [
        ("attributes", b"c"),
        ("added", b"c/five"),
        ("attributes", b"c/three"),
    ]
    assert found(filled, path=b"a/two") == [("changed", b"a/two")]
    assert found(filled, path=b"a/new") == [("added", b"a/new")]


def test_the_same_bytes_written_anew_do_not_differ(filled: Session) -> None:
    kernel = filled.kernel
    kernel.unlink("a/two")
    kernel.write_file("a/two", OLD + b"a/two")
    kernel.utime("four", 0, 5)
    assert found(filled) == []


def test_a_directory_that_moves_takes_what_is_below_with_it(filled: Session) -> None:
    kernel = filled.kernel
    kernel.rename("a", "c/moved")
    kernel.write_file("c/moved/b/one", NEW)
    kernel.mkdir("a")
    kernel.write_file("a/two", NEW)
    assert found(filled) == [
        ("renamed", b"a c/moved"),
        ("changed", b"a/b/one"),
        ("added", b"a"),
        ("added", b"a/two"),
    ]


def test_a_directory_that_is_made_anew_is_compared_with_the_one_before(filled: Session) -> None:
    kernel = filled.kernel
    kernel.rename("a/two", "two")
    kernel.unlink("a/link")
    kernel.unlink("a/b/one")
    kernel.rmdir("a/b")
    kernel.rmdir("a")
    kernel.mkdir("a")
    kernel.rename("two", "a/two")
    assert found(filled) == [("removed", b"a/b"), ("removed", b"a/b/one"), ("removed", b"a/link")]


def test_two_directories_change_places(filled: Session) -> None:
    kernel = filled.kernel
    kernel.rename("a", "x")
    kernel.rename("c", "a")
    kernel.rename("x", "c")
    assert found(filled) == [("renamed", b"a c"), ("renamed", b"c a")]


def test_names_of_one_file(filled: Session) -> None:
    kernel = filled.kernel
    kernel.link("four", "c/linked")
    assert found(filled) == [("added", b"c/linked")]
    kernel.unlink("four")
    assert found(filled) == [("renamed", b"four c/linked")]


def test_a_type_that_changes(filled: Session) -> None:
    kernel = filled.kernel
    kernel.unlink("four")
    kernel.mkdir("four")
    kernel.write_file("four/below", NEW)
    assert found(filled) == [("removed", b"four"), ("added", b"four"), ("added", b"four/below")]


def test_the_trash_is_not_compared(filled: Session) -> None:
    filled.fs.policy.trash.minimal_age_ns = 0  # type: ignore[attr-defined]
    filled.kernel.unlink("four")
    assert found(filled) == [("removed", b"four")]
    take(filled, "b")
    assert found(filled, "b") == []


def test_many_names_in_one_directory(filled: Session) -> None:
    kernel = filled.kernel
    kernel.mkdir("many")
    for number in range(1500):
        kernel.write_file(f"many/{number:04}", b"")
    take(filled, "b")
    for number in range(1500, 3000):
        kernel.write_file(f"many/{number:04}", b"")
    assert found(filled, "b") == [("added", b"many/%04d" % number) for number in range(1500, 3000)]
    take(filled, "c")
    assert found(filled, "c", "b") == [("removed", b"many/%04d" % number) for number in range(1500, 3000)]


def test_what_neither_has(filled: Session) -> None:
    with pytest.raises(FsError, match="neither"):
        found(filled, path=b"nothing")
    with pytest.raises(FsError, match="neither"):
        found(filled, path=b"four/below")


def test_one_of_another_store_is_compared_by_path_and_digest(filled: Session) -> None:
    """Its numbers of inodes and blobs mean nothing here."""
    folder = SnapshotFolder(filled.store.directory)
    manifest = msgspec.structs.replace(folder.find("a"), uuid="another", here=False)
    path = filled.path / "snapshots/a"
    (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    with closing(sqlite3.connect(path / "casfs.db")) as connection, connection:
        for table, column in (("inode", "ino"), ("dentry", "ino"), ("dentry", "parent"), ("xattr", "ino")):
            connection.execute(f"UPDATE {table} SET {column} = -{column} WHERE {column} > 1")
            connection.execute(f"UPDATE {table} SET {column} = 100 - {column} WHERE {column} < 0")
        connection.execute("UPDATE inode SET blob_id = blob_id + 1000")
        connection.execute("UPDATE blob SET id = id + 1000")
    assert found(filled) == []
    filled.kernel.rename("four", "five")
    filled.kernel.write_file("a/two", NEW)
    assert found(filled) == [("changed", b"a/two"), ("added", b"five"), ("removed", b"four")]


def test_a_tree_that_is_none_ends(filled: Session) -> None:
    """Whoever writes the database writes what he likes (I9)."""
    kernel = filled.kernel
    a, c = kernel.inode("a").ino, kernel.inode("c").ino
    database = filled.path / "snapshots/a/casfs.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO dentry SELECT ?, 9999, CAST('again' AS BLOB), ?, 4 FROM meta LIMIT 1", (c, a)
        )
    with pytest.raises(DatabaseError):
        found(filled)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM dentry WHERE cookie = 9999")
