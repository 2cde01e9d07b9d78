"""/.casfs/snapshots/NAME as programs meet it."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, asked, casfs
from tests.security.users import as_user

SOMEBODY = 1234


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, errors="surrogateescape")
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def take(mount: Mount, name: str = "old") -> Path:
    """Make a snapshot; where it is looked into."""
    asked("snapshot", "create", mount.store, name)
    return mount.path / ".casfs/snapshots" / name


def blob_files(mount: Mount) -> int:
    """How many there are, when everything is at rest."""
    mount.usage()
    return len(list((mount.store / "blobs").glob("*/*")))


def same(one: Path, other: Path) -> None:
    """Are two trees the same, with all attributes but those that no copy has?"""
    listed = run("rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", f"{one}/", f"{other}/")
    assert listed == ""


@pytest.fixture
def filled(mount: Mount, real_tree: Path, scratch: Path) -> tuple[Mount, Path, Path]:
    """A mount with a real tree in it, a copy of that elsewhere, and a snapshot; the tree is changed since."""
    run("cp", "-a", real_tree, mount.path / "tree")
    model = scratch / "model"
    model.mkdir()
    run("rsync", "-aHAX", f"{mount.path}/", f"{model}/")
    snapshot = take(mount)
    for number, (folder, _, files) in enumerate(os.walk(mount.path / "tree")):
        for name in files[: number % 4]:
            os.unlink(f"{folder}/{name}")
        Path(folder, "new").write_text("new")
    return mount, snapshot, model


def test_a_tree_of_everything(filled: tuple[Mount, Path, Path], scratch: Path) -> None:
    mount, snapshot, model = filled
    same(snapshot, model)
    find = ("find", ".", "-printf", r"%P %y %m %n\n")
    listed = [sorted(run(*find, cwd=top).split("\n")) for top in (snapshot, model)]
    assert listed[0] == listed[1]
    assert run("ls", "-lRU", snapshot)
    assert ".casfs" not in os.listdir(mount.path)
    assert os.listdir(snapshot) == ["tree"]
    mount.remount()
    same(snapshot, model)
    run("tar", "-C", snapshot, "-cf", scratch / "tar", ".")
    assert run("tar", "-C", model, "--compare", "-f", scratch / "tar") == ""
    blobs = blob_files(mount)
    run("cp", "-a", snapshot / "tree", mount.path / "back")
    same(mount.path / "back", model / "tree")
    asked("cp", "-r", snapshot / "tree", mount.path / "rows")
    same(mount.path / "rows", model / "tree")
    assert blob_files(mount) == blobs


def test_a_copy_of_a_file_is_one_row(mount: Mount) -> None:
    content = os.urandom(20 << 20)
    (mount.path / "file").write_bytes(content)
    snapshot = take(mount)
    (mount.path / "file").unlink()
    casfs("gc", "run", mount.store, "--grace", "0s")
    blobs = blob_files(mount)
    for number, how in enumerate(("auto", "never", "auto")):
        run("cp", f"--reflink={how}", snapshot / "file", mount.path / f"copy{number}")
        assert (mount.path / f"copy{number}").read_bytes() == content
    assert blob_files(mount) == blobs == 1
    run("cp", snapshot / "file", mount.path / "file")
    (mount.path / "file").write_bytes(b"other")
    assert (snapshot / "file").read_bytes() == content


def test_nothing_of_it_can_be_changed(mount: Mount) -> None:
    (mount.path / "dir").mkdir()
    (mount.path / "dir/file").write_text("text")
    (mount.path / "here").write_text("here")
    snapshot = take(mount)
    file, here = snapshot / "dir/file", mount.path / "here"
    refused: list[Callable[[], object]] = [
        lambda: file.write_text("x"),
        lambda: file.open("a"),
        lambda: os.truncate(file, 0),
        lambda: file.chmod(0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.x", b"x"),
        file.unlink,
        lambda: (snapshot / "new").write_text("x"),
        (snapshot / "new").mkdir,
        lambda: os.mkfifo(snapshot / "new"),
        lambda: os.symlink("x", snapshot / "new"),
        lambda: os.link(here, snapshot / "new"),
        lambda: os.rename(here, snapshot / "new"),
        lambda: os.rename(here, file),
        lambda: os.rename(file, mount.path / "new"),
        lambda: os.rename(snapshot, snapshot.parent / "new"),
        snapshot.rmdir,
        (snapshot / "dir").rmdir,
        (snapshot.parent / "new").mkdir,
    ]
    for number, change in enumerate(refused):
        error = 0
        try:
            change()
        except OSError as refusal:
            error = refusal.errno or 0
        assert error in (errno.EROFS, errno.ENOTEMPTY), f"{number}: {os.strerror(error)}"
    with pytest.raises(OSError, match="cross-device"):
        os.link(file, mount.path / "new")
    assert file.read_text() == "text"
    assert os.listdir(snapshot) == ["dir", "here"]


def test_programs_work_in_it(mount: Mount, scratch: Path) -> None:
    work, bare = mount.path / "work", mount.path / "bare.git"
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "safe.directory=*")
    work.mkdir()
    run(*git, "init", "-q", work)
    (work / "module.py").write_text("VALUE = 42\n")
    run(*git, "add", ".", cwd=work)
    run(*git, "commit", "-qm", "x", cwd=work)
    run(*git, "clone", "-q", "--bare", work, bare)
    snapshot = take(mount)
    shutil.rmtree(work)
    shutil.rmtree(bare)
    assert run(*git, "status", "--porcelain", cwd=snapshot / "work") == ""
    run(*git, "clone", "-q", snapshot / "bare.git", scratch / "clone")
    assert (scratch / "clone/module.py").read_text() == "VALUE = 42\n"
    words = [sys.executable, "-c", "import module; print(module.VALUE)"]
    done = subprocess.run(words, env={"PYTHONPATH": str(snapshot / "work")}, capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr


def test_ten_at_once(mount: Mount) -> None:
    for number in range(10):
        (mount.path / "file").write_text(f"{number}")
        os.link(mount.path / "file", mount.path / f"name{number}")
        take(mount, f"s{number}")
        (mount.path / "file").unlink()
    top = mount.path / ".casfs/snapshots"
    for _ in range(2):
        assert sorted(os.listdir(top)) == [f"s{number}" for number in range(10)]
        readers = [
            subprocess.Popen(["grep", "-r", "", top / f"s{number}"], stdout=subprocess.PIPE)
            for number in range(10)
        ]
        for number, reader in enumerate(readers):
            out, _ = reader.communicate()
            assert len(out.splitlines()) == number + 2
        for number in range(10):
            assert (top / f"s{number}/file").read_text() == f"{number}"
            statuses = [(top / f"s{number}" / name).stat() for name in ("file", f"name{number}")]
            assert statuses[0].st_ino == statuses[1].st_ino
            assert statuses[0].st_nlink == 2
        assert len({(top / f"s{number}/file").stat().st_ino for number in range(10)}) == 10
        mount.remount()


def test_one_is_dropped_while_it_is_used(mount: Mount) -> None:
    content = os.urandom(3 << 20)
    (mount.path / "dir").mkdir()
    (mount.path / "dir/large").write_bytes(content)
    (mount.path / "dir/small").write_bytes(b"small")
    snapshot = take(mount)
    shutil.rmtree(mount.path / "dir")
    shell = subprocess.Popen(
        ["sh", "-c", "read line; cat small; ls . ; cat large >/dev/null"],
        cwd=snapshot / "dir",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for name in ("small", "large"):
        assert (snapshot / "dir" / name).read_bytes()  # from a handle that is kept
    with (snapshot / "dir/large").open("rb") as large, (snapshot / "dir/small").open("rb") as small:
        mapped = mmap.mmap(large.fileno(), 0, prot=mmap.PROT_READ)
        asked("snapshot", "rm", mount.store, "old")
        assert not snapshot.exists()
        assert os.listdir(snapshot.parent) == []
        casfs("gc", "run", mount.store, "--grace", "0s")
        assert mount.usage()["total"]["blobs"] == 0
        assert large.read() == mapped[:] == content
        assert small.read() == b"small"
    mapped.close()
    out, complaint = shell.communicate("go\n")
    assert "small" not in out
    assert complaint.count("small") + complaint.count("large") == 2
    assert not snapshot.exists()
    (mount.path / "new").write_text("new")
    assert (take(mount) / "new").read_text() == "new"
    assert os.listdir(snapshot) == ["new"]


def test_one_that_others_make_and_drop_is_noticed(mount: Mount) -> None:
    (mount.path / "file").write_text("text")
    snapshot = take(mount)
    assert (snapshot / "file").read_text() == "text"
    (mount.store / "snapshots/old").rename(mount.store / "snapshots/.gone-old-1")
    deadline = time.monotonic() + 10
    while snapshot.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not snapshot.exists()
    assert os.listdir(snapshot.parent) == []
    (mount.store / "snapshots/.gone-old-1").rename(mount.store / "snapshots/old")
    assert (snapshot / "file").read_text() == "text"


@pytest.mark.skipif(os.getuid() != 0, reason="becomes other users")
def test_permissions_are_as_they_were(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount(options="allow_other").start()
    for name, mode in (("open", 0o755), ("closed", 0o700)):
        (mount.path / name).mkdir()
        (mount.path / name / "public").write_text("public")
        (mount.path / name / "private").write_text("private")
        (mount.path / name / "private").chmod(0o600)
        (mount.path / name).chmod(mode)
    run("setfacl", "-m", f"u:{SOMEBODY}:r", mount.path / "open/private")
    (mount.path / "open/mine").write_text("mine")
    os.chown(mount.path / "open/mine", SOMEBODY, SOMEBODY)
    snapshot = take(mount)
    (mount.path / "closed").chmod(0o777)
    (mount.path / "closed/private").chmod(0o666)
    for _ in range(2):

        def look() -> list[object]:
            found: list[object] = []
            for name in ("open/public", "open/private", "open/mine", "closed/public", "closed/private"):
                try:
                    found.append((snapshot / name).read_text())
                except OSError as error:
                    found.append(error.errno)
            for name in ("open/mine", "open/new"):
                try:
                    (snapshot / name).write_text("x")
                except OSError as error:
                    found.append(error.errno)
            return found

        denied = errno.EACCES
        seen = as_user(SOMEBODY, look)
        assert seen[:5] == ["public", "private", "mine", denied, denied]
        assert seen[5] == errno.EROFS
        assert seen[6] in (denied, errno.EROFS)
        mount.remount()


def test_a_directory_of_many_entries_and_odd_names(mount: Mount) -> None:
    count = 20_000
    many = mount.path / "many"
    many.mkdir()
    for number in range(count):
        os.close(os.open(many / f"{number}", os.O_CREAT | os.O_WRONLY))
    odd = [b"\xff\xfe", b"new\nline", b"x" * 255, "ümläut".encode(), b" ", b"-rf", b"\x01"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(mount.path) + b"/" + name)).write_bytes(name)
    snapshot = take(mount)
    shutil.rmtree(many)
    for _ in range(2):
        assert set(os.listdir(snapshot / "many")) == {f"{number}" for number in range(count)}
        assert len(list(os.scandir(snapshot / "many"))) == count
        top = os.fsencode(snapshot)
        assert sorted(os.listdir(top)) == sorted([*odd, b"many"])
        for name in odd:
            assert Path(os.fsdecode(top + b"/" + name)).read_bytes() == name
        mount.remount()


def test_views_and_virtual_repositories(mount: Mount) -> None:
    asked("repo", "create", mount.store, "libs", "--layout", "maven-2-default")
    asked("repo", "create", mount.store, "view", "--view", "libs", "--layout", "gradle-default")
    asked("repo", "create", mount.store, "all", "--virtual", "libs")
    place = mount.path / "libs/org/acme/tool/1.0"
    place.mkdir(parents=True)
    (place / "tool-1.0.jar").write_bytes(b"jar")
    wanted = {name: run("find", name, "-type", "f", cwd=mount.path) for name in ("libs", "view", "all")}
    assert all("tool" in each for each in wanted.values())
    snapshot = take(mount)
    (place / "tool-1.0.jar").unlink()
    for _ in range(2):
        for name, files in wanted.items():
            assert run("find", name, "-type", "f", cwd=snapshot) == files
            for file in files.split():
                assert (snapshot / file).read_bytes() == b"jar"
        mount.remount()


def test_reads_are_passed_through(mount: Mount) -> None:
    if mount.status["features"]["passthrough"] != "on":
        pytest.skip("nothing is passed through here")
    (mount.path / "large").write_bytes(os.urandom(8 << 20))
    snapshot = take(mount)
    requests = Path(f"/proc/{mount.pid}/stat")
    with (snapshot / "large").open("rb") as file:
        file.read(1)
        before = requests.read_text().split()[13:15]
        for _ in range(200):
            file.seek(0)
            while file.read(1 << 20):
                pass
        after = requests.read_text().split()[13:15]
    spent = sum(map(int, after)) - sum(map(int, before))
    assert spent < 100, "1.6 GB went through the daemon"
