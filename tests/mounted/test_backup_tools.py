"""Programs that people make backups with, of what a mount shows: what did not change is not read again, after
a remount neither; and what they restore is what there was."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.opens import opened_files

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="fanotify(7) tells root what is opened")

FILES = 60
SAME = {"top/d0/e0/file0", "top/d0/hard"}


def run(*words: str | Path, cwd: Path | None = None) -> str:
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "none",
        "LC_ALL": "C.UTF-8",
        "HOME": str(cwd or "/nonexistent"),
    }
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


class Rsync:
    rereads = 0
    only_opens_what_it_reads = True

    def __init__(self, place: Path) -> None:
        self.place = place

    def backup(self, source: Path) -> None:
        run("rsync", "-aHAX", "--delete", f"{source}/", self.place / "copy")

    def restore(self, target: Path) -> None:
        run("rsync", "-aHAX", f"{self.place}/copy/", target)


class Tar:
    """Whose list has the number of the device, which is another one after a remount."""

    rereads = 0
    only_opens_what_it_reads = True
    OPTIONS = ("--acls", "--xattrs", "--xattrs-include=*", "--no-check-device")

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0

    def backup(self, source: Path) -> None:
        self.count += 1
        archive = self.place / f"{self.count}.tar"
        listed = f"--listed-incremental={self.place}/list"
        run("tar", listed, *self.OPTIONS, "-cf", archive, "-C", source, ".")

    def restore(self, target: Path) -> None:
        for number in range(1, self.count + 1):
            archive = self.place / f"{number}.tar"
            run("tar", "--listed-incremental=/dev/null", *self.OPTIONS[:3], "-xpf", archive, "-C", target)


class Restic:
    rereads = 0
    only_opens_what_it_reads = True

    def __init__(self, place: Path) -> None:
        self.words = ("restic", "--repo", place / "repository", "--cache-dir", place / "cache", "--quiet")
        run(*self.words, "init")

    def backup(self, source: Path) -> None:
        run(*self.words, "backup", ".", cwd=source)

    def restore(self, target: Path) -> None:
        run(*self.words, "restore", "latest", "--target", target)


class Borg:
    """Which reads again what had the newest time of change in its last run (docs/internals/data-structures),
    and opens everything, for attributes of ext4."""

    rereads = 1
    only_opens_what_it_reads = False

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0
        self.words = ("env", f"BORG_BASE_DIR={place}/base", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", "borg")
        run(*self.words, "init", "--encryption", "none", place / "repository")

    def backup(self, source: Path) -> None:
        self.count += 1
        run(*self.words, "create", f"{self.place}/repository::{self.count}", ".", cwd=source)

    def restore(self, target: Path) -> None:
        run(*self.words, "extract", f"{self.place}/repository::{self.count}", cwd=target)


class Dar:
    """Which opens everything, for attributes of ext4."""

    rereads = 0
    only_opens_what_it_reads = False

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0

    def backup(self, source: Path) -> None:
        base = ("-A", self.place / str(self.count)) if self.count else ()
        self.count += 1
        run("dar", "-Q", "-c", self.place / str(self.count), "-R", source, *base)

    def restore(self, target: Path) -> None:
        for number in range(1, self.count + 1):
            run("dar", "-Q", "-w", "-x", self.place / str(number), "-R", target)


TOOLS = {"rsync": Rsync, "tar": Tar, "restic": Restic, "borg": Borg, "dar": Dar}


@pytest.mark.parametrize("name", TOOLS)
def test_what_did_not_change_is_not_read_again(mount: Mount, tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    place, top = tmp_path / "place", mount.path / "top"
    place.mkdir()
    _make(top)
    tool = TOOLS[name](place)

    def read_by(run: Callable[[Path], None]) -> set[str]:
        with opened_files(mount.path) as files:
            run(top)
        if tool.only_opens_what_it_reads:
            assert files.opened - files.read <= SAME  # tar(1) opens it, and finds that it has it
        return files.read

    assert len(read_by(tool.backup)) >= FILES - 1
    assert len(read_by(tool.backup)) <= tool.rereads
    changed = _change(top)
    again = read_by(tool.backup)
    assert changed <= again
    assert len(again - changed) <= 1 + tool.rereads  # what has lost a name, or has another one
    read_by(tool.backup)
    mount.remount()
    assert len(read_by(tool.backup)) <= tool.rereads
    target = tmp_path / "target"
    target.mkdir()
    tool.restore(target)
    compared = run("rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", f"{top}/", target)
    assert compared.replace(".d..t...... ./\n", "") == ""  # restic leaves the target as it is


def _make(top: Path) -> None:
    """Of each kind of file and attribute."""
    for number in range(FILES):
        path = top / f"d{number % 7}" / f"e{number % 3}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 1000 * (1 + number % 5))
        os.utime(path, ns=(1_600_000_000_123_456_789 + number, 1_600_000_000_987_654_321 + number))
    (top / "d0/hard").hardlink_to(top / "d0/e0/file0")
    (top / "link").symlink_to("d0")
    os.mkfifo(top / "fifo")
    os.chown(top / "d1/e1/file1", 12, 34)
    os.chmod(top / "d2/e2/file2", 0o4751)
    os.setxattr(top / "d3/e0/file3", "user.name", b"value\0")
    subprocess.run(["setfacl", "-m", "u:12:rwx", top / "d4"], check=True)
    with open(top / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"sparse")


def _change(top: Path) -> set[str]:
    """What is changed so that its content has to be read."""
    with open(top / "d5/e2/file5", "ab") as file:
        file.write(b"more")
    (top / "d6/e0/new").write_bytes(b"new")
    (top / "d1/e1/file1").write_bytes(b"another")
    (top / "d4/e1/file4").unlink()
    (top / "d2/e2/gone").mkdir()
    (top / "d2/e2/gone").rmdir()
    os.chmod(top / "d3/e0/file3", 0o600)
    return {"top/d5/e2/file5", "top/d6/e0/new", "top/d1/e1/file1"}
