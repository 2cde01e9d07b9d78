"""Locked trees as programs meet them, root among them."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casfs.syscalls import fallocate
from tests.mounted.mounts import Mount, asked, casfs

MIB = 1 << 20
FIELDS = ("mode", "ino", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns", "blocks")


def refused(verb: Callable[..., object], *args: Any, number: int = errno.EPERM) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is looked at
        verb(*args)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def tree(mount: Mount) -> Path:
    """A locked directory, `top/locked`; its `file` has a name in `out`, too, and was read, and is open."""
    locked = mount.path / "top/locked"
    (locked / "deep/empty").mkdir(parents=True)
    (mount.path / "out").mkdir()
    (locked / "file").write_bytes(b"file" * 100_000)
    (locked / "small").write_bytes(b"small")
    (locked / "deep/file").write_bytes(b"deep")
    (locked / "link").symlink_to("file")
    (mount.path / "out/hard").hardlink_to(locked / "file")
    os.setxattr(locked / "file", "user.a", b"b")
    os.sync()
    (locked / "file").read_bytes()
    casfs("lock", mount.store, locked, "--reason", "as delivered")
    return locked


def state(top: Path) -> dict[str, Any]:
    """Contents, names and attributes, but for times of access."""
    found: dict[str, Any] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        known = path.lstat()
        fields = [getattr(known, f"st_{field}") for field in FIELDS]
        names = os.listxattr(path, follow_symlinks=False)
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        content = path.read_bytes() if path.is_file() else None
        found[str(path)] = fields, xattrs, content
    return found


def open_and(path: Path, flags: int, do: Callable[[int], object] = lambda _: None) -> None:
    fd = os.open(path, flags)
    try:
        do(fd)
    finally:
        os.close(fd)


def changes(locked: Path) -> dict[str, Callable[[], object]]:
    out = locked.parent.parent / "out"
    file = locked / "file"

    def bind() -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix:
            unix.bind(str(locked / "socket"))

    return {
        "create": (locked / "new").touch,
        "mkdir": (locked / "deep/new").mkdir,
        "symlink": lambda: (locked / "new").symlink_to("x"),
        "mkfifo": lambda: os.mkfifo(locked / "new"),
        "socket": bind,
        "link into": lambda: (locked / "new").hardlink_to(out / "hard"),
        "link of": lambda: (out / "new").hardlink_to(file),
        "unlink": file.unlink,
        "unlink the other name": (out / "hard").unlink,
        "rmdir": lambda: os.rmdir(locked / "deep/empty"),
        "rename out": lambda: file.rename(out / "new"),
        "rename in": lambda: (out / "hard").rename(locked / "new"),
        "rename the tree": lambda: locked.rename(locked.parent / "other"),
        "rename above": lambda: locked.parent.rename(out / "other"),
        "write": lambda: open_and(file, os.O_WRONLY),
        "write by the other name": lambda: open_and(out / "hard", os.O_RDWR),
        "append": lambda: open_and(locked / "small", os.O_WRONLY | os.O_APPEND),
        "cut at open": lambda: open_and(file, os.O_RDONLY | os.O_TRUNC),
        "cut and write": lambda: open_and(file, os.O_WRONLY | os.O_TRUNC),
        "truncate": lambda: os.truncate(out / "hard", 3),
        "unnamed": lambda: open_and(
            locked, os.O_TMPFILE | os.O_RDWR, lambda fd: os.link(f"/proc/self/fd/{fd}", locked / "new")
        ),
        "chmod": lambda: file.chmod(0o600),
        "chown": lambda: os.chown(out / "hard", 5, 5),
        "utime": lambda: os.utime(locked, (1, 1)),
        "utime of a link": lambda: os.utime(locked / "link", (1, 1), follow_symlinks=False),
        "setxattr": lambda: os.setxattr(locked / "deep", "user.x", b"y"),
        "removexattr": lambda: os.removexattr(file, "user.a"),
    }


def test_programs_are_refused(mount: Mount, tree: Path) -> None:
    before = state(tree)
    for _ in range(2):
        for name, verb in changes(tree).items():
            if name != "unnamed" or mount.mode == "native":  # pyfuse3 has no O_TMPFILE
                refused(verb)
        assert state(tree) == before
        assert not list(tree.parent.glob("other"))
        mount.remount()
    assert sorted(path.name for path in (mount.path / "out").iterdir()) == ["hard"]


def test_a_file_that_only_reads_is_changed_by_no_call(tree: Path) -> None:
    before = state(tree)
    with (tree / "file").open("rb") as file:
        for call in (
            lambda: os.write(file.fileno(), b"x"),
            lambda: os.ftruncate(file.fileno(), 0),
            lambda: fallocate(file.fileno(), 0, 0, MIB),
            lambda: os.copy_file_range(file.fileno(), file.fileno(), 10, 0, 100),
            lambda: mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_WRITE),
        ):
            with pytest.raises(OSError):  # noqa: PT011 - EBADF, EINVAL, EACCES, by the kernel
                call()
        refused(os.fchmod, file.fileno(), 0o600)
        refused(os.setxattr, file.fileno(), "user.x", b"y")
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as private:
            private[:4] = b"mine"
    assert state(tree) == before


def test_commands_are_refused_on_a_store_mounted_or_not(mount: Mount, tree: Path) -> None:
    (mount.path / "out/other").write_bytes(b"other")
    before = state(tree)
    for on_mount in (True, False):
        inside = mount.path if on_mount else Path("/")
        words = () if on_mount else ("--store", str(mount.store))
        locked, out = inside / "top/locked", inside / "out"
        if not on_mount:
            mount.stop()
        for command in (
            ("cp", *words, out / "other", locked / "new"),
            ("cp", *words, "-r", out, locked),
            ("cp", *words, "--force", out / "other", locked / "file"),
            ("mv", *words, locked / "file", out / "new"),
            ("mv", *words, "--force", inside / "top", out),
            ("rm", *words, "-r", "--force", inside / "top"),
            ("rm", *words, out / "hard"),
        ):
            assert "top/locked is locked (as delivered)" in casfs(*command, code=1)
        assert "is locked" in casfs("prop", "set", "-p", "qa=passed", *words, locked / "file", code=1)
        assert "is locked by the lock on top/locked" in casfs("unlock", mount.store, locked / "file", code=1)
        listed = json.loads(casfs("lock", mount.store, "--list", "--json"))
        assert [(each["paths"], each["reason"]) for each in listed] == [(["/top/locked"], "as delivered")]
        assert "/top/locked" in casfs("lock", mount.store, "--list")
    mount.start()
    assert state(tree) == before
    casfs("unlock", mount.store, "/top/locked")
    assert casfs("lock", mount.store, "--list") == "nothing is locked\n"
    (tree / "file").write_bytes(b"new")


def test_while_somebody_writes_there_is_no_lock(mount: Mount) -> None:
    folder = mount.path / "a"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(MIB))
    with (folder / "file").open("r+b") as file:
        assert "a/file: a program has it open for writing" in casfs("lock", mount.store, folder, code=1)
        file.write(b"x")
    with (folder / "file").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert "a program has it open for writing, or mapped" in casfs("lock", mount.store, folder, code=1)
    mapped[:1] = b"y"
    mapped.close()
    casfs("lock", mount.store, folder)
    assert (folder / "file").read_bytes()[:2] == b"y\0"


def test_a_reader_who_maps_it_keeps_nobody_from_locking(mount: Mount) -> None:
    (mount.path / "file").write_bytes(bytes(MIB))
    with (mount.path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        casfs("lock", mount.store, mount.path / "file")
        assert mapped[:4] == bytes(4)


def test_a_lock_comes_while_programs_work(mount: Mount) -> None:
    """What a program was told is done is done, and what comes after the lock is refused."""
    folder = mount.path / "a"
    folder.mkdir()
    script = """
import os, sys
number = 0
try:
    while True:
        path = f"{sys.argv[1]}/{number}"
        open(path, "w").close()
        os.chmod(path, 0o600)
        os.setxattr(path, "user.number", str(number).encode())
        os.truncate(path, number)
        number += 1
except PermissionError as error:
    print(number)
"""
    for each in range(2):
        (folder / str(each)).mkdir()
    words = [sys.executable, "-c", script]
    writers = [
        subprocess.Popen([*words, str(folder / str(each))], stdout=subprocess.PIPE, text=True)
        for each in range(2)
    ]
    while len(list((folder / "0").iterdir())) < 20:
        pass
    asked("lock", mount.store, folder)
    before = state(folder)
    done = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert state(folder) == before
    for each, number in enumerate(done):
        assert len(list((folder / str(each)).iterdir())) in (number, number + 1)
