"""What programs rely on, in the kernel and the daemon together: maps, locks, holes, names, permissions."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.trees import ODD_NAMES

NOBODY = 65534


def as_nobody(program: str, *words: str | Path) -> str:
    """Run a Python program as nobody; "" or the name of the errno it ended with."""
    guarded = (
        "import os, sys, errno\n"
        "try:\n"
        + "".join(f"    {line}\n" for line in program.splitlines())
        + "except OSError as error:\n    print(errno.errorcode[error.errno], end='')\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", guarded, *words],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Maps


def test_a_shared_map_is_seen_by_readers_and_after_a_remount(mount: Mount) -> None:
    file = mount.path / "mapped"
    file.write_bytes(bytes(1 << 20))
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[5000:5005] = b"HELLO"
        with open(file, "rb") as reader:
            assert os.pread(reader.fileno(), 5, 5000) == b"HELLO"
            with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as other:
                mapped[700_000:700_003] = b"YOU"
                assert other[700_000:700_003] == b"YOU"
        os.pwrite(opened.fileno(), b"by write(2)", 9000)
        assert mapped[9000:9011] == b"by write(2)"
        mapped.flush()
        mapped[-1:] = b"!"
    expected = bytearray(1 << 20)
    expected[5000:5005], expected[700_000:700_003], expected[-1:] = b"HELLO", b"YOU", b"!"
    expected[9000:9011] = b"by write(2)"
    assert file.read_bytes() == expected
    mount.remount()
    assert file.read_bytes() == expected


def test_a_map_that_outlives_its_descriptor_is_not_lost(mount: Mount) -> None:
    file = mount.path / "mapped"
    file.write_bytes(bytes(300_000))
    with open(file, "r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    mapped[200_000:200_004] = b"LATE"
    mapped.close()
    assert file.read_bytes()[200_000:200_004] == b"LATE"
    mount.remount()
    assert file.read_bytes()[200_000:200_004] == b"LATE"


def test_a_private_map_changes_nothing(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"as it was")
    with open(mnt / "file", "r+b") as opened, mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        mapped[:2] = b"no"
    assert (mnt / "file").read_bytes() == b"as it was"


def test_a_reader_that_was_there_first_sees_what_is_written(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"a" * 100_000)
    with open(mnt / "file", "rb", buffering=0) as reader:
        assert reader.read(10) == b"a" * 10
        (mnt / "file").write_bytes(b"b" * 50_000)
        assert os.pread(reader.fileno(), 100_000, 0) == b"b" * 50_000
        os.truncate(mnt / "file", 3)
        assert os.pread(reader.fileno(), 100, 0) == b"bbb"
        assert os.fstat(reader.fileno()).st_size == 3


# Locks

LOCK_TRIAL = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        if sys.argv[2] == "flock":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
    except BlockingIOError:
        sys.exit(7)
"""


@pytest.mark.parametrize("kind", ["flock", "posix"])
def test_locks_exclude_other_processes(mnt: Path, kind: str) -> None:
    (mnt / "file").touch()

    def other() -> int:
        return subprocess.run([sys.executable, "-c", LOCK_TRIAL, mnt / "file", kind]).returncode

    with open(mnt / "file", "r+b") as file:
        if kind == "flock":
            fcntl.flock(file, fcntl.LOCK_SH)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 105)
        assert other() == 7
        if kind == "flock":
            fcntl.flock(file, fcntl.LOCK_UN)
        else:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 105)
        assert other() == 0


# Holes, sizes, names


def test_a_sparse_file_reads_as_zeros_and_takes_no_room(mount: Mount) -> None:
    file = mount.path / "sparse"
    with open(file, "wb") as opened:
        opened.truncate(8 << 30)
        os.pwrite(opened.fileno(), b"middle", 5 << 30)
    for _ in range(2):
        assert (os.stat(file).st_size, os.stat(file).st_blocks * 512 < 1 << 20) == (8 << 30, True)
        with open(file, "rb") as opened:
            assert os.pread(opened.fileno(), 8, (5 << 30) - 1) == b"\0middle\0"
            assert os.pread(opened.fileno(), 10, (8 << 30) - 5) == bytes(5)
        mount.remount()


@pytest.mark.parametrize("size", [(1 << 63) - 1, (1 << 63) - 2, 1 << 44, (1 << 43) + 1])
def test_sizes_at_the_end_of_the_range_are_as_on_the_disk_below(
    mount: Mount, scratch: Path, size: int
) -> None:
    def outcome(folder: Path) -> list[int]:
        steps: list[int] = []
        with open(folder / "file", "w+b", buffering=0) as file:
            for step in (
                lambda: os.ftruncate(file.fileno(), size),
                lambda: os.fstat(file.fileno()).st_size,
                lambda: len(os.pread(file.fileno(), 10, size - 5)),
                lambda: os.pwrite(file.fileno(), b"ab", size - 1),
                lambda: os.fstat(file.fileno()).st_size,
            ):
                try:
                    steps.append(step() or 0)
                except OSError as error:
                    steps.append(-(error.errno or 0))
        return [*steps, os.stat(folder / "file").st_size]

    assert outcome(mount.path) == outcome(scratch)
    left = os.stat(mount.path / "file").st_size
    mount.remount()
    assert os.stat(mount.path / "file").st_size == left


def test_names_of_any_bytes(mount: Mount) -> None:
    folder = os.fsencode(mount.path)
    for name in ODD_NAMES:
        place = folder + b"/" + name
        with open(place, "wb") as file:
            file.write(name)
        os.rename(place, place + b"~" if len(name) < 255 else place)
    names = [name + b"~" if len(name) < 255 else name for name in ODD_NAMES]
    for number, name in enumerate(names):
        os.symlink(name, folder + b"/link%d" % number)
        os.setxattr(folder + b"/" + name, b"user." + name[:200], name)
    mount.remount()
    assert sorted(os.listdir(folder)) == sorted([*names, *(b"link%d" % each for each in range(len(names)))])
    for number, name in enumerate(names):
        assert os.readlink(folder + b"/link%d" % number) == name
        assert os.getxattr(folder + b"/" + name, b"user." + name[:200]) == name
        with open(folder + b"/link%d" % number, "rb") as file:
            assert file.read() == ODD_NAMES[number]


def test_names_and_paths_that_are_too_long(mnt: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        (mnt / ("n" * 256)).touch()
    os.chdir(mnt)
    try:
        for _ in range(40):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        with open("deep", "w") as file:
            file.write("reached")
        with open("deep") as file:
            assert file.read() == "reached"
    finally:
        os.chdir("/")
    subprocess.run(["rm", "-rf", mnt / ("d" * 200)], check=True)
    assert os.listdir(mnt) == []


def test_a_large_directory_lists_every_name_once_while_it_changes(mnt: Path) -> None:
    kept = {f"kept{number}" for number in range(3000)}
    for name in (*kept, *(f"gone{number}" for number in range(1000))):
        (mnt / name).touch()
    seen = []
    for number, entry in enumerate(os.scandir(mnt)):
        seen.append(entry.name)
        if number < 1000:
            os.unlink(mnt / f"gone{number}")
            (mnt / f"new{number}").touch()
    assert len(seen) == len(set(seen))
    assert kept <= set(seen)
    assert set(os.listdir(mnt)) == kept | {f"new{number}" for number in range(1000)}


# Unlinked and renamed while open


def test_an_unlinked_open_file_works_to_the_end(mount: Mount) -> None:
    file = mount.path / "file"
    with open(file, "w+b", buffering=0) as opened:
        opened.write(b"before" * 100_000)
        os.unlink(file)
        assert os.listdir(mount.path) == []
        opened.write(b"after")
        os.fsync(opened.fileno())
        assert os.fstat(opened.fileno()).st_nlink == 0
        assert os.pread(opened.fileno(), 5, 600_000) == b"after"
        file.write_bytes(b"another one")
        assert os.pread(opened.fileno(), 6, 0) == b"before"
        other = os.open(f"/proc/self/fd/{opened.fileno()}", os.O_RDONLY)
        assert os.pread(other, 6, 6) == b"before"
        os.close(other)
    assert file.read_bytes() == b"another one"
    usage = mount.usage()
    assert (usage["total"]["files"], usage["staged"]) == (1, 0)


def test_a_sealed_file_unlinked_while_open_is_still_read(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"content")
    with open(mnt / "file", "rb") as opened:
        os.unlink(mnt / "file")
        assert opened.read() == b"content"


def test_a_file_replaced_while_open_is_still_read(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"old")
    (mnt / "next").write_bytes(b"new")
    with open(mnt / "file", "rb") as opened:
        os.rename(mnt / "next", mnt / "file")
        assert opened.read() == b"old"
        assert (mnt / "file").read_bytes() == b"new"


def test_a_removed_working_directory(mnt: Path) -> None:
    (mnt / "folder").mkdir()
    place = os.open(mnt / "folder", os.O_RDONLY)
    os.rmdir(mnt / "folder")
    with pytest.raises(FileNotFoundError):
        os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=place)
    assert os.listdir(place) == []
    os.close(place)


# Permissions


def test_other_users_are_held_to_the_permissions(mnt: Path) -> None:
    (mnt / "open").mkdir(mode=0o777)
    (mnt / "open").chmod(0o777)
    (mnt / "closed").mkdir(mode=0o700)
    (mnt / "secret").write_text("secret")
    (mnt / "secret").chmod(0o600)
    assert as_nobody("open(sys.argv[1])", mnt / "secret") == "EACCES"
    assert as_nobody("os.listdir(sys.argv[1])", mnt / "closed") == "EACCES"
    assert as_nobody("os.mkdir(sys.argv[1] + '/new')", mnt) == "EACCES"
    assert as_nobody("os.chmod(sys.argv[1], 0o777)", mnt / "secret") == "EPERM"
    assert as_nobody("open(sys.argv[1] + '/mine', 'w').write('mine')", mnt / "open") == ""
    assert os.stat(mnt / "open" / "mine").st_uid == NOBODY
    assert as_nobody("os.chown(sys.argv[1], 0, 0)", mnt / "open" / "mine") == "EPERM"
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:r", mnt / "secret"], check=True)
    assert as_nobody("open(sys.argv[1]).read()", mnt / "secret") == ""
    assert as_nobody("open(sys.argv[1], 'a')", mnt / "secret") == "EACCES"


def test_a_sticky_directory_protects_the_files_of_others(mnt: Path) -> None:
    (mnt / "shared").mkdir()
    (mnt / "shared").chmod(0o1777)
    (mnt / "shared" / "roots").touch()
    assert as_nobody("os.unlink(sys.argv[1])", mnt / "shared" / "roots") == "EPERM"
    assert as_nobody("os.rename(sys.argv[1], sys.argv[1] + '2')", mnt / "shared" / "roots") == "EPERM"


@pytest.mark.parametrize(
    "change",
    [
        "os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')",
        "os.truncate(sys.argv[1], 3)",
        "open(sys.argv[1], 'w')",
    ],
    ids=["write", "truncate", "open-truncating"],
)
def test_a_change_by_another_takes_the_suid_bits(mnt: Path, change: str) -> None:
    (mnt / "program").write_bytes(b"#!/bin/sh\n")
    (mnt / "program").chmod(0o6777)
    assert as_nobody(change, mnt / "program") == ""
    assert stat.S_IMODE(os.stat(mnt / "program").st_mode) == 0o777


def test_a_directory_with_setgid_hands_its_group_down(mnt: Path) -> None:
    (mnt / "team").mkdir()
    os.chown(mnt / "team", 0, 4242)
    (mnt / "team").chmod(0o2777)
    assert as_nobody("os.mkdir(sys.argv[1] + '/d'); open(sys.argv[1] + '/f', 'w')", mnt / "team") == ""
    folder, file = os.stat(mnt / "team" / "d"), os.stat(mnt / "team" / "f")
    assert (folder.st_gid, file.st_gid) == (4242, 4242)
    assert (folder.st_mode & stat.S_ISGID, file.st_mode & stat.S_ISGID) == (stat.S_ISGID, 0)


def test_the_digest_is_shown_and_cannot_be_set(mount: Mount) -> None:
    from blake3 import blake3

    for name, content in {"empty": b"", "small": b"abc", "large": os.urandom(3 << 20)}.items():
        file = mount.path / name
        file.write_bytes(content)
        assert os.getxattr(file, "user.casfs.blake3").decode() == blake3(content).hexdigest()
        with pytest.raises(PermissionError):
            os.setxattr(file, "user.casfs.blake3", b"0" * 64)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_times_are_kept_to_the_nanosecond(new_mount: Callable[..., Mount], many: bool) -> None:
    mount = new_mount().start()
    names = [f"file{number}" for number in range(500 if many else 1)]
    for number, name in enumerate(names):
        (mount.path / name).touch()
        os.utime(mount.path / name, ns=(1_234_567_890_123_456_789 - number, -1_000_000_007 * (number + 1)))
    mount.remount()
    for number, name in enumerate(names):
        status = os.stat(mount.path / name)
        assert status.st_atime_ns == 1_234_567_890_123_456_789 - number
        assert status.st_mtime_ns == -1_000_000_007 * (number + 1)
