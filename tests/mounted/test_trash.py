"""The trash can through the kernel, with its caches, and its commands."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, casfs

DAY = 86400 * 10**9


def age(mount: Mount) -> None:
    """Remount, with everything an hour older: nothing is too young for the trash."""
    mount.stop()
    with closing(sqlite3.connect(mount.store / "casfs.db")) as database:
        columns = ("btime_ns", "mtime_ns")
        changes = ", ".join(f"{name} = {name} - 3600000000000" for name in columns)
        database.execute(f"UPDATE inode SET {changes}")
        database.commit()
    mount.start()


def today(mount: Mount) -> Path:
    return mount.path / ".casfs" / "trash" / f"{datetime.now(UTC):%Y-%m-%d}"


def sync(mount: Mount) -> None:
    fd = os.open(mount.path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it has not become so"
        time.sleep(0.01)


@pytest.fixture
def aged(mount: Mount) -> Mount:
    repo = mount.path / "repo"
    (repo / "sub").mkdir(parents=True)
    for name in ("a", "b", "c", "sub/d"):
        (repo / name).write_text(f"content of {name}")
    age(mount)
    return mount


def test_programs_remove_replace_truncate_and_bring_back(aged: Mount) -> None:
    repo, trash = aged.path / "repo", today(aged)
    assert not (aged.path / ".casfs/trash").exists()
    (repo / "a").unlink()
    (repo / "new").write_text("new")
    (repo / "new").rename(repo / "b")
    (repo / "c").write_text("other")
    shutil.rmtree(repo / "sub")
    sync(aged)
    assert sorted(os.listdir(aged.path)) == ["repo"]
    assert os.listdir(aged.path / ".casfs") == ["trash"]
    assert sorted(os.listdir(trash / "repo")) == ["a", "b", "c", "sub"]
    assert aged.path.stat().st_nlink == 3
    for name, reason in (("a", "removed"), ("b", "replaced"), ("c", "truncated"), ("sub/d", "removed")):
        file = trash / "repo" / name
        assert file.read_text() == f"content of {name}"
        assert os.getxattr(file, "user.casfs.trash.reason") == reason.encode()
        assert os.getxattr(file, "user.casfs.trash.uid") == b"%d" % os.getuid()
        assert os.getxattr(file, "user.casfs.trash.path") == f"repo/{name}".encode()
        assert os.listxattr(file) == []
    found = subprocess.run(["find", aged.path], capture_output=True, text=True, check=True).stdout
    assert ".casfs" not in found
    subprocess.run(["mv", trash / "repo" / "a", repo / "a"], check=True)
    (repo / "a").write_text("writable again")
    subprocess.run(["rm", "-r", trash], check=True)
    sync(aged)
    assert os.listdir(trash / "repo") == ["a"]
    assert os.getxattr(trash / "repo" / "a", "user.casfs.trash.reason") == b"truncated"


def test_programs_cannot_write_in_the_trash(aged: Mount) -> None:
    (aged.path / "repo" / "a").unlink()
    sync(aged)
    file = today(aged) / "repo" / "a"
    attempts: list[Callable[[], object]] = [
        lambda: file.write_text("x"),
        lambda: os.open(file, os.O_RDWR),
        lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        lambda: os.truncate(file, 0),
        lambda: (file.parent / "new").write_text("x"),
        (file.parent / "new").mkdir,
        lambda: os.symlink("x", file.parent / "new"),
        lambda: os.link(file, aged.path / "linked"),
        lambda: os.link(aged.path / "repo" / "b", file.parent / "linked"),
        lambda: os.rename(aged.path / "repo" / "b", file),
        lambda: os.rename(file, file.parent / "renamed"),
        lambda: os.rename(aged.path / ".casfs" / "trash", aged.path / "mine"),
        lambda: os.rename(aged.path / ".casfs", aged.path / "mine"),
        lambda: os.setxattr(file, "user.casfs.trash.uid", b"0"),
    ]
    for number, attempt in enumerate(attempts):
        with pytest.raises(PermissionError) as raised:
            attempt()
        assert raised.value.errno == errno.EPERM, number
    assert file.read_text() == "content of a"


def test_the_kernel_sees_what_comes_to_the_trash_and_what_leaves_it(aged: Mount) -> None:
    repo, trash = aged.path / "repo", today(aged)
    (repo / "a").unlink()
    sync(aged)
    for _ in range(2):
        assert os.listdir(trash / "repo") == ["a"]
        assert not (trash / "repo" / "b").exists()
        assert not (trash / "repo" / "sub").exists()
    before = (trash / "repo").stat().st_nlink
    (repo / "b").unlink()
    (repo / "sub" / "d").unlink()
    sync(aged)
    assert (trash / "repo" / "b").read_text() == "content of b"
    until(lambda: sorted(os.listdir(trash / "repo")) == ["a", "b", "sub"])
    assert (trash / "repo").stat().st_nlink == before + 1
    with open(trash / "repo" / "b") as held:
        assert casfs("trash", "empty", aged.store).startswith("3 files removed")
        assert not (trash / "repo" / "a").exists()
        assert not trash.exists()
        assert os.listdir(aged.path / ".casfs" / "trash") == []
        assert held.read() == "content of b"
    until(lambda: aged.status["activity"]["unlinked_open"] == 0)
    assert aged.usage()["orphans"] == 3


def test_undelete_and_what_is_listed(aged: Mount) -> None:
    repo = aged.path / "repo"
    shutil.rmtree(repo)
    assert not repo.exists()
    listed = json.loads(casfs("trash", "list", "--json", aged.path))["files"]
    assert sorted(file["path"] for file in listed) == ["repo/a", "repo/b", "repo/c", "repo/sub/d"]
    assert "repo/sub/d" in casfs("trash", "list", aged.store, "*/d")
    repo.mkdir()
    (repo / "a").write_text("another")
    assert "exists already" in casfs("undelete", aged.store, "repo/a", code=1)
    (repo / "a").unlink()
    assert casfs("undelete", aged.path, repo / "a") == "/repo/a: 1 file restored\n"
    assert (repo / "a").read_text() == "content of a"
    assert casfs("undelete", aged.store, "repo") == "repo: 3 files restored\n"
    assert sorted(os.listdir(repo)) == ["a", "b", "c", "sub"]
    assert (repo / "sub" / "d").read_text() == "content of sub/d"
    assert "nothing of that name" in casfs("undelete", aged.store, "repo", "--date", "2001-01-01", code=1)
    assert "is no time" in casfs("undelete", aged.store, "repo", "--date", "x", code=2)
    assert casfs("trash", "list", aged.store) == "the trash is empty\n"


def test_rules_are_set_mounted_and_not(aged: Mount) -> None:
    casfs("trash", "set", aged.store, "--repository", "repo", "--exclude", "*/sub/*", "--exclude", "*.o")
    (aged.path / "repo" / "sub" / "d").unlink()
    (aged.path / "repo" / "a").unlink()
    assert [file["path"] for file in json.loads(casfs("trash", "list", "--json", aged.store))["files"]] == [
        "repo/a"
    ]
    aged.stop()
    casfs("trash", "set", aged.store, "--days", "0")
    casfs("trash", "set", aged.store, "--repository", "repo", "--days", "3", "--exclude", "")
    assert json.loads(casfs("trash", "show", "--json", aged.store))["rules"] == [
        {"directory": "", "days": 0, "exclude": []},
        {"directory": "repo", "days": 3, "exclude": []},
    ]
    assert casfs("undelete", aged.store, "repo/a") == "repo/a: 1 file restored\n"
    aged.start()
    assert (aged.path / "repo" / "a").read_text() == "content of a"
    (aged.path / "repo" / "b").rename(aged.path / "b")
    (aged.path / "b").unlink()
    (aged.path / "repo" / "c").unlink()
    aged.stop()
    assert [file["path"] for file in json.loads(casfs("trash", "list", "--json", aged.store))["files"]] == [
        "repo/c"
    ]
    assert casfs("trash", "empty", aged.store, "--older", "1d").startswith("0 files")
    assert casfs("trash", "empty", aged.store).startswith("1 file removed for good, 12 B")
    for wrong in (
        ("set", aged.store),
        ("set", aged.store, "--days", "-1"),
        ("set", aged.store, "--days", "x"),
        ("set", aged.store, "--exclude", "a\nb"),
        ("set", aged.store, "--exclude", "\udcff*"),
        ("set", aged.store, "--minimal-age", "soon"),
        ("set", aged.store, "--minimal-age", "1h", "--repository", "repo"),
    ):
        casfs("trash", *wrong, code=2)
    casfs("trash", code=2)


def test_how_long_a_file_has_to_be_there_can_be_set(mount: Mount) -> None:
    def removed(name: str) -> list[str]:
        (mount.path / name).write_text(name)
        casfs("pin", "add", mount.store, "--everything")  # what it waits for seals the file
        (mount.path / name).unlink()
        return [file["path"] for file in json.loads(casfs("trash", "list", "--json", mount.store))["files"]]

    assert removed("a") == []
    casfs("trash", "set", mount.store, "--minimal-age", "0")
    assert removed("b") == ["b"]
    mount.stop()
    shown = json.loads(casfs("trash", "show", "--json", mount.store))
    assert shown == {"rules": [{"directory": "", "days": 14, "exclude": []}], "minimal_age_ns": 0}
    mount.start()
    assert removed("c") == ["c", "b"]
    mount.stop()
    casfs("trash", "set", mount.store, "--minimal-age", "1h")
    assert casfs("trash", "show", mount.store).endswith("nor what was there for less than 3600 s\n")
    mount.start()
    assert removed("d") == ["c", "b"]


def test_what_is_old_goes_with_the_mount(aged: Mount) -> None:
    (aged.path / "repo" / "a").unlink()
    (aged.path / "repo" / "b").unlink()
    aged.stop()
    with closing(sqlite3.connect(aged.store / "casfs.db")) as database:
        database.execute(
            "UPDATE trash SET deleted_ns = deleted_ns - ? WHERE path = CAST('repo/a' AS BLOB)", (15 * DAY,)
        )
        database.commit()
    aged.start()
    until(lambda: aged.usage()["trash_files"] == 1)
    assert os.listdir(today(aged) / "repo") == ["b"]


def test_only_who_could_read_it_reads_it_in_the_trash(aged: Mount) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    secret = aged.path / "repo" / "sub"
    secret.chmod(0o700)
    (secret / "d").unlink()
    (aged.path / "repo" / "a").unlink()
    sync(aged)
    there = today(aged) / "repo"
    done = subprocess.run(["cat", there / "a", there / "sub" / "d"], user=12345, capture_output=True)
    assert done.stdout == b"content of a"
    assert b"Permission denied" in done.stderr


def test_the_summary_does_not_count_the_trash_as_live(aged: Mount) -> None:
    before = aged.usage()
    (aged.path / "repo" / "a").unlink()
    until(lambda: aged.usage()["total"]["blobs"] == before["total"]["blobs"] - 1)
    after = aged.usage()
    assert [row["name"] for row in after["rows"]] == ["repo"]
    assert after["total"]["files"] == before["total"]["files"] - 1
    assert (after["trash_files"], after["trash_bytes"], after["trash_blob_bytes"]) == (1, 12, 12)
    assert "trash: 1 files, 12 B" in casfs("df", aged.store)


def test_a_store_that_has_the_name_already_has_no_trash(aged: Mount) -> None:
    aged.stop()
    with closing(sqlite3.connect(aged.store / "casfs.db")) as database:
        database.execute("UPDATE dentry SET name = CAST('.casfs' AS BLOB) WHERE parent = 1")
        database.commit()
    aged.start()
    assert "of its own" in aged.status["features"]["trash"]
    (aged.path / ".casfs" / "a").unlink()
    assert os.listdir(aged.path) == [".casfs"]
    assert aged.usage()["trash_files"] == 0
    aged.expect("no trash")
