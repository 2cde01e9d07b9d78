"""Directories: every name once, at its place, with the attributes that stat(2) shows."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

from tests.mounted.mounts import Mount

KINDS = {
    stat.S_IFREG: 8,
    stat.S_IFDIR: 4,
    stat.S_IFLNK: 10,
    stat.S_IFIFO: 1,
    stat.S_IFSOCK: 12,
    stat.S_IFCHR: 2,
    stat.S_IFBLK: 6,
}
"""Type in st_mode -> type in a directory's entry, readdir(3)."""


class Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("length", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )


class Stream:
    """opendir(3) and what goes with it."""

    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.opendir.restype = ctypes.c_void_p
    _libc.readdir.restype = ctypes.POINTER(Dirent)
    _libc.readdir.argtypes = _libc.closedir.argtypes = _libc.telldir.argtypes = (ctypes.c_void_p,)
    _libc.telldir.restype = ctypes.c_long
    _libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)

    def __init__(self, folder: Path) -> None:
        self._stream = self._libc.opendir(os.fsencode(folder))
        assert self._stream

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._libc.closedir(self._stream)

    def read(self) -> tuple[bytes, int, int] | None:
        """Name, inode number and type of the next entry; None at the end. Raises OSError."""
        ctypes.set_errno(0)
        entry = self._libc.readdir(self._stream)
        if not entry:
            if ctypes.get_errno():
                raise OSError(ctypes.get_errno(), "readdir")
            return None
        return entry.contents.name, entry.contents.ino, entry.contents.type

    def rest(self) -> list[tuple[bytes, int, int]]:
        entries = []
        while (entry := self.read()) is not None:
            entries.append(entry)
        return entries

    def tell(self) -> int:
        place: int = self._libc.telldir(self._stream)
        return place

    def seek(self, place: int) -> None:
        self._libc.seekdir(self._stream, place)


def facts(path: Path) -> tuple[object, ...]:
    seen = os.lstat(path)
    return (
        *(seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_rdev, seen.st_size),
        *(seen.st_blocks, seen.st_blksize, seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns),
    )


def listed(folder: Path) -> dict[str, tuple[object, ...]]:
    """What `ls -la` shows: name -> attributes, asked for right after the names."""
    return {name: facts(folder / name) for name in [".", "..", *sorted(os.listdir(folder))]}


def fill(folder: Path) -> None:
    """One of every kind, with attributes that no two share."""
    folder.mkdir()
    (folder / "file").write_bytes(b"content" * 1000)
    (folder / "empty").touch()
    with open(folder / "sparse", "wb") as file:
        file.truncate(5 << 32)
    (folder / "directory").mkdir()
    (folder / "directory" / "inner").mkdir()
    (folder / "link").symlink_to("file/" * 100)
    os.link(folder / "file", folder / ("n" * 255))
    os.mkfifo(folder / "fifo", 0o620)
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o700)
    if os.getuid() == 0:
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(300, 70000))
        os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(7, 1))
        os.chown(folder / "file", 4_000_000_000, 70_001)
        os.chmod(folder / "file", 0o6751)
    os.utime(folder / "empty", ns=(-1, -2_000_000_001), follow_symlinks=False)
    os.utime(folder / "directory", ns=(1, 4_000_000_000_123_456_789))


def test_a_listing_shows_the_attributes_of_stat(mount: Mount) -> None:
    folder = mount.path / "folder"
    fill(folder)
    expected = listed(folder)
    assert expected["file"][2] == 2
    assert expected["empty"][9:11] == (-1, -2_000_000_001)
    assert expected["directory"][9:11] == (1, 4_000_000_000_123_456_789)
    mount.remount()
    one_by_one = {name: facts(folder / name) for name in expected}
    mount.remount()
    assert listed(folder) == one_by_one == expected
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        assert (entry.inode(), stat.S_IFMT(mode)) == (expected[entry.name][0], stat.S_IFMT(mode))
    with Stream(folder) as stream:
        kinds = {os.fsdecode(name): (ino, kind) for name, ino, kind in stream.rest()}
    parent = os.stat(mount.path).st_ino
    assert kinds.pop(".") == (expected["."][0], 4)
    assert kinds.pop("..") == (parent, 4)
    assert kinds == {
        name: (os.lstat(folder / name).st_ino, KINDS[stat.S_IFMT(os.lstat(folder / name).st_mode)])
        for name in os.listdir(folder)
    }


def test_a_listing_shows_what_the_mount_presents(mount: Mount) -> None:
    folder = mount.path / "folder"
    fill(folder)
    mount.remount(f"{mount.options},uid=1234,gid=4321,umask=027")
    shown = {name: facts(folder / name)[1:] for name in os.listdir(folder)}
    assert {values[2:4] for values in shown.values()} == {(1234, 4321)}
    assert {int(str(values[0])) & 0o777 for values in shown.values()} == {0o750}


def test_a_listing_shows_files_that_are_being_written(mount: Mount) -> None:
    folder = mount.path / "folder"
    folder.mkdir()
    for number in range(10):
        (folder / f"old{number}").write_bytes(b"old")
    mount.remount()
    with open(folder / "old3", "ab", buffering=0) as old, open(folder / "new", "wb", buffering=0) as new:
        old.write(b"er" * 5000)
        new.write(b"new" * 3000)
        sizes = {name: values[6] for name, values in listed(folder).items() if name.strip(".")}
    assert sizes == {f"old{number}": 3 for number in range(10)} | {"old3": 10_003, "new": 9000}


def test_a_listing_goes_on_where_it_was_while_entries_come_and_go(mount: Mount) -> None:
    folder = mount.path / "folder"
    folder.mkdir()
    kept = {b"kept%d" % number for number in range(3000)}
    for number in range(3000):
        (folder / f"kept{number}").touch()
        if number % 3 == 0:
            (folder / f"gone{number}").touch()
    mount.remount()
    places: list[tuple[int, bytes]] = []
    seen: list[bytes] = []
    with Stream(folder) as stream:
        while (entry := stream.read()) is not None:
            seen.append(entry[0])
            number = len(seen)
            if number <= 3000 and number % 3 == 0:
                os.unlink(folder / f"gone{number - 3}")
                (folder / f"new{number}").touch()
            if number <= 3000 and number % 5 == 0:
                os.rename(folder / f"kept{number - 5}", folder / f"kept{number - 5}~")
                os.rename(folder / f"kept{number - 5}~", folder / f"kept{number - 5}")
            if number % 500 == 0 and entry[0] in kept:
                places.append((stream.tell(), entry[0]))
        assert seen[:2] == [b".", b".."]
        assert len(seen) == len(set(seen))
        assert kept <= set(seen)
        assert places
        now = {os.fsencode(name) for name in os.listdir(folder)}
        assert now == kept | {b"new%d" % number for number in range(3, 3001, 3)}
        for place, name in reversed(places):
            stream.seek(place)
            rest = [entry[0] for entry in stream.rest()]
            behind = seen[seen.index(name) + 1 :]
            assert [each for each in rest if each in kept] == [each for each in behind if each in kept]
        stream.seek(0)
        assert {entry[0] for entry in stream.rest()} == now | {b".", b".."}


def test_long_names_fill_replies_of_every_size(mount: Mount) -> None:
    folder = mount.path / "folder"
    folder.mkdir()
    names = {f"{number:04}".ljust(4 + number % 252, "x") for number in range(1200)}
    for name in names:
        (folder / name).touch()
    mount.remount()
    entries = os.listdir(folder)
    assert (len(entries), set(entries)) == (1200, names)


def test_an_open_directory_that_was_removed_is_empty(mount: Mount) -> None:
    folder = mount.path / "folder"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    folder.rmdir()
    assert os.listdir(fd) == []
    os.close(fd)
