"""Every defect fsck knows, each made alone in the store of `stores.fill`."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from blake3 import blake3

from casfs.fs.scheduler import run_inline
from casfs.maintenance.offline import opened
from casfs.maintenance.snapshots.create import create
from casfs.namespace.artifacts import ArtifactRow
from tests.maintenance.stores import (
    ONE,
    ORPHAN,
    TWO,
    Damaged,
    add_repositories,
    add_views,
    make_directory,
    make_file,
)

ARTIFACT = ArtifactRow._fields

ERROR, GARBAGE, NOTE = "error", "garbage", "note"

ONES = (b"/a/one", b"/b/link")
TWOS = (b"/a/deep/two", b"/b/two again")


@dataclass(frozen=True)
class Defect:
    """`paths`: what fsck names. After repair: `left` is still found; files at `moved` paths are elsewhere,
    old -> new, a pattern, empty if they are gone; `lost` paths cannot be read; `gained` are there beside
    what was there before; `quarantined` contents are kept in quarantine/."""

    name: str
    kind: str
    make: Callable[[Damaged], object]
    paths: tuple[bytes, ...] = ()
    severity: str = ERROR
    deep: bool = False
    left: tuple[str, ...] = ()
    moved: dict[bytes, bytes] = field(default_factory=dict)
    lost: tuple[bytes, ...] = ()
    gained: dict[bytes, bytes] = field(default_factory=dict)
    quarantined: tuple[bytes, ...] = ()


def _snapshot_folder(name: str) -> Callable[[Damaged], object]:
    def make(store: Damaged) -> None:
        (store.path / "snapshots").mkdir(mode=0o700, exist_ok=True)
        (store.path / "snapshots" / name).mkdir(mode=0o700)

    return make


def _held(store: Damaged, content: bytes) -> None:
    """Only a snapshot refers to it, and it is gone, row and file."""
    with opened(str(store)) as fs:
        make_file(fs, 1, b"held", content)
        run_inline(create(fs, "held"))
        run_inline(fs.tree.unlink(1, b"held"))
    store.sql("DELETE FROM blob WHERE blake3 = ?", blake3(content).digest())
    store.blob(content).unlink()


def _renamed(name: bytes) -> Callable[[Damaged], object]:
    return lambda store: store.sql("UPDATE dentry SET name = ? WHERE ino = ?", name, store.ino("/a/deep/two"))


def _bad_name(name: bytes, shown: str) -> Defect:
    moved = {b"/a/deep/two": b"/a/deep/bad-name-*"}
    return Defect(f"name {shown}", "bad-name", _renamed(name), (b"/a/deep/" + name,), moved=moved)


def _renumbered(store: Damaged, kind: str, number: int) -> None:
    old = store.ino("/a/deep/two")
    if kind == "blob":
        ((old,),) = store.sql("SELECT id FROM blob WHERE blake3 = ?", blake3(TWO).digest())
        tables = [("blob", "id"), ("inode", "blob_id")]
    else:
        tables = [("inode", "ino"), ("dentry", "ino")]
    for table, column in tables:
        store.sql(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", number, old)


def _set_meta(store: Damaged, key: str, value: int) -> None:
    store.sql("UPDATE meta SET value = ? WHERE key = ?", value, key)


def _set_cookie(store: Damaged, cookie: int) -> None:
    store.sql("UPDATE dentry SET cookie = ? WHERE ino = ?", cookie, store.ino("/a/deep/two"))


def _missing_directory(store: Damaged) -> None:
    store.sql("DELETE FROM inode WHERE ino = ?", store.ino("/a/deep"))


def _untold_trash(store: Damaged) -> None:
    ino = store.ino("/a/deep")
    store.add_links("/a", -1)
    store.sql("UPDATE dentry SET parent = 1, name = x'2e6361736673' WHERE ino = ?", ino)
    store.sql("INSERT INTO meta VALUES ('casfs_directory', ?)", ino)


def _missing_nameless_directory(store: Damaged) -> None:
    ino = store.ino("/a/deep")
    store.remove_name("/a/deep")
    store.add_links("/a", -1)
    store.sql("DELETE FROM inode WHERE ino = ?", ino)


def _entries_in_a_file(store: Damaged) -> None:
    file, moved = store.ino("/a/one"), store.ino("/a/deep/two")
    store.sql("UPDATE dentry SET parent = ? WHERE ino = ?", file, moved)


def _entry_in_a_view(store: Damaged) -> None:
    add_views(store)
    store.add_name("/view", b"lost", store.ino("/a/one"), 8)
    store.add_links("/a/one", 1)


def _entry_below_a_view(store: Damaged) -> None:
    _entry_in_a_view(store)
    store.sql(
        """UPDATE dentry SET parent = (SELECT ino FROM derived WHERE name = CAST('wo' AS BLOB) AND type = 4)
           WHERE name = CAST('lost' AS BLOB)"""
    )


def _two_names(store: Damaged) -> None:
    store.add_name("/b", b"deep", store.ino("/a/deep"), 4)
    store.add_links("/b", 1)


def _name_below_itself(store: Damaged) -> None:
    """An older name than the right one leads from a directory to itself."""
    ino = store.ino("/a")
    store.add_name("/a/deep", b"again", ino, 4)
    store.sql("UPDATE dentry SET cookie = 13 WHERE ino = ? AND parent = 1", ino)
    store.sql("UPDATE dentry SET cookie = 3 WHERE name = ?", b"again")
    store.add_links("/a/deep", 1)


def _name_of_the_root(store: Damaged) -> None:
    store.add_name("/b", b"root", 1, 4)
    store.add_links("/b", 1)


def _loop(store: Damaged) -> None:
    a, deep = store.ino("/a"), store.ino("/a/deep")
    store.add_links("/", -1)
    store.add_links("/a/deep", 1)
    store.sql("UPDATE dentry SET parent = ? WHERE ino = ?", deep, a)


def _loop_of_one(store: Damaged) -> None:
    deep = store.ino("/a/deep")
    store.add_links("/a/deep", 1)
    store.add_links("/a", -1)
    store.sql("UPDATE dentry SET parent = ? WHERE ino = ?", deep, deep)


def _nameless_directory(store: Damaged) -> None:
    store.remove_name("/a/deep")
    store.add_links("/a", -1)


def _unlinked(store: Damaged) -> None:
    store.set("/b/empty", "nlink", 0)
    store.remove_name("/b/empty")


def _cut_off_copy(store: Damaged) -> None:
    """What `casfs cp -r` leaves when it is killed: a directory without a name, links not counted yet."""
    store.set("/a", "nlink", 0)
    store.set("/a/deep", "nlink", 7)
    store.sql("DELETE FROM dentry WHERE name = ?", b"link")
    store.sql("UPDATE inode SET nlink = 1 WHERE ino = ?", store.ino("/a/one"))
    store.add_links("/", -1)
    store.sql("DELETE FROM dentry WHERE parent = 1 AND name = ?", b"a")


def _in_repositories(statement: str, *names: str) -> Callable[[Damaged], object]:
    """A statement about the numbers of these directories, when there are repositories."""

    def make(store: Damaged) -> None:
        add_repositories(store)
        store.sql(statement, *map(store.ino, names))

    return make


def _in_views(statement: str, *names: str) -> Callable[[Damaged], object]:
    """A statement about the numbers of these directories, when there are trees."""

    def make(store: Damaged) -> None:
        add_views(store)
        store.sql(statement, *map(store.ino, names))

    return make


def _make_empty(store: Damaged) -> None:
    with opened(str(store)) as fs:
        for name in (b"v", b"w"):
            make_directory(fs, 1, name)


def _nowhere_to_write(store: Damaged) -> None:
    _make_empty(store)
    store.sql("INSERT INTO repository VALUES (?, 'virtual', NULL, 999, '{}')", store.ino("/v"))


def _members(*members: tuple[str, str]) -> Callable[[Damaged], object]:
    """Virtual repositories, /v and /w, and what each shows."""

    def make(store: Damaged) -> None:
        _make_empty(store)
        for position, (repository, member) in enumerate(members):
            ino = store.ino(repository)
            store.sql("INSERT OR IGNORE INTO repository VALUES (?, 'virtual', NULL, NULL, '{}')", ino)
            store.sql("INSERT INTO member VALUES (?, ?, ?)", ino, position, store.ino(member))

    return make


def _blob_of(store: Damaged, content: bytes) -> int:
    name = bytes.fromhex(store.blob(content).name)
    ((blob,),) = store.sql("SELECT id FROM blob WHERE blake3 = ?", name)
    return int(blob)


def _content_of_a_fifo(store: Damaged) -> None:
    ino = store.ino("/b/fifo")
    values = _blob_of(store, ORPHAN), len(ORPHAN), ino
    store.sql("UPDATE inode SET blob_id = ?, size = ? WHERE ino = ?", *values)
    store.sql("UPDATE blob SET refs = 1, orphaned_ns = NULL WHERE id = ?", values[0])


def _no_row_of_the_blob(store: Damaged) -> None:
    blob = _blob_of(store, ONE)
    store.sql("DELETE FROM blob WHERE id = ?", blob)
    store.blob(ONE).unlink()


def _staged(store: Damaged, name: str, data: bytes | None, size: int) -> None:
    if data is not None:
        (store.path / "staging" / name).write_bytes(data)
    store.sql("UPDATE inode SET staged = ?, size = ? WHERE ino = ?", name, size, store.ino("/b/empty"))


def _swap_shard(store: Damaged, content: bytes, data: bytes | None = None, *, keep: bool = False) -> None:
    right = store.blob(content)
    wrong = store.path / "blobs" / ("0" if right.parent.name != "0" else "1") / right.name
    if keep:
        shutil.copy2(right, wrong)
    else:
        os.rename(right, wrong)
    if data is not None:
        store.overwrite(wrong, data)


def _wrong_sizes_in_rows(store: Damaged) -> None:
    store.set_blob(ONE, "size", 7)
    store.set("/a/one", "size", 7)


def _no_folder(name: str) -> Callable[[Damaged], object]:
    return lambda store: shutil.rmtree(store.path / name)


def _file_for_folder(store: Damaged) -> None:
    (store.path / "staging").rmdir()
    (store.path / "staging").write_bytes(b"in the way")


def _mode(name: str, mode: int) -> Callable[[Damaged], object]:
    return lambda store: (store.path / name).chmod(mode)


def _index_without_a_row(store: Damaged) -> None:
    """A name that the index from inode to names does not have."""
    connection = sqlite3.connect(store.path / "casfs.db", isolation_level=None)
    where = "FROM sqlite_schema WHERE name = 'dentry_ino'"
    connection.execute("PRAGMA writable_schema = ON")
    (row,) = connection.execute(f"SELECT * {where}").fetchall()
    connection.execute(f"DELETE {where}")
    connection.close()
    store.add_name("/b", b"third", store.ino("/a/one"), 8)
    store.add_links("/a/one", 1)
    connection = sqlite3.connect(store.path / "casfs.db", isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    connection.close()


def _write(name: str, data: bytes) -> Callable[[Damaged], object]:
    def make(store: Damaged) -> None:
        path = store.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    return make


DEFECTS = (
    Defect(
        "inode number near the end",
        "huge-number",
        lambda s: _renumbered(s, "inode", 2**63 - 1),
        (),
    ),
    Defect("socket", "run-file", lambda s: (s.path / "run/control").mkdir(), left=("run-file",)),
    Defect("run file", "run-file", lambda s: os.mkfifo(s.path / "run/mount.log"), left=("run-file",)),
    Defect("inode number below zero", "huge-number", lambda s: _renumbered(s, "inode", -7), ()),
    Defect("blob number near the end", "huge-number", lambda s: _renumbered(s, "blob", 2**62), ()),
    Defect(
        "no numbers left for blobs",
        "counter",
        lambda s: s.sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 'blob'", 2**63 - 1),
    ),
    Defect("next_ino at the end", "counter", lambda s: _set_meta(s, "next_ino", 2**63 - 1)),
    Defect("cookie near the end", "bad-cookie", lambda s: _set_cookie(s, 2**63 - 1), (b"/a/deep/two",)),
    Defect("owner below zero", "bad-value", lambda s: s.set("/a/deep/two", "uid", -1), (b"/a/deep/two",)),
    Defect("size of blocks below zero", "bad-value", lambda s: s.set("/a/one", "allocated", -1), ONES),
    Defect("index without a row", "database", _index_without_a_row, deep=True),
    Defect(
        "next_ino", "counter", lambda store: store.sql("UPDATE meta SET value = 5 WHERE key = 'next_ino'")
    ),
    Defect("next_cookie", "counter", lambda store: store.sql("DELETE FROM meta WHERE key = 'next_cookie'")),
    Defect("uuid", "counter", lambda store: store.sql("DELETE FROM meta WHERE key = 'uuid'")),
    Defect("no root", "root", lambda store: store.sql("DELETE FROM inode WHERE ino = 1")),
    Defect("root is a file", "root", lambda store: store.sql("UPDATE inode SET mode = 33188 WHERE ino = 1")),
    _bad_name(b"", "empty"),
    _bad_name(b".", "dot"),
    _bad_name(b"..", "dot dot"),
    _bad_name(b"x/y", "with a slash"),
    _bad_name(b"x\0", "with a null byte"),
    _bad_name(b"x" * 256, "too long"),
    Defect(
        "reserved cookie",
        "bad-cookie",
        lambda store: store.sql("UPDATE dentry SET cookie = 2 WHERE ino = ?", store.ino("/a/deep/two")),
        (b"/a/deep/two",),
    ),
    Defect(
        "cookie of another name",
        "bad-cookie",
        lambda store: store.sql("UPDATE dentry SET cookie = 3 WHERE ino = ?", store.ino("/a/deep/two")),
        (b"/a/deep/two",),
    ),
    Defect("dangling", "dangling-name", lambda store: store.add_name("/b", b"ghost", 99, 8), (b"/b/ghost",)),
    Defect("dangling directory", "dangling-name", _missing_directory, (b"/a/deep",)),
    Defect(
        "type of a file",
        "wrong-type",
        lambda store: store.sql("UPDATE dentry SET type = 4 WHERE ino = ?", store.ino("/a/deep/two")),
        (b"/a/deep/two",),
    ),
    Defect(
        "type of a directory",
        "wrong-type",
        lambda store: store.sql("UPDATE dentry SET type = 8 WHERE ino = ?", store.ino("/a/deep")),
        (b"/a/deep",),
    ),
    Defect(
        "entries in nothing",
        "lost-entries",
        _missing_nameless_directory,
        (b"(inode 4)",),
        moved={b"/a/deep/two": b"/lost+found/ino-4/two"},
    ),
    Defect(
        "entries in a file",
        "lost-entries",
        _entries_in_a_file,
        ONES,
        moved={b"/a/deep/two": b"/lost+found/ino-5-entries/two"},
    ),
    Defect(
        "entries in a view",
        "lost-entries",
        _entry_in_a_view,
        (b"/view",),
        gained={b"/lost+found/ino-13-entries/lost": ONE},
    ),
    Defect(
        "entries in a directory of a view",
        "lost-entries",
        _entry_below_a_view,
        (b"/view/wo",),
        gained={b"/lost+found/ino-15-entries/lost": ONE},
    ),
    Defect("two names", "many-names", _two_names, (b"/a/deep", b"/b/deep")),
    Defect("name below itself", "many-names", _name_below_itself, (b"/a", b"/a/deep/again")),
    Defect("name of the root", "many-names", _name_of_the_root, (b"/",)),
    Defect(
        "loop",
        "loop",
        _loop,
        (b"(inode 2)/deep/a", b"(inode 4)/a/deep"),
        moved={
            b"/a/one": b"/lost+found/ino-2/one",
            b"/a/deep/two": b"/lost+found/ino-2/deep/two",
        },
    ),
    Defect(
        "loop of one",
        "loop",
        _loop_of_one,
        (b"(inode 4)/deep",),
        moved={b"/a/deep/two": b"/lost+found/ino-4/two"},
    ),
    Defect(
        "nameless file",
        "nameless",
        lambda store: store.remove_name("/a/deep/two"),
        (b"(inode 6)",),
        moved={b"/a/deep/two": b"/lost+found/ino-6"},
    ),
    Defect(
        "nameless directory",
        "nameless",
        _nameless_directory,
        (b"(inode 4)",),
        moved={b"/a/deep/two": b"/lost+found/ino-4/two"},
    ),
    Defect("links of a file", "wrong-links", lambda store: store.add_links("/a/one", 3), ONES),
    Defect("links of a directory", "wrong-links", lambda store: store.add_links("/a", -1), (b"/a",)),
    Defect("links of the root", "wrong-links", lambda store: store.add_links("/", 1), (b"/",)),
    Defect("named without links", "wrong-links", lambda store: store.set("/a/one", "nlink", 0), ONES),
    Defect(
        "named directory without links", "wrong-links", lambda store: store.set("/a", "nlink", 0), (b"/a",)
    ),
    Defect("unlinked", "unlinked", _unlinked, severity=NOTE, moved={b"/b/empty": b""}),
    Defect(
        "cut-off copy",
        "unlinked",
        _cut_off_copy,
        severity=NOTE,
        moved={b"/a/one": b"", b"/b/link": b"", b"/a/deep/two": b""},
    ),
    Defect(
        "value without a row",
        "missing-property",
        lambda store: store.sql("DELETE FROM property WHERE value = 'again'"),
        ONES,
    ),
    Defect(
        "row of another value",
        "wrong-property",
        lambda store: store.sql("INSERT INTO property SELECT ino, key, 'failed' FROM property LIMIT 1"),
        ONES,
    ),
    Defect(
        "row of another key",
        "wrong-property",
        lambda store: store.sql("INSERT INTO property SELECT ino, 'qb', value FROM property LIMIT 1"),
        ONES,
    ),
    Defect(
        "property without an attribute",
        "wrong-property",
        lambda store: store.sql("DELETE FROM xattr WHERE name = CAST('user.casfs.prop.qa' AS BLOB)"),
        ONES,
    ),
    Defect(
        "attribute without a property",
        "missing-property",
        lambda store: store.sql(
            "INSERT INTO xattr VALUES (?, CAST('user.casfs.prop.qb' AS BLOB), x'70')", store.ino("/a/one")
        ),
        ONES,
    ),
    Defect(
        "property of nothing",
        "wrong-property",
        lambda store: store.sql("INSERT INTO property VALUES (99, 'qa', 'passed')"),
        (b"(inode 99)",),
    ),
    Defect(
        "attributes of nothing",
        "stray-xattr",
        lambda store: store.sql("INSERT INTO xattr VALUES (99, ?, ?)", b"user.x", b"y"),
        severity=GARBAGE,
    ),
    Defect("mode of a file", "bad-mode", lambda store: store.set("/a/deep/two", "mode", 0o644), (TWOS[0],)),
    Defect(
        "mode of a link", "bad-mode", lambda store: store.set("/b/symlink", "mode", 0o777), (b"/b/symlink",)
    ),
    Defect(
        "content of a fifo",
        "stray-content",
        _content_of_a_fifo,
        (b"/b/fifo",),
        gained={b"/lost+found/ino-9-content": ORPHAN},
    ),
    Defect(
        "no target",
        "lost-target",
        lambda store: store.set("/b/symlink", "target", None),
        (b"/b/symlink",),
        left=("lost-target",),
    ),
    Defect("no row", "lost-content", _no_row_of_the_blob, ONES, left=("lost-content",), lost=ONES),
    Defect(
        "no content",
        "lost-content",
        lambda store: store.set("/b/empty", "size", 5),
        (b"/b/empty",),
        left=("lost-content",),
        lost=(b"/b/empty",),
    ),
    Defect("size of a file", "wrong-size", lambda store: store.set("/a/one", "size", 8), ONES),
    Defect(
        "size of a link", "wrong-size", lambda store: store.set("/b/symlink", "size", 9), (b"/b/symlink",)
    ),
    Defect("size of a directory", "wrong-size", lambda store: store.set("/a", "size", 4096), (b"/a",)),
    Defect(
        "no staged file",
        "missing-staged",
        lambda store: _staged(store, "00ff", None, 10),
        (b"/b/empty",),
        left=("missing-staged",),
        lost=(b"/b/empty",),
    ),
    Defect(
        "short staged file",
        "short-staged",
        lambda store: _staged(store, "00ff", b"half", 8),
        (b"/b/empty",),
        severity=NOTE,
        moved={b"/b/empty": b""},
        gained={b"/b/empty": b"half"},
    ),
    Defect(
        "staged file elsewhere",
        "bad-staged-name",
        lambda store: _staged(store, "../casfs.toml", None, 0),
        (b"/b/empty",),
    ),
    Defect(
        "staged file of a directory elsewhere",
        "bad-staged-name",
        lambda store: store.set("/a", "staged", "../casfs.toml"),
        (b"/a",),
    ),
    Defect(
        "row of the trash for nothing",
        "stray-trash",
        lambda store: store.sql("INSERT INTO trash VALUES (999, 1, 0, 'removed', x'61')"),
    ),
    Defect(
        "lock of nothing",
        "stray-lock",
        lambda store: store.sql("INSERT INTO locked VALUES (999, 1, '')"),
        severity=GARBAGE,
    ),
    Defect(
        "file in the trash without a row",
        "untold-trash",
        _untold_trash,
        (b"/.casfs/two",),
        moved={b"/a/deep/two": b"/.casfs/two"},
    ),
    Defect(
        "repository below the root",
        "stray-repository",
        lambda store: store.sql(
            "INSERT INTO repository VALUES (?, 'local', NULL, NULL, '{}')", store.ino("/a/deep")
        ),
        (b"/a/deep",),
    ),
    Defect(
        "repository that is gone",
        "stray-repository",
        lambda store: store.sql("INSERT INTO repository VALUES (999, 'local', NULL, NULL, '{}')"),
        (b"(inode 999)",),
    ),
    Defect(
        "kind of a repository",
        "bad-repository",
        _in_repositories("UPDATE repository SET kind = 'other' WHERE ino = ?", "/a"),
        (b"/a",),
    ),
    Defect(
        "rules of a repository",
        "bad-repository",
        _in_repositories("UPDATE repository SET rules = '{\"a\": 1}' WHERE ino = ?", "/a"),
        (b"/a",),
    ),
    Defect(
        "rules that are deep",
        "bad-repository",
        lambda store: store.sql(
            "INSERT INTO repository VALUES (?, 'local', NULL, NULL, ?)", store.ino("/a"), "[" * 100_000
        ),
        (b"/a",),
    ),
    Defect(
        "definition of a layout",
        "bad-layout",
        _in_repositories("UPDATE layout SET definition = 'artifact = 3'"),
    ),
    Defect(
        "definition of another layout",
        "bad-layout",
        _in_repositories("INSERT INTO layout SELECT 'other', definition FROM layout"),
    ),
    Defect("no layout", "lost-layout", _in_repositories("DELETE FROM layout"), (b"/a",)),
    Defect("member that is gone", "stray-member", _members(("/v", "/b"), ("/v", "/a/deep")), (b"/v",)),
    Defect(
        "member of nothing",
        "stray-member",
        _in_repositories("INSERT INTO member VALUES (?, 0, ?)", "/a", "/b"),
        (b"/a",),
    ),
    Defect(
        "where nothing can be written",
        "stray-member",
        _nowhere_to_write,
        (b"/v",),
    ),
    Defect("repository in itself", "member-loop", _members(("/v", "/v")), (b"/v",)),
    Defect("repositories in each other", "member-loop", _members(("/v", "/w"), ("/w", "/v")), (b"/v",)),
    Defect(
        "nothing to be followed",
        "stray-follow",
        lambda store: store.sql("INSERT INTO follow VALUES (?, 0)", store.ino("/a/one")),
        severity=GARBAGE,
    ),
    Defect(
        "artifact without a row",
        "missing-artifact",
        _in_repositories("DELETE FROM artifact"),
        (b"/a/deep/two",),
    ),
    Defect(
        "artifact of another module",
        "wrong-artifact",
        _in_repositories("UPDATE artifact SET module = 'other'"),
        (b"/a/deep/two",),
    ),
    Defect(
        "artifact of another repository",
        "wrong-artifact",
        _in_repositories("UPDATE artifact SET repository = ?", "/b"),
        (b"/a/deep/two",),
    ),
    Defect(
        "artifact that is gone",
        "wrong-artifact",
        _in_repositories(
            "INSERT INTO artifact SELECT parent, x'61', " + ", ".join(ARTIFACT[2:]) + " FROM artifact"
        ),
        (b"/a/deep/a",),
    ),
    Defect(
        "artifact that the layout has not",
        "wrong-artifact",
        _in_repositories("UPDATE layout SET definition = replace(definition, '<wo>', '<ow>')"),
        (b"/a/deep/two",),
    ),
    Defect(
        "artifact in no repository",
        "wrong-artifact",
        _in_repositories("DELETE FROM repository"),
        (b"/a/deep/two",),
    ),
    Defect(
        "name in a view without a row",
        "missing-derived",
        _in_views("DELETE FROM derived WHERE source_name = CAST('one' AS BLOB)"),
        (b"/a/one",),
    ),
    Defect(
        "name in a view at another place",
        "wrong-derived",
        _in_views("UPDATE derived SET name = x'61' WHERE source_name = CAST('one' AS BLOB)"),
        (b"/a/one",),
    ),
    Defect(
        "name that a view keeps is gone",
        "stray-kept",
        _in_views("INSERT INTO kept VALUES (?, x'61', ?)", "/a", "/view"),
        severity=GARBAGE,
    ),
    Defect("stray staged file", "stray-staged", _write("staging/0123", b"torn"), severity=GARBAGE),
    Defect("too many references", "wrong-refs", lambda store: store.set_blob(ONE, "refs", 5), ONES),
    Defect(
        "no references",
        "wrong-refs",
        lambda store: (store.set_blob(TWO, "refs", 0), store.set_blob(TWO, "orphaned_ns", 1)),
        TWOS,
    ),
    Defect("reference of nobody", "wrong-refs", lambda store: store.set_blob(ORPHAN, "refs", 1)),
    Defect("orphan since never", "wrong-orphaned", lambda store: store.set_blob(ORPHAN, "orphaned_ns", None)),
    Defect("no orphan", "wrong-orphaned", lambda store: store.set_blob(ONE, "orphaned_ns", 1), ONES),
    Defect(
        "no digest",
        "bad-digest",
        lambda store: store.sql("INSERT INTO blob VALUES (99, ?, 3, 0, 1, 1)", b"abc"),
    ),
    Defect(
        "blob of names",
        "missing-blob",
        lambda store: store.blob(TWO).unlink(),
        TWOS,
        left=("missing-blob",),
        lost=TWOS,
    ),
    Defect("blob of an orphan", "missing-blob", lambda store: store.blob(ORPHAN).unlink()),
    Defect(
        "cut blob",
        "blob-size",
        lambda store: store.overwrite(store.blob(ONE), ONE[:10]),
        ONES,
        left=("missing-blob",),
        lost=ONES,
        quarantined=(ONE[:10],),
    ),
    Defect("size in the row", "blob-size", _wrong_sizes_in_rows, ONES),
    Defect(
        "cut orphan",
        "blob-size",
        lambda store: store.overwrite(store.blob(ORPHAN), b"no"),
        quarantined=(b"no",),
    ),
    Defect(
        "other bytes",
        "corrupt-blob",
        lambda store: store.overwrite(store.blob(ONE), ONE[:-1] + b"!"),
        ONES,
        deep=True,
        left=("missing-blob",),
        lost=ONES,
        quarantined=(ONE[:-1] + b"!",),
    ),
    Defect(
        "other bytes of an orphan",
        "corrupt-blob",
        lambda store: store.overwrite(store.blob(ORPHAN), b"!" * len(ORPHAN)),
        deep=True,
        quarantined=(b"!" * len(ORPHAN),),
    ),
    Defect("mode of a blob", "blob-mode", lambda store: store.blob(ONE).chmod(0o644), ONES),
    Defect("wrong shard", "misplaced-blob", lambda store: _swap_shard(store, ONE)),
    Defect("wrong shard too", "misplaced-blob", lambda store: _swap_shard(store, ONE, keep=True)),
    Defect(
        "wrong shard and torn",
        "misplaced-blob",
        lambda store: _swap_shard(store, ONE, b"torn", keep=True),
        quarantined=(b"torn",),
    ),
    Defect(
        "stray blob",
        "stray-blob",
        lambda store: store.add_blob_file(b"stray"),
        severity=GARBAGE,
        gained={b"/lost+found/" + blake3(b"stray").hexdigest().encode(): b"stray"},
    ),
    Defect(
        "torn stray blob",
        "stray-blob",
        lambda store: store.add_blob_file(b"stray", b"str"),
        severity=GARBAGE,
        quarantined=(b"str",),
    ),
    Defect(
        "empty stray blob", "stray-blob", lambda store: store.add_blob_file(b"stray", b""), severity=GARBAGE
    ),
    Defect(
        "file in blobs",
        "foreign-file",
        _write("blobs/README", b"mine"),
        severity=GARBAGE,
        quarantined=(b"mine",),
    ),
    Defect(
        "file in a shard",
        "foreign-file",
        _write("blobs/0/.nfs0001", b"mine"),
        severity=GARBAGE,
        quarantined=(b"mine",),
    ),
    Defect(
        "folder in blobs",
        "foreign-file",
        _write("blobs/more/file", b"mine"),
        severity=GARBAGE,
        quarantined=(b"mine",),
    ),
    Defect(
        "link in a shard",
        "foreign-file",
        lambda store: (store.path / "blobs/0/link").symlink_to("/etc/passwd"),
        severity=GARBAGE,
    ),
    Defect("pinned blob that is gone", "stray-pin", lambda store: _pin(store, 99), severity=GARBAGE),
    Defect(
        "pin that is gone",
        "stray-pin",
        lambda store: _pin(store, _blob_of(store, ONE), pin=False),
        severity=GARBAGE,
    ),
    Defect(
        "digest of an unknown algorithm",
        "bad-further-digest",
        lambda store: _digest(store, ONE, "whirlpool", bytes(64)),
        ONES,
    ),
    Defect(
        "digest that is too short",
        "bad-further-digest",
        lambda store: _digest(store, TWO, "sha256", sha256(TWO).digest()[:31]),
        TWOS,
    ),
    Defect(
        "unknown algorithm for all",
        "bad-further-digest",
        lambda store: store.sql("INSERT INTO meta VALUES ('digests', 'md5 whirlpool')"),
    ),
    Defect(
        "digest of nothing",
        "stray-further-digest",
        lambda store: store.sql("INSERT INTO blob_digest VALUES (99, 'md5', ?)", bytes(16)),
        severity=GARBAGE,
    ),
    Defect(
        "wrong digest in the sample",
        "wrong-further-digest",
        lambda store: _digest(store, ONE, "sha256", sha256(TWO).digest()),
        ONES,
    ),
    Defect(
        "wrong digest",
        "wrong-further-digest",
        lambda store: _digest(store, TWO, "crc32c", bytes(4)),
        TWOS,
        deep=True,
    ),
    Defect("damage of nothing", "stray-damage", lambda store: _note(store, 99), severity=GARBAGE),
    Defect(
        "damage of a whole blob",
        "healed-damage",
        lambda store: _note_and(store, ONE, ONE),
        ONES,
        severity=NOTE,
    ),
    Defect(
        "damage that was found and is there again",
        "healed-damage",
        lambda store: _note_and(store, ONE, ONE[:-1] + b"!"),
        ONES,
        severity=NOTE,
        left=("missing-blob",),
        lost=ONES,
        quarantined=(ONE[:-1] + b"!",),
    ),
    Defect(
        "damage that is known",
        "missing-blob",
        lambda store: _note_and(store, TWO, None),
        TWOS,
        left=("missing-blob",),
        lost=TWOS,
    ),
    Defect("half a snapshot", "bad-snapshot", _snapshot_folder("a"), left=("bad-snapshot",)),
    Defect("half gone snapshot", "left-snapshot", _snapshot_folder(".gone-a-12345678"), severity=GARBAGE),
    Defect(
        "content of a snapshot",
        "lost-held",
        lambda store: _held(store, b"held by a snapshot"),
        left=("lost-held",),
    ),
    Defect("no shard", "missing-folder", lambda store: _empty_shard(store).rmdir()),
    Defect("no staging", "missing-folder", _no_folder("staging")),
    Defect("no staging but a file", "missing-folder", _file_for_folder, quarantined=(b"in the way",)),
    Defect("open store", "permissions", _mode("", 0o755)),
    Defect("open blobs", "permissions", _mode("blobs", 0o710)),
    Defect("open database", "permissions", _mode("casfs.db", 0o640)),
    Defect("writable configuration", "permissions", _mode("casfs.toml", 0o666)),
)


def _pin(store: Damaged, blob: int, *, pin: bool = True) -> None:
    if pin:
        store.sql("INSERT INTO pin VALUES (1, 'kept', 0, 1, NULL)")
    store.sql("INSERT INTO pinned VALUES (?, 1)", blob)


def _digest(store: Damaged, content: bytes, algorithm: str, value: bytes) -> None:
    store.sql("INSERT INTO blob_digest VALUES (?, ?, ?)", _blob_of(store, content), algorithm, value)


def _note(store: Damaged, blob: int) -> None:
    """As of 2026-01-01."""
    store.sql("INSERT INTO damage VALUES (?, 1767225600000000000, 'is missing')", blob)


def _note_and(store: Damaged, content: bytes, data: bytes | None) -> None:
    """A blob that is noted as damaged, and now has these bytes."""
    _note(store, _blob_of(store, content))
    if data is None:
        store.blob(content).unlink()
    else:
        store.overwrite(store.blob(content), data)


def _empty_shard(store: Damaged) -> Path:
    return next(shard for shard in sorted((store.path / "blobs").iterdir()) if not any(shard.iterdir()))
