"""Repair mends each defect, or leaves what nothing can mend, and loses nothing that was there."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from casfs.errors import StoreLocked
from casfs.filestore.filestore import FileStore
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance.check.fsck import check, repair
from casfs.maintenance.offline import opened
from casfs.repositories.filesystem import file_system
from casfs.store import Store
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.maintenance.cut_off import CutOff, cut_at
from tests.maintenance.defects import DEFECTS, Defect
from tests.maintenance.stores import ONE, TWO, Damaged, add_repositories, make_file


def mend(store: Damaged, *, deep: bool = False) -> list[str]:
    """Check and repair; the kinds that are left."""
    left = repair(str(store), check(str(store), deep, exclusive=True))
    return sorted({problem.kind for problem in left.problems})


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_mended_and_nothing_is_lost(store: Damaged, defect: Defect) -> None:
    sound = store.files()
    defect.make(store)
    assert mend(store, deep=defect.deep) == sorted(defect.left)
    assert store.quarantine() == set(defect.quarantined)
    if not defect.left:
        assert check(str(store), deep=True).problems == ()
        assert_clean(store.path)
    found = store.files()
    for path, content in sound.items():
        if path in defect.lost:
            assert path not in found
        elif pattern := defect.moved.get(path, path):
            (now,) = fnmatch.filter(found, pattern)
            assert found[now] == content
    assert {path: found.get(path) for path in defect.gained} == defect.gained
    with opened(str(store)) as fs:
        make_file(fs, 1, b"afterwards", b"works")
    assert store.files()[b"/afterwards"] == b"works"


def test_all_defects_together_are_mended(store: Damaged) -> None:
    """Those that do not stand in each other's way."""
    sound = store.files()
    for name in (
        "next_ino",
        "dangling",
        "type of a file",
        "two names",
        "links of a file",
        "attributes of nothing",
        "content of a fifo",
        "size of a link",
        "stray staged file",
        "too many references",
        "mode of a blob",
        "stray blob",
        "file in blobs",
        "open store",
    ):
        next(defect for defect in DEFECTS if defect.name == name).make(store)
    assert mend(store) == []
    assert_clean(store.path)
    found = store.files()
    assert {path: found.get(path) for path in sound} == sound


def test_a_sound_store_is_left_alone(store: Damaged) -> None:
    before = (
        store.sql("SELECT * FROM inode"),
        store.sql("SELECT * FROM dentry"),
        store.sql("SELECT * FROM blob"),
    )
    assert mend(store) == []
    assert before == (
        store.sql("SELECT * FROM inode"),
        store.sql("SELECT * FROM dentry"),
        store.sql("SELECT * FROM blob"),
    )
    assert not (store.path / "quarantine").exists()


@pytest.mark.parametrize("followed", ["", "directory", "name"])
def test_rows_of_what_is_to_be_followed_are_not_judged(store: Damaged, followed: str) -> None:
    """They say what was, until the file system has come to them."""
    add_repositories(store)
    assert check(str(store)).problems == ()
    rows = store.sql("SELECT * FROM artifact")
    store.sql("DELETE FROM artifact")
    if followed == "directory":
        store.sql("INSERT INTO follow VALUES (?, 0)", store.ino("/a"))
    elif followed:
        store.sql("INSERT INTO noted VALUES (?, ?)", store.ino("/a/deep"), b"two")
    assert [problem.kind for problem in check(str(store)).problems] == ["missing-artifact"][bool(followed) :]
    if followed:
        with opened(str(store)):
            pass
    else:
        assert mend(store) == []
    assert store.sql("SELECT * FROM artifact") == rows


def test_an_intact_stray_gets_a_name_by_its_digest(store: Damaged) -> None:
    file = store.add_blob_file(b"only here")
    assert mend(store) == []
    assert store.files()[b"/lost+found/" + file.name.encode()] == b"only here"


def test_a_blob_of_the_wrong_shard_without_a_row_gets_a_name(store: Damaged) -> None:
    right = store.add_blob_file(b"only here")
    wrong = store.path / "blobs" / ("0" if right.parent.name != "0" else "1") / right.name
    os.rename(right, wrong)
    assert mend(store) == []
    assert store.files()[b"/lost+found/" + right.name.encode()] == b"only here"


def test_a_whole_copy_in_the_wrong_shard_heals_a_damaged_blob(store: Damaged) -> None:
    next(defect for defect in DEFECTS if defect.name == "wrong shard too").make(store)
    store.overwrite(store.blob(ONE), b"damaged")
    assert mend(store, deep=True) == []
    assert store.files()[b"/a/one"] == ONE


def test_content_written_again_heals_a_missing_blob(store: Damaged) -> None:
    store.blob(TWO).unlink()
    assert mend(store) == ["missing-blob"]
    with opened(str(store)) as fs:
        make_file(fs, 1, b"copy", TWO)
    assert check(str(store), deep=True).problems == ()
    assert store.files()[b"/a/deep/two"] == TWO
    assert_clean(store.path)


def test_what_is_taken_in_lost_and_found_is_not_taken_twice(store: Damaged) -> None:
    for _ in range(2):
        with opened(str(store)) as fs:
            make_file(fs, 1, b"again", b"again")
        ino = store.ino("/again")
        store.remove_name("/again")
        store.sql("UPDATE dentry SET name = ? WHERE name = ?", b"ino-%d" % (ino + 1), b"ino-%d" % ino)
        assert mend(store) == []
    found = Counter(path for path in store.files() if path.startswith(b"/lost+found/"))
    assert len(found) == 2
    assert_clean(store.path)


def test_a_bad_name_takes_the_place_of_no_other(store: Damaged) -> None:
    """Repair names it by the next cookie, and somebody may have thought of that name."""
    ((cookie,),) = store.sql("SELECT value FROM meta WHERE key = 'next_cookie'")
    taken = [f"/a/deep/bad-name-{number}".encode() for number in range(cookie + 2, cookie + 6)]
    with opened(str(store)) as fs:
        for path in taken:
            make_file(fs, store.ino("/a/deep"), os.path.basename(path), path)
    store.sql("UPDATE dentry SET name = ? WHERE ino = ?", b"..", store.ino("/a/deep/two"))
    assert mend(store) == []
    found = store.files()
    assert {path: found[path] for path in taken} == {path: path for path in taken}
    assert list(found.values()).count(TWO) == 2


def test_a_name_that_is_taken_gets_a_number(store: Damaged) -> None:
    with opened(str(store)) as fs:
        make_file(fs, 1, b"lost+found", b"a file of the user")
    store.remove_name("/a/deep/two")
    assert mend(store) == []
    assert store.files()[b"/lost+found"] == b"a file of the user"
    assert store.files()[b"/lost+found.2/ino-6"] == TWO


def test_two_files_of_one_name_both_go_to_quarantine(store: Damaged) -> None:
    for data in (b"first", b"second"):
        (store.path / "blobs" / "note").write_bytes(data)
        assert mend(store) == []
    assert store.quarantine() == {b"first", b"second"}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_in_the_place_of_a_blob_is_put_away(
    store: Damaged, deep: bool, make: Callable[[Path], object]
) -> None:
    """It is found twice, as foreign and as unreadable. To put it away twice ended a deep repair halfway."""
    path = store.blob(ONE)
    path.unlink()
    make(path)
    store.add_blob_file(b"stray")
    assert mend(store, deep=deep) == ["missing-blob"]
    assert os.listdir(store.path / "quarantine") == [path.name]
    assert b"stray" in store.files().values()


def test_a_repair_that_fails_changes_no_row(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_blob_file(b"stray")
    store.remove_name("/a/deep/two")
    store.add_links("/a", 5)
    rows = [store.sql(f"SELECT * FROM {table}") for table in ("meta", "inode", "dentry", "blob")]

    def fail(filestore: FileStore) -> None:
        raise OSError(errno.EIO, "the disk does not answer")

    report = check(str(store), exclusive=True)
    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "sync_all", fail)
        with pytest.raises(OSError, match="does not answer"):
            repair(str(store), report)
    assert [store.sql(f"SELECT * FROM {table}") for table in ("meta", "inode", "dentry", "blob")] == rows
    assert mend(store) == []


def test_what_cannot_be_read_now_is_not_condemned(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    store.sql("INSERT INTO damage SELECT id, 1, 'noted' FROM blob WHERE refs > 0")
    sound = store.files()
    report = check(str(store), exclusive=True)

    def refused(fd: int, size: int) -> bytes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patched:
        patched.setattr("casfs.maintenance.check.repair_files.hash_descriptor", refused)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            repair(str(store), report)
    assert store.files() == sound
    assert not (store.path / "quarantine").exists()
    assert mend(store) == []


def test_a_bad_file_is_out_of_the_way_when_its_note_is_there(
    store: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.overwrite(store.blob(ONE), ONE[:-1] + b"!")

    def killed(self: object) -> None:
        raise CutOff

    with monkeypatch.context() as patched:
        patched.setattr("casfs.maintenance.check.repair_files.FileRepair.finish", killed)
        with pytest.raises(CutOff):
            mend(store, deep=True)
    assert len(store.sql("SELECT * FROM damage")) == 1
    assert not store.blob(ONE).exists()
    assert store.quarantine() == {ONE[:-1] + b"!"}


def test_a_repair_that_is_cut_off_is_finished_by_the_next(store: Damaged, template: Path) -> None:
    names = (
        "no shard",
        "stray blob",
        "wrong shard",
        "cut orphan",
        "file in blobs",
        "nameless file",
        "stray staged file",
    )
    defects = [defect for defect in DEFECTS if defect.name in names]
    last = 0
    while True:
        with tempfile.TemporaryDirectory(dir=template.parent) as folder:
            cut = Damaged(Path(folder) / "store")
            shutil.copytree(store.path, cut.path)
            for defect in defects:
                defect.make(cut)
            cut.add_blob_file(b"other", b"")
            report = check(str(cut), exclusive=True)
            with pytest.MonkeyPatch.context() as patch:
                calls = cut_at(patch, last)
                with contextlib.suppress(CutOff):
                    repair(str(cut), report)
            assert mend(cut) == []
            assert_clean(cut.path)
            assert sorted(cut.files().values()) == sorted([ONE, ONE, TWO, TWO, b"", b"stray"])
            assert cut.quarantine() == {b"no", b"mine"}
        if len(calls) < last:
            break
        last += 1
    assert {"rename", "unlink", "syncfs", "commit", "sync_log"} <= set(calls)


def test_a_store_in_use_is_not_repaired(store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casfs.store.COLLECTOR_SECONDS", 0.1)
    store.add_links("/a", 5)
    report = check(str(store))
    used = Store(str(store))
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        repair(str(store), report)
    used.close()
    assert [problem.kind for problem in check(str(store)).problems] == ["wrong-links"]


def test_a_damaged_page_is_left_to_a_backup(store: Damaged) -> None:
    ((page,),) = store.sql("SELECT rootpage FROM sqlite_schema WHERE name = 'xattr'")
    with open(store.path / "casfs.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    damaged = (store.path / "casfs.db").read_bytes()
    assert mend(store) == ["database"]
    assert (store.path / "casfs.db").read_bytes() == damaged


def test_what_a_crash_leaves_is_no_error_and_repair_does_what_a_start_does(store: Damaged) -> None:
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    unlinked = fs.files.open(fs.inodes.get(make_file(fs, 1, b"unlinked", b"still open")), False, 0)
    run_inline(fs.tree.unlink(1, b"unlinked"))
    synced = fs.files.open(fs.inodes.get(make_file(fs, 1, b"synced", b"")), True, 0)
    run_inline(fs.files.write(synced, 0, b"synced while it is open"))
    run_inline(fs.files.fsync(synced))
    make_file(fs, 1, b"lost", b"published, not committed " * 20_000)
    crashed = Damaged(store.path.parent / "crashed")
    copy_store(store.path, crashed.path)
    for handle in (unlinked, synced):
        run_inline(fs.files.release(handle))
    run_inline(fs.stop())
    used.close()

    report = check(str(crashed), deep=True)
    assert {problem.kind for problem in report.problems} == {"stray-blob", "unlinked"}
    assert report.clean
    assert repair(str(crashed), report).problems == ()
    assert_clean(crashed.path)
    assert crashed.files()[b"/synced"] == b"synced while it is open"
    assert b"/lost" not in crashed.files()
    assert b"published, not committed " * 20_000 in crashed.files().values()


def test_numbers_are_never_given_out_twice(store: Damaged) -> None:
    """lost+found takes new ones, and what comes after repair others again (I7)."""
    store.sql("DELETE FROM meta WHERE key = 'next_ino'")
    store.add_blob_file(b"stray")
    known = {ino for (ino,) in store.sql("SELECT ino FROM inode")}
    assert mend(store) == []
    made = {ino for (ino,) in store.sql("SELECT ino FROM inode")} - known
    with opened(str(store)) as fs:
        assert make_file(fs, 1, b"next", b"x") > max(made) > max(known)
