"""Random damage: repair comes to an end, leaves only what nothing can mend, and keeps every content."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.maintenance.check.fsck import check, repair
from casfs.maintenance.offline import opened
from tests.maintenance.stores import Damaged, add_views, make_file

CHANGE = "UPDATE OR IGNORE dentry SET"
BEYOND_REPAIR = {"lost-content", "lost-target", "missing-blob", "missing-staged", "bad-digest"}

inos = st.integers(0, 14)
small = st.integers(-1, 20)
names = st.sampled_from([b"", b".", b"x/y", b"one", b"two", b"deep", b"lost+found", b"ino-4"])
modes = st.sampled_from([0, 0o644, 0o100644, 0o40755, 0o120777, 0o10600, 0o30000])
staged = st.sampled_from([None, "", "0123", "00ff", "../casfs.toml"])
types = st.sampled_from([0, 1, 4, 8, 10])
keys = st.sampled_from(["next_ino", "next_cookie", "uuid"])
digests = st.binary(min_size=3, max_size=3) | st.binary(min_size=32, max_size=32)

statements = st.one_of(
    st.tuples(st.just("DELETE FROM inode WHERE ino = ?"), inos),
    st.tuples(st.just("UPDATE inode SET mode = ? WHERE ino = ?"), modes, inos),
    st.tuples(st.just("UPDATE inode SET nlink = ? WHERE ino = ?"), small, inos),
    st.tuples(st.just("UPDATE inode SET size = ? WHERE ino = ?"), small, inos),
    st.tuples(st.just("UPDATE inode SET blob_id = ? WHERE ino = ?"), st.none() | small, inos),
    st.tuples(st.just("UPDATE inode SET staged = ? WHERE ino = ?"), staged, inos),
    st.tuples(st.just("UPDATE inode SET target = ? WHERE ino = ?"), st.none() | names, inos),
    st.tuples(st.just("DELETE FROM dentry WHERE cookie = ?"), small),
    st.tuples(st.just(f"{CHANGE} parent = ? WHERE cookie = ?"), inos, small),
    st.tuples(st.just(f"{CHANGE} ino = ? WHERE cookie = ?"), inos, small),
    st.tuples(st.just(f"{CHANGE} cookie = ? WHERE cookie = ?"), small, small),
    st.tuples(st.just(f"{CHANGE} name = ? WHERE cookie = ?"), names, small),
    st.tuples(st.just(f"{CHANGE} type = ? WHERE cookie = ?"), types, small),
    st.tuples(
        st.just("INSERT OR IGNORE INTO dentry VALUES (?, ?, ?, ?, ?)"), inos, small, names, inos, types
    ),
    st.tuples(st.just("DELETE FROM blob WHERE id = ?"), small),
    st.tuples(st.just("UPDATE blob SET size = ? WHERE id = ?"), small, small),
    st.tuples(st.just("UPDATE blob SET refs = ? WHERE id = ?"), small, small),
    st.tuples(st.just("UPDATE blob SET orphaned_ns = ? WHERE id = ?"), st.none() | small, small),
    st.tuples(st.just("UPDATE OR IGNORE blob SET blake3 = ? WHERE id = ?"), digests, small),
    st.tuples(st.just("INSERT OR IGNORE INTO xattr VALUES (?, x'41', x'42')"), inos),
    st.tuples(st.just("INSERT OR IGNORE INTO damage VALUES (?, 1, 'is missing')"), small),
    st.tuples(st.just("INSERT OR IGNORE INTO pinned VALUES (?, 1)"), small),
    st.tuples(st.just("DELETE FROM meta WHERE key = ?"), keys),
    st.tuples(st.just("UPDATE meta SET value = ? WHERE key = ?"), st.sampled_from([0, 7, "x", 1.5]), keys),
)
any_ino = st.integers(0, 24)
columns = st.sampled_from(["parent", "rank", "cookie", "ino", "type", "hidden", "tree", "source_parent"])
of_views = st.one_of(
    st.builds(
        lambda column, value, number: (
            f"UPDATE OR IGNORE derived SET {column} = ? WHERE (parent * 7 + cookie) % 24 = ?",
            value,
            number,
        ),
        columns,
        any_ino,
        any_ino,
    ),
    st.tuples(st.just("UPDATE OR IGNORE derived SET name = ? WHERE ino = ?"), names, any_ino),
    st.tuples(st.just("DELETE FROM derived WHERE (parent * 7 + cookie) % 24 = ?"), any_ino),
    st.tuples(st.just("INSERT OR IGNORE INTO kept VALUES (?, ?, ?)"), any_ino, names, any_ino),
    st.tuples(st.just("INSERT OR IGNORE INTO noted VALUES (?, ?)"), any_ino, names),
    st.tuples(st.just("INSERT OR IGNORE INTO follow VALUES (?, 0)"), any_ino),
    st.tuples(st.just("DELETE FROM repository WHERE ino = ?"), any_ino),
    st.tuples(
        st.just("UPDATE repository SET kind = ? WHERE ino = ?"), st.sampled_from(["local", "view"]), any_ino
    ),
    st.tuples(st.just("UPDATE OR IGNORE member SET member = ? WHERE member = ?"), any_ino, any_ino),
)
files = st.tuples(st.sampled_from(["truncate", "remove", "move", "stage"]), st.integers(0, 2))


def damage_rows(store: Damaged, changes: list[tuple[Any, ...]]) -> None:
    with closing(sqlite3.connect(store.path / "casfs.db")) as connection:
        for statement, *values in changes:
            connection.execute(statement, values)
        connection.commit()


def damage_files(store: Damaged, changes: list[tuple[str, int]]) -> None:
    for change, number in changes:
        blobs = sorted((store.path / "blobs").glob("*/*"))
        if change == "stage":
            (store.path / "staging" / ("0123", "00ff", "abcd")[number]).write_bytes(b"staged")
        elif number < len(blobs):
            blob = blobs[number]
            if change == "remove":
                blob.unlink()
            elif change == "truncate":
                store.overwrite(blob, blob.read_bytes()[:7])
            elif change == "move":
                blob.rename(store.path / "blobs" / "0" / blob.name)


def contents(store: Damaged) -> set[bytes]:
    """Every content that lies anywhere in the store, but in files being written."""
    folders = [store.path / "blobs", store.path / "quarantine"]
    return {file.read_bytes() for folder in folders for file in folder.glob("**/*") if file.is_file()}


@pytest.fixture(scope="module")
def with_views(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "store"
    shutil.copytree(template, path)
    add_views(Damaged(path))
    return path


@settings(max_examples=150)
@given(st.lists(statements, max_size=8), st.lists(files, max_size=2))
def test_repair_copes_with_whatever_is_in_the_rows(
    template: Path, rows: list[tuple[Any, ...]], changes: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        store = Damaged(Path(folder) / "store")
        shutil.copytree(template, store.path)
        damage_rows(store, rows)
        damage_files(store, changes)
        kept = contents(store)
        report = check(str(store), deep=True)
        left = repair(str(store), report)
        assert {problem.kind for problem in left.problems} <= BEYOND_REPAIR
        assert kept - contents(store) <= {b""}
        again = check(str(store), deep=True)
        assert again.problems == left.problems
        store.files()
        with opened(str(store)) as fs:
            make_file(fs, 1, b"afterwards", b"works")
        assert store.files()[b"/afterwards"] == b"works"


@settings(max_examples=150)
@given(st.lists(of_views, min_size=1, max_size=4), st.lists(statements, max_size=2))
def test_repair_copes_with_whatever_is_in_the_rows_of_views(
    with_views: Path, rows: list[tuple[Any, ...]], more: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory(dir=with_views.parent) as folder:
        store = Damaged(Path(folder) / "store")
        shutil.copytree(with_views, store.path)
        damage_rows(store, [*rows, *more])
        kept = contents(store)
        left = repair(str(store), check(str(store), deep=True))
        assert {problem.kind for problem in left.problems} <= BEYOND_REPAIR
        assert kept - contents(store) <= {b""}
        if not more:
            assert not store.sql("SELECT 1 FROM dentry WHERE name = CAST('lost+found' AS BLOB)")
        with opened(str(store)) as fs:
            make_file(fs, 1, b"afterwards", b"works")
        assert {problem.kind for problem in check(str(store)).problems} <= BEYOND_REPAIR
