"""fsck of what views and virtual repositories show: each damage is found, and mended by the next mount."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from casfs.fs.scheduler import run_inline
from casfs.maintenance.check.fsck import check, repair
from casfs.maintenance.offline import opened
from tests.invariants import assert_clean
from tests.maintenance.stores import Damaged, add_views

ROW = "(?, CAST('new' AS BLOB), 0, 9, ?, 8, 0, ?, ?, CAST('one' AS BLOB))"
TURNED = "SELECT ino FROM derived WHERE type = 4 AND name = CAST('wo' AS BLOB)"
DEEP = f"SELECT ino FROM derived WHERE type = 4 AND parent = ({TURNED})"
SHOWN = "type = 8 AND source_name = CAST('two' AS BLOB) AND name = CAST('t' AS BLOB)"
OF_ONE = "source_name = CAST('one' AS BLOB)"


def damaged(statement: str, *names: str) -> Callable[[Damaged], object]:
    return lambda store: store.sql(statement, *map(store.ino, names))


def second_rank(store: Damaged) -> None:
    """/b has a `one` too, and the wrong one of both is shown."""
    store.add_name("/b", b"one", store.ino("/a/one"), 8)
    store.add_links("/a/one", 1)
    store.sql("INSERT INTO follow VALUES (?, 0)", store.ino("/all"))
    with opened(str(store)):
        pass
    assert len(store.sql(f"SELECT 1 FROM derived WHERE {OF_ONE} AND name <> x''")) == 2
    store.sql(f"UPDATE derived SET hidden = 1 - hidden WHERE {OF_ONE}")


def lost_directory(store: Damaged) -> None:
    """An inode as a tree's directories are, with nothing in it."""
    store.sql(
        "INSERT INTO inode SELECT 500, mode, 2, uid, gid, 0, 0, 0, NULL, NULL, NULL, 1, 1, 1, 1"
        " FROM inode WHERE ino = ?",
        store.ino("/all"),
    )


def without_strict(store: Damaged, table: str, statement: str) -> None:
    """Whoever writes the file writes what he likes."""
    ((sql,),) = store.sql("SELECT sql FROM sqlite_schema WHERE name = ?", table)
    lax = sql.replace("STRICT", "").replace("WITHOUT ROWID,", "WITHOUT ROWID").replace("NOT NULL", "")
    lax = re.sub("INTEGER|TEXT|BLOB", "", lax)
    set_schema(store, table, lax)
    store.sql(statement)
    set_schema(store, table, sql)


def set_schema(store: Damaged, table: str, sql: str) -> None:
    with closing(sqlite3.connect(store.path / "casfs.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))


DAMAGES: dict[str, Callable[[Damaged], object]] = {
    "source is gone": damaged(f"UPDATE derived SET source_name = x'78' WHERE {SHOWN}"),
    "source is another inode": damaged(f"UPDATE derived SET ino = ? WHERE {SHOWN}", "/a/one"),
    "source is of another type": damaged(f"UPDATE derived SET type = 10 WHERE {SHOWN}"),
    "source has another cookie": damaged(f"UPDATE derived SET cookie = cookie + 1000 WHERE {SHOWN}"),
    "cookie is that of another name": damaged(
        f"UPDATE derived SET cookie = (SELECT cookie FROM derived WHERE {OF_ONE} AND name <> x'')"
        " WHERE type = 4 AND parent = ? AND name = CAST('deep' AS BLOB)",
        "/all",
    ),
    "row is missing": damaged(f"DELETE FROM derived WHERE {OF_ONE}"),
    "row is at another place": damaged(f"UPDATE derived SET parent = ? WHERE {SHOWN}", "/view"),
    "rank is another one": damaged(f"UPDATE derived SET rank = 1 WHERE {OF_ONE}"),
    "row too many": damaged(f"INSERT INTO derived VALUES {ROW}", "/all", "/a/one", "/all", "/a"),
    "name is hidden": damaged(f"UPDATE derived SET hidden = 1 WHERE {OF_ONE}"),
    "wrong one is shown": second_rank,
    "holder is shown": damaged("UPDATE derived SET hidden = 0 WHERE name = x''"),
    "tree is none": damaged(f"UPDATE derived SET tree = ? WHERE {OF_ONE}", "/a"),
    "trees are local": damaged("UPDATE repository SET kind = 'local' WHERE kind <> 'local'"),
    "trees are gone": damaged("DELETE FROM repository WHERE kind <> 'local'"),
    "directory is missing": damaged(f"DELETE FROM inode WHERE ino IN ({DEEP})"),
    "directory is a file": damaged(f"UPDATE inode SET mode = 33188, nlink = 0 WHERE ino IN ({DEEP})"),
    "directory is a program's": damaged(f"UPDATE derived SET ino = ? WHERE ino IN ({DEEP})", "/a/deep"),
    "directory has no row": damaged(f"DELETE FROM derived WHERE ino IN ({DEEP})"),
    "directory has two rows": damaged(
        "INSERT INTO derived SELECT tree, x'61', rank, cookie, ino, type, hidden, tree, 0, x'' FROM derived"
        f" WHERE ino IN ({DEEP})"
    ),
    "directory is empty": damaged(f"DELETE FROM derived WHERE {SHOWN}"),
    "directory that nothing names": lost_directory,
    "circle": damaged(f"UPDATE derived SET parent = ({DEEP}) WHERE ino = ({TURNED})"),
    "parent is no directory": damaged(f"UPDATE derived SET parent = ? WHERE {SHOWN}", "/a/one"),
    "parent is nothing": damaged(f"UPDATE derived SET parent = 999 WHERE {SHOWN}"),
    "parent is of another tree": damaged(f"UPDATE derived SET parent = ? WHERE {SHOWN}", "/all"),
    "number that is huge": damaged(f"UPDATE derived SET ino = {(1 << 63) - 1} WHERE {SHOWN}"),
    "cookie that is huge": damaged(f"UPDATE derived SET cookie = {(1 << 63) - 1} WHERE {SHOWN}"),
    "number that is negative": damaged(f"UPDATE derived SET parent = -1 WHERE {SHOWN}"),
    "type that is none": damaged(f"UPDATE derived SET type = 3 WHERE {SHOWN}"),
    "name that none can be": damaged(f"UPDATE derived SET name = x'2e2e' WHERE {SHOWN}"),
    "name with a slash": damaged(f"UPDATE derived SET name = x'2f' WHERE {SHOWN}"),
    "everything is gone": damaged("DELETE FROM derived"),
}


def shown(store: Damaged) -> set[tuple[bytes, ...]]:
    """What trees show: (name of the tree, names on the way)."""
    rows = store.sql("SELECT parent, name, ino, type FROM derived WHERE hidden = 0")
    found: set[tuple[bytes, ...]] = set()
    waiting = [(store.ino("/all"), (b"all",)), (store.ino("/view"), (b"view",))]
    while waiting:
        directory, path = waiting.pop()
        for parent, name, ino, type_ in rows:
            if parent == directory:
                found.add((*path, name))
                if type_ == 4:
                    waiting.append((ino, (*path, name)))
    return found


@pytest.fixture
def views(store: Damaged) -> Damaged:
    add_views(store)
    assert check(str(store), deep=True).problems == ()
    assert (b"view", b"wo", b"deep", b"t") in shown(store)
    assert (b"all", b"deep", b"two") in shown(store)
    return store


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_trees_show_is_compared_and_made_anew(views: Damaged, damage: str) -> None:
    before, files = shown(views), views.files()
    DAMAGES[damage](views)
    found = {problem.kind for problem in check(str(views)).problems}
    assert found & {"wrong-derived", "missing-derived"}
    left = repair(str(views), check(str(views), exclusive=True))
    assert left.problems == ()
    assert_clean(views.path)
    assert b"/lost+found" not in {path[:11] for path in views.files()}
    assert not views.sql("SELECT 1 FROM dentry WHERE name = CAST('lost+found' AS BLOB)")
    if damage not in ("trees are local", "trees are gone"):
        assert shown(views) == before | ({(b"all", b"one")} & before)
    assert {path: views.files().get(path) for path in files} == files


@pytest.mark.parametrize("value", ["'text'", "x'00'", "1.5", str((1 << 63) - 1)])
@pytest.mark.parametrize(
    "column", ["parent", "name", "rank", "cookie", "ino", "hidden", "tree", "source_name"]
)
def test_values_that_a_strict_table_cannot_have_are_mended(views: Damaged, column: str, value: str) -> None:
    before = shown(views)
    without_strict(views, "derived", f"UPDATE derived SET {column} = {value} WHERE {SHOWN}")
    assert {problem.kind for problem in check(str(views)).problems} & {"wrong-derived", "database"}
    assert repair(str(views), check(str(views), exclusive=True)).problems == ()
    assert_clean(views.path)
    assert shown(views) == before


@pytest.mark.parametrize("column", ["parent", "name", "tree"])
@pytest.mark.parametrize("value", ["'text'", "x'00'", "1.5", str((1 << 63) - 1)])
def test_values_of_what_is_kept_too(views: Damaged, column: str, value: str) -> None:
    parent, tree = views.ino("/a"), views.ino("/view")
    views.sql("INSERT INTO kept VALUES (?, CAST('one' AS BLOB), ?)", parent, tree)
    views.sql("INSERT INTO noted VALUES (?, CAST('one' AS BLOB))", parent)
    with opened(str(views)):
        pass
    assert (b"view", b"one") in shown(views)
    assert check(str(views)).problems == ()
    without_strict(views, "kept", f"UPDATE kept SET {column} = {value}")
    assert check(str(views)).problems
    assert repair(str(views), check(str(views), exclusive=True)).problems == ()
    assert_clean(views.path)
    assert (b"view", b"one") not in shown(views)


@pytest.mark.parametrize("table", ["follow", "noted"])
def test_what_is_still_to_be_followed_is_not_judged(views: Damaged, table: str) -> None:
    views.sql(f"DELETE FROM derived WHERE {OF_ONE}")
    assert {problem.kind for problem in check(str(views)).problems} == {"missing-derived"}
    if table == "follow":
        views.sql("INSERT INTO follow VALUES (?, 0)", views.ino("/a"))
    else:
        views.sql("INSERT INTO noted VALUES (?, ?)", views.ino("/a"), b"one")
    assert check(str(views)).problems == ()
    with opened(str(views)):
        pass
    assert check(str(views)).problems == ()
    assert (b"all", b"one") in shown(views)


def test_what_a_mode_takes_away_is_missing_by_right(views: Damaged) -> None:
    with opened(str(views)) as fs:
        inode = fs.inodes.get(views.ino("/a/deep"))
        inode.mode = 0o40700
        fs.inodes.changed(inode)
    assert "wrong-derived" in {problem.kind for problem in check(str(views)).problems}


def test_a_directory_that_a_program_has_in_a_tree_is_no_fault(views: Damaged) -> None:
    view = views.ino("/view")
    with opened(str(views)) as fs:
        run_inline(fs.tree.make(view, b"own", 0o40755, 0, 0))
    assert (b"view", b"own") in shown(views)
    assert check(str(views)).problems == ()
