"""fsck of snapshots: what lies in their folder, whether they can be read and have their contents."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.fs.scheduler import run_inline
from casfs.maintenance.check.fsck import check, repair
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.restore import restore
from casfs.snapshots.folder import LEFT_NS
from tests.session import Session

OLD = b"old " * 10
DIGEST = blake3(OLD).hexdigest()


@pytest.fixture
def held(session: Session) -> Path:
    """A store that nobody uses, with a content that only a snapshot refers to."""
    session.kernel.write_file("file", OLD)
    run_inline(create(session.fs, "a"))
    session.kernel.unlink("file")
    session.stop()
    return session.path


def kinds(path: Path, *, deep: bool = False) -> list[str]:
    return [problem.kind for problem in check(str(path), deep).problems]


def mend(path: Path, *, deep: bool = False) -> list[str]:
    return [problem.kind for problem in repair(str(path), check(str(path), deep, exclusive=True)).problems]


def blob(path: Path) -> Path:
    return next(path.glob(f"blobs/*/{DIGEST}"))


def test_a_sound_one_is_no_problem(held: Path) -> None:
    assert kinds(held, deep=True) == []


def test_a_row_that_was_lost_is_made_again(held: Path) -> None:
    with closing(sqlite3.connect(held / "casfs.db")) as connection, connection:
        (number,) = connection.execute("SELECT id FROM blob").fetchone()
        connection.execute("DELETE FROM blob")
    assert sorted(kinds(held)) == ["lost-held", "stray-blob"]
    assert mend(held) == []
    with closing(sqlite3.connect(held / "casfs.db")) as connection:
        assert connection.execute("SELECT id, refs FROM blob").fetchall() == [(number, 0)]
    session = Session(held)
    run_inline(restore(session.fs, "a", [b"file"]))
    assert session.kernel.read_file("file") == OLD
    assert b"lost+found" not in session.kernel.names()
    session.stop()


def test_bytes_that_are_others_make_no_row(held: Path) -> None:
    with closing(sqlite3.connect(held / "casfs.db")) as connection, connection:
        connection.execute("DELETE FROM blob")
    blob(held).chmod(0o600)
    blob(held).write_bytes(b"x" * len(OLD))
    assert mend(held) == ["lost-held"]
    (held / "quarantine" / DIGEST).unlink()
    (held / "quarantine").rmdir()
    drop(held)


def test_a_held_orphan_that_is_damaged_keeps_its_row(held: Path) -> None:
    """So that it can be healed."""
    blob(held).chmod(0o600)
    blob(held).write_bytes(b"x" * len(OLD))
    assert "missing-blob" in mend(held, deep=True)
    session = Session(held)
    session.kernel.write_file("file", OLD)
    session.stop()
    assert kinds(held, deep=True) == []
    (held / "quarantine" / DIGEST).unlink()
    (held / "quarantine").rmdir()


def _database(path: Path) -> None:
    (path / "snapshots/a/casfs.db").write_bytes(b"nonsense")


def _pages(path: Path) -> None:
    database = path / "snapshots/a/casfs.db"
    with database.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4096 * 4))


def _manifest(path: Path) -> None:
    (path / "snapshots/a/manifest.json").write_text("{")


def _gone(path: Path) -> None:
    (path / "snapshots/a/casfs.db").unlink()


@pytest.mark.parametrize("damage", [_database, _pages, _manifest, _gone])
def test_one_that_is_damaged_is_told_and_stays(held: Path, damage: Callable[[Path], None]) -> None:
    damage(held)
    assert set(kinds(held)) == {"bad-snapshot"}
    assert set(mend(held)) == {"bad-snapshot"}
    assert (held / "snapshots/a").is_dir()
    drop(held)


def test_what_does_not_belong_there(held: Path) -> None:
    folder = held / "snapshots"
    (folder / "file").write_text("x")
    (folder / "-folder").mkdir()
    (folder / "a/more").write_text("x")
    folder.chmod(0o755)
    assert sorted(kinds(held)) == ["foreign-file"] * 3 + ["permissions"]
    assert mend(held) == []
    assert sorted(path.name for path in folder.iterdir()) == [".serial", "a"]
    assert sorted(path.name for path in (held / "quarantine").iterdir()) == ["-folder", "file", "more"]
    shutil.rmtree(held / "quarantine")


def test_what_the_dead_have_left(held: Path) -> None:
    folder = held / "snapshots"
    for name in (".gone-a-12345678", ".new-b", ".new-c"):
        (folder / name).mkdir()
        (folder / name / "casfs.db").write_text("x")
    old = time.time_ns() - LEFT_NS - 10**9
    os.utime(folder / ".new-b", ns=(old, old))
    assert kinds(held) == ["left-snapshot"] * 2
    assert mend(held) == []
    assert sorted(path.name for path in folder.iterdir()) == [".new-c", ".serial", "a"]


def drop(path: Path) -> None:
    """What nothing mends."""
    for file in (path / "snapshots/a").iterdir():
        file.unlink()
    (path / "snapshots/a").rmdir()
