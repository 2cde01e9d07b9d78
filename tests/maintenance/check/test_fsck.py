"""Each defect is made alone in a store that is sound, and fsck has to find just that one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from hashlib import md5, sha1

import pytest
from blake3 import blake3

from casfs.errors import FormatError, StoreLocked, StoreNotFound
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance.check import digests, files, problems
from casfs.maintenance.check.files import BlobScan
from casfs.maintenance.check.fsck import Problem, check
from casfs.maintenance.check.problems import Severity
from casfs.namespace.checks import Checks
from casfs.repositories.filesystem import file_system
from casfs.store import Store
from tests.maintenance.defects import DEFECTS, Defect
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_file


def kinds(found: tuple[Problem, ...]) -> list[str]:
    return sorted({problem.kind for problem in found})


def test_a_sound_store_is_clean(store: Damaged) -> None:
    for deep in (False, True):
        report = check(str(store), deep)
        assert (report.problems, report.in_use, report.unchecked) == ((), None, ())
        assert report.clean


def test_a_blob_whose_file_a_writer_gets_while_it_is_read_is_read_again(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsck --deep of a mounted store took the writer's bytes for damage (fs/content/passthrough.py)."""
    real = os.readv
    displaced: list[int] = []

    def readv(fd: int, buffers: list[memoryview]) -> int:
        if not displaced:
            path = os.readlink(f"/proc/self/fd/{fd}")
            shutil.copy(path, f"{path}.copy")
            os.chmod(path, 0o600)
            with open(path, "r+b") as file:
                file.write(b"by the writer")
            os.rename(f"{path}.copy", path)
            displaced.append(fd)
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    assert check(str(store), deep=True).clean
    assert displaced


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_found_and_no_other(store: Damaged, defect: Defect) -> None:
    defect.make(store)
    report = check(str(store), defect.deep)
    assert kinds(report.problems) == [defect.kind]
    problem, *more = report.problems
    assert not more or defect.kind == "database", "one defect is one problem"
    assert problem.severity == defect.severity
    assert set(problem.paths) == set(defect.paths)
    assert problem.paths_total == len(defect.paths)
    assert report.clean == (defect.severity != Severity.ERROR)
    assert "\n" not in problem.detail


def test_every_kind_has_a_defect_that_shows_it() -> None:
    assert {kind.slug for kind in problems.Kind} == {defect.kind for defect in DEFECTS}


def test_a_check_changes_nothing(store: Damaged) -> None:
    for defect in DEFECTS:
        if defect.name in ("nameless file", "stray blob", "stray staged file", "too many references"):
            defect.make(store)
    before = state(store)
    check(str(store), deep=True)
    assert state(store) == before


def state(store: Damaged) -> object:
    rows = [
        store.sql(f"SELECT * FROM {table}")
        for table in ("meta", "blob", "inode", "dentry", "xattr", "damage")
    ]
    found = {
        file: (file.lstat().st_mode, file.lstat().st_mtime_ns)
        for folder in ("blobs", "staging")
        for file in (store.path / folder).glob("**/*")
    }
    return rows, found


def test_a_corrupt_blob_is_only_seen_by_reading_it(store: Damaged) -> None:
    store.overwrite(store.blob(ONE), ONE[:-1] + b"!")
    assert check(str(store)).clean
    report = check(str(store), deep=True)
    assert report.corrupt == (blake3(ONE).digest(),)


def test_damage_that_is_noted_is_told_as_known(store: Damaged) -> None:
    for name in ("damage that is known", "damage of a whole blob"):
        next(defect for defect in DEFECTS if defect.name == name).make(store)
    told = {problem.kind: problem.detail for problem in check(str(store)).problems}
    assert told["missing-blob"].endswith(" is missing, known since 2026-01-01")
    assert told["healed-damage"].endswith(" is there again, noted as damaged: is missing")


def test_a_problem_that_is_found_very_often_is_counted(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "LISTED", 10)
    for number in range(25):
        store.add_name("/b", b"ghost %d" % number, 999, 8)
    report = check(str(store))
    assert [problem.kind for problem in report.problems] == ["dangling-name"] * 11
    assert report.problems[-1].detail == "15 more of this kind"
    assert report.errors == 25


def test_paths_that_are_very_many_are_counted(store: Damaged) -> None:
    for number in range(30):
        store.add_name("/b", b"name %d" % number, store.ino("/a/one"), 8)
    store.add_links("/a/one", 30)
    store.blob(ONE).unlink()
    (problem,) = check(str(store)).problems
    assert (len(problem.paths), problem.paths_total) == (problems.PATHS, 32)


def test_progress_comes_to_its_end(store: Damaged) -> None:
    told: list[tuple[str, int, int]] = []
    check(str(store), True, lambda *step: told.append(step))
    read = [step[1:] for step in told if step[0] == "reading blobs"]
    total = len(ONE) + len(TWO) + len(ORPHAN)
    assert read[-1] == (total, total)
    assert [done for done, _ in read] == sorted(done for done, _ in read)


@pytest.mark.parametrize("where", ["", "/nowhere"])
def test_what_is_no_store_is_refused(tmp_path, where: str) -> None:
    with pytest.raises(StoreNotFound):
        check(f"{tmp_path}{where}")


def test_a_database_that_is_none_is_one_clear_line(store: Damaged) -> None:
    (store.path / "casfs.db").write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(FormatError, match="backup"):
        check(str(store))


def test_a_damaged_page_is_told_and_nothing_else_is_believed(store: Damaged) -> None:
    with sqlite3.connect(store.path / "casfs.db") as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'inode'")
    with open(store.path / "casfs.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    report = check(str(store))
    assert kinds(report.problems) == ["database"]
    assert report.unchecked


# --- a store in use ---


@pytest.fixture
def busy(store: Damaged):
    """The store in use in this process: what is done stays uncommitted."""
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    yield fs
    run_inline(fs.stop())
    used.close()


def test_what_is_not_committed_yet_is_no_problem(store: Damaged, busy: FileSystem) -> None:
    make_file(busy, 1, b"new", b"published, not committed")
    inode = busy.inodes.get(make_file(busy, 1, b"open", b"x"))
    handle = busy.files.open(inode, True, 0)
    run_inline(busy.files.write(handle, 0, bytes(1 << 20)))
    report = check(str(store), deep=True)
    assert report.problems == ()
    assert f"process {os.getpid()}" in str(report.in_use)
    assert report.unchecked
    run_inline(busy.files.release(handle))


def test_an_open_unlinked_file_is_no_problem(store: Damaged, busy: FileSystem) -> None:
    inode = busy.inodes.get(make_file(busy, 1, b"gone", b"still read"))
    handle = busy.files.open(inode, False, 0)
    run_inline(busy.tree.unlink(1, b"gone"))
    run_inline(busy.group.durable())
    assert check(str(store)).problems == ()
    run_inline(busy.files.release(handle))
    run_inline(busy.tree.forget([inode.ino]))


def test_damage_is_found_while_the_store_is_in_use(store: Damaged, busy: FileSystem) -> None:
    store.blob(ONE).unlink()
    (problem,) = check(str(store)).problems
    assert (problem.kind, set(problem.paths)) == ("missing-blob", {b"/a/one", b"/b/link"})


def test_a_stray_is_told_when_no_commit_can_want_it(
    store: Damaged, busy: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_blob_file(b"stray")
    assert check(str(store)).problems == ()
    monkeypatch.setattr(files, "STRAY_SECONDS", -1.0)
    assert kinds(check(str(store)).problems) == ["stray-blob"]


def test_a_blob_that_is_collected_meanwhile_is_no_problem(store: Damaged) -> None:
    class Collecting(Checks):
        """A collector takes the orphan after its row was read: row before file."""

        def shard(self, prefix: str) -> dict[bytes, tuple[int, int]]:
            rows = super().shard(prefix)
            if blake3(ORPHAN).digest() in rows:
                store.sql("DELETE FROM blob WHERE blake3 = ?", blake3(ORPHAN).digest())
                store.blob(ORPHAN).unlink()
            return rows

    reader = Store(str(store), readonly=True)
    scan = BlobScan(
        reader.filestore, Collecting(reader.namespace), in_use=True, progress=lambda doing, done, total: None
    )
    assert list(scan.faults()) == []
    assert not store.blob(ORPHAN).exists()
    reader.close()


def test_a_store_that_shall_be_repaired_must_not_be_in_use(store: Damaged, busy: FileSystem) -> None:
    with pytest.raises(StoreLocked, match=rf"process {os.getpid()} .*casfs umount"):
        check(str(store), exclusive=True)


def test_nobody_can_mount_while_a_check_runs(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casfs.store.COLLECTOR_SECONDS", 0.1)
    refused: list[Exception] = []

    def progress(doing: str, done: int, total: int) -> None:
        if not refused:
            with pytest.raises(StoreLocked) as caught:
                Store(str(store))
            refused.append(caught.value)

    check(str(store), False, progress)
    assert refused
    Store(str(store)).close()


def test_further_digests_are_compared_by_any_check_of_some_and_by_a_deep_one_of_all(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (ONE, TWO):
        ((blob,),) = store.sql("SELECT id FROM blob WHERE blake3 = ?", blake3(content).digest())
        store.sql("INSERT INTO blob_digest VALUES (?, 'md5', ?)", blob, bytes(16))
        store.sql("INSERT INTO blob_digest VALUES (?, 'sha1', ?)", blob, sha1(content).digest())
    assert check(str(store)).errors == check(str(store), deep=True).errors == 2
    monkeypatch.setattr(digests, "SAMPLE", 1)
    assert {check(str(store)).errors for _ in range(10)} == {1}
    monkeypatch.setattr(digests, "SAMPLE_BYTES", 0)
    assert check(str(store)).clean
    report = check(str(store), deep=True)
    assert {row.value for row in report.digests} == {md5(ONE).digest(), md5(TWO).digest()}
