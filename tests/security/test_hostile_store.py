"""What a store that somebody else wrote makes of root's commands: nothing outside of it is read or written.

Each attempt once did what its test is named after, or would have; the commands are those that root gives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from casfs.store import create_store
from tests.mounted.mounts import CASFS, ENVIRONMENT, casfs, is_mounted

THEIRS = b"theirs\n"


class Place:
    """A store, where it would be mounted, and `outside` beside it, which has to stay as it is."""

    def __init__(self, path: Path) -> None:
        self.store, self.mountpoint, self.outside = path / "store", path / "mnt", path / "outside"
        self.mountpoint.mkdir()
        (self.outside / "folder").mkdir(parents=True)
        for name in ("file", "folder/file"):
            (self.outside / name).write_bytes(THEIRS)
            (self.outside / name).chmod(0o644)
        create_store(str(self.store), fan_out=1)
        casfs("mount", self.store, self.mountpoint)
        (self.mountpoint / "file").write_bytes(b"content" * 1000)
        casfs("umount", self.mountpoint)

    def replace(self, name: str, target: str) -> None:
        """A link to something outside in the place of a file or folder."""
        path = self.store / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(self.outside / target)

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.store / "casfs.db", isolation_level=None)) as database:
            database.executescript(statement)

    def loosely(self, table: str, statement: str) -> None:
        """Run statements on a table whose types do not count meanwhile."""
        with closing(sqlite3.connect(self.store / "casfs.db", isolation_level=None)) as database:
            schema = "SELECT sql FROM sqlite_schema WHERE name = ?"
            ((strict,),) = database.execute(schema, (table,)).fetchall()
        loose = strict.removesuffix("STRICT").rstrip().removesuffix(",")
        for change, then in ((loose, statement), (strict, "SELECT 1")):
            text = change.replace("'", "''")
            update = f"UPDATE sqlite_schema SET sql = '{text}' WHERE name = '{table}'"
            self.sql(f"PRAGMA writable_schema = ON; {update}")
            self.sql(then)

    def everything(self, *, mounts: bool) -> None:
        """The commands of root, one after the other, whatever they say."""
        for words in (["fsck", "--deep"], ["scrub"], ["gc", "run", "--full", "--grace", "0"]):
            self.run(*words, self.store)
        self.mounted(expected=mounts)
        self.run("fsck", "--repair", self.store)
        self.mounted(expected=None)
        self.check()

    def run(self, *words: str | Path) -> None:
        done = subprocess.run([*CASFS, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1, 3, 5), done.stderr
        assert done.stderr.count("\n") <= 1, done.stderr

    def mounted(self, *, expected: bool | None) -> None:
        try:
            casfs("mount", self.store, self.mountpoint)
        except AssertionError:
            assert not expected
            return
        assert expected in (True, None)
        try:
            for path in sorted(self.mountpoint.iterdir()):
                try:
                    path.read_bytes()
                except OSError:
                    continue
        finally:
            casfs("umount", self.mountpoint)

    def check(self) -> None:
        for name in ("file", "folder/file"):
            path = self.outside / name
            assert path.read_bytes() == THEIRS
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert sorted(os.listdir(self.outside)) == ["file", "folder"]
        assert os.listdir(self.outside / "folder") == ["file"]
        assert not is_mounted(self.mountpoint)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.check()


pytestmark = pytest.mark.mounted


@pytest.mark.parametrize("folder", ["staging", "blobs", "run", "quarantine"])
def test_a_link_in_the_place_of_a_folder(place: Place, folder: str) -> None:
    """Of `staging` everything in it was removed by a mount that ended with 0, in `run` files were made."""
    place.replace(folder, "folder")
    place.everything(mounts=folder == "quarantine")


@pytest.mark.parametrize("kind", ["link", "second name", "fifo"])
def test_the_log_of_the_daemon(place: Place, kind: str) -> None:
    """Root appended to any file, a line of the attacker's choice if the path of the store had a newline."""
    place.replace("run/mount.log", "file")
    if kind != "link":
        (place.store / "run" / "mount.log").unlink()
    if kind == "second name":
        os.link(place.outside / "file", place.store / "run" / "mount.log")
    if kind == "fifo":
        os.mkfifo(place.store / "run" / "mount.log")
    assert "mount.log cannot be written" in casfs("mount", place.store, place.mountpoint, code=3)


def test_a_row_that_names_a_link(place: Place) -> None:
    """The file that it led to had the mode 0600 afterwards."""
    (place.store / "staging" / "00ff").symlink_to(place.outside / "file")
    place.sql("UPDATE inode SET staged = '00ff', blob_id = NULL WHERE size > 0")
    place.everything(mounts=True)


def test_a_fifo_among_the_blobs(place: Place) -> None:
    """The first read of it stopped the mount for good."""
    (blob,) = (place.store / "blobs").glob("*/*")
    blob.unlink()
    os.mkfifo(blob)
    casfs("mount", place.store, place.mountpoint)
    with pytest.raises(OSError, match="Input/output"):
        (place.mountpoint / "file").read_bytes()
    (place.mountpoint / "file").write_bytes(b"new")
    assert (place.mountpoint / "file").read_bytes() == b"new"
    casfs("umount", place.mountpoint)
    casfs("fsck", "--repair", place.store)


@pytest.mark.parametrize("name", ["casfs.toml", "casfs.db"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_waited_for_or_never_ends(place: Place, name: str, kind: str) -> None:
    path = place.store / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        case _:
            path.mkdir()
    for words in (["mount", place.store, place.mountpoint], ["fsck", place.store], ["df", place.store]):
        assert f"{name} is no regular file" in casfs(*words, code=3)


@pytest.mark.parametrize(
    "what", ["TRIGGER evil AFTER UPDATE ON inode BEGIN DELETE FROM dentry; END", "VIEW evil AS SELECT 1"]
)
def test_a_schema_that_does_things(place: Place, what: str) -> None:
    place.sql(f"CREATE {what}")
    for words in (["mount", place.store, place.mountpoint], ["fsck", "--repair", place.store]):
        assert "has a foreign" in casfs(*words, code=3)


def test_a_root_without_links(place: Place) -> None:
    """By its row only: the next mount removed everything."""
    place.sql("UPDATE inode SET nlink = 0 WHERE ino = 1")
    casfs("mount", place.store, place.mountpoint)
    assert (place.mountpoint / "file").read_bytes() == b"content" * 1000
    casfs("umount", place.mountpoint)
    casfs("fsck", "--repair", place.store)
    casfs("fsck", "--deep", place.store)


def test_an_attribute_that_is_a_number(place: Place) -> None:
    """To list it ended the daemon. Only who writes the file itself can make one."""
    place.sql(
        """PRAGMA writable_schema = ON;
           UPDATE sqlite_schema SET sql = replace(sql, ', STRICT', '') WHERE name = 'xattr'"""
    )
    place.sql("INSERT INTO xattr SELECT ino, 7, x'00' FROM inode WHERE size > 0")
    place.sql(
        """PRAGMA writable_schema = ON;
           UPDATE sqlite_schema SET sql = sql || ', STRICT' WHERE name = 'xattr'"""
    )
    casfs("mount", place.store, place.mountpoint)
    with pytest.raises(OSError, match="Input/output"):
        os.listxattr(place.mountpoint / "file")
    assert (place.mountpoint / "file").read_bytes() == b"content" * 1000
    casfs("umount", place.mountpoint)


@pytest.mark.parametrize("digest", ["7", "'text'", "x'07'"])
def test_a_digest_that_is_none(place: Place, digest: str) -> None:
    """To read the file was an unexpected error."""
    place.loosely(
        "blob", f"UPDATE blob SET blake3 = {digest}; INSERT INTO damage SELECT id, 1, 'bad' FROM blob"
    )
    casfs("mount", place.store, place.mountpoint)
    with pytest.raises(OSError, match="Input/output"):
        (place.mountpoint / "file").read_bytes()
    log = (place.store / "run" / "mount.log").read_text()
    assert "Traceback" not in log
    casfs("umount", place.mountpoint)
    place.run("fsck", "--repair", place.store)


@pytest.mark.parametrize("name", ["libs", "view", "app-1.0.jar"])
def test_a_name_in_a_repository_that_is_a_number(place: Place, name: str) -> None:
    """What follows from names ended the daemon."""
    casfs("repo", "create", place.store, "libs", "--layout", "maven-2-default")
    casfs("repo", "create", place.store, "view", "--view", "libs", "--layout", "ivy-default")
    casfs("mount", place.store, place.mountpoint)
    (place.mountpoint / "libs/org/app/1.0").mkdir(parents=True)
    (place.mountpoint / "libs/org/app/1.0/app-1.0.jar").write_bytes(b"jar")
    casfs("umount", place.mountpoint)
    place.sql("INSERT INTO noted SELECT parent, name FROM dentry")
    place.sql("INSERT INTO follow SELECT ino, 0 FROM repository")
    place.loosely("dentry", f"UPDATE dentry SET name = 7 WHERE name = CAST('{name}' AS BLOB)")
    casfs("mount", place.store, place.mountpoint)
    (place.mountpoint / "new").write_bytes(b"content")
    for _ in os.walk(place.mountpoint):
        pass
    casfs("umount", place.mountpoint)
    assert "Traceback" not in (place.store / "run" / "mount.log").read_text()
    place.run("fsck", "--repair", place.store)
    casfs("mount", place.store, place.mountpoint)
    assert (place.mountpoint / "new").read_bytes() == b"content"
    casfs("umount", place.mountpoint)


@pytest.mark.parametrize("mode", ["-1", "1 << 62", "'text'"])
def test_a_mode_that_none_can_have(place: Place, mode: str) -> None:
    """To list a view that shows its file, and to ask about it, was an unexpected error."""
    casfs("repo", "create", place.store, "libs")
    casfs("repo", "create", place.store, "all", "--virtual", "libs")
    casfs("mount", place.store, place.mountpoint)
    (place.mountpoint / "libs/folder").mkdir()
    (place.mountpoint / "libs/folder/file").write_bytes(b"jar")
    casfs("umount", place.mountpoint)
    place.loosely("inode", f"UPDATE inode SET mode = {mode} WHERE size = 3")
    casfs("mount", place.store, place.mountpoint)
    for _ in os.walk(place.mountpoint):
        pass
    subprocess.run(["ls", "-lR", place.mountpoint], capture_output=True, check=False)
    place.run("info", place.mountpoint / "libs/folder/file")
    place.run("info", place.mountpoint / "all/folder/file")
    place.run("repo", "create", place.store, "other")
    with contextlib.suppress(OSError):
        os.rename(place.mountpoint / "libs/folder", place.mountpoint / "other/folder")
    casfs("umount", place.mountpoint)
    assert "Traceback" not in (place.store / "run" / "mount.log").read_text()
    place.run("fsck", "--repair", place.store)
    done = subprocess.run([*CASFS, "fsck", place.store], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    assert done.returncode == (5 if "text" in mode else 0)  # what is no number has to come from a backup


def test_healing_from_a_hostile_tree(place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (blob,) = (place.store / "blobs").glob("*/*")
    content = blob.read_bytes()
    blob.unlink()
    os.mkfifo(tree / "fifo")
    (tree / "zero").symlink_to("/dev/zero")
    (tree / "loop").symlink_to(tree)
    (tree / "link").symlink_to(place.outside / "file")
    os.mknod(tree / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (tree / "of that size").write_bytes(bytes(len(content)))
    (tree / "whole").write_bytes(content)
    casfs("heal", "--from", tree, place.store)
    assert blob.read_bytes() == content
