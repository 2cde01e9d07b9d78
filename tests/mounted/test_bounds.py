"""What the kernel or a client asks for is bounded where it comes in, before it reaches a row or a struct."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.mounted.mounts import Mount, casfs
from tests.mounted.sides import Sides, opened, outcome

SECOND = 10**9
LAST = ((1 << 63) // SECOND) * SECOND
"""Nanoseconds: the last whole second that a signed 64-bit number of them has, in 2262."""

_libc = ctypes.CDLL(None, use_errno=True)


# Times


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (LAST - 1, LAST - 1),
        (LAST, LAST),
        (LAST + 5, LAST),
        (10413792000 * SECOND + 7, LAST),  # touch -d 2300-01-01
        ((1 << 63) * SECOND - 1, LAST),
        (-1, -1),
        (-LAST + SECOND, -LAST + SECOND),
        (-LAST - 5, -LAST),
        (-(1 << 63) * SECOND, -LAST),
    ],
)
def test_a_far_time_becomes_the_nearest_one_and_costs_nobody_else_a_commit(
    common_mount: Mount, asked: int, kept: int
) -> None:
    path, other = common_mount.path / f"time {asked}", common_mount.path / f"beside {asked}"
    path.touch()
    os.utime(path, ns=(asked, asked))
    status = path.stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (kept, kept)
    other.write_bytes(b"beside")
    with open(other, "rb+") as file:
        os.fsync(file.fileno())
    common_mount.usage()
    assert common_mount.status["activity"]["failed"] == 0


def test_a_far_time_survives_a_copy_a_trip_to_the_trash_and_a_remount(mount: Mount) -> None:
    casfs("trash", "set", mount.store, "--minimal-age", "0")
    path = mount.path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(LAST + SECOND, -LAST - SECOND))
    casfs("cp", path, mount.path / "copy")
    path.unlink()
    casfs("undelete", mount.path, "file")
    casfs("undelete", mount.path, "file", "--date", "0001-01-01", code=1)
    casfs("undelete", mount.path, "file", "--date", "9999-12-31", code=1)
    mount.remount()
    for name in ("file", "copy"):
        status = (mount.path / name).stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (LAST, -LAST), name


# Sizes and offsets


def test_sizes_and_offsets_at_the_end_of_64_bits_are_what_they_are_on_a_disk(sides: Sides) -> None:
    end = (1 << 63) - 1
    calls: list[Callable[[int], object]] = [
        lambda fd: os.ftruncate(fd, end),
        lambda fd: os.pwrite(fd, b"x", end - 1),
        lambda fd: os.pwrite(fd, b"xx", end - 1),
        lambda fd: os.pread(fd, 10, end - 10),
        lambda fd: os.lseek(fd, end, os.SEEK_DATA),
        lambda fd: os.lseek(fd, -1, os.SEEK_HOLE),
        lambda fd: len(os.pread(fd, 100, 0)),
    ]
    if sides.native:
        calls += [lambda fd: os.posix_fallocate(fd, end - 1, 1), lambda fd: os.posix_fallocate(fd, end, 1)]
    ends = []
    for folder in (sides.tested, sides.model):
        path = folder / "file"
        path.write_bytes(b"content")
        with opened(path, os.O_RDWR) as fd:
            ends.append([outcome(functools.partial(call, fd)) for call in calls])
        assert path.read_bytes() == b"content"
    assert ends[0] == ends[1]


# Inode numbers


def open_by_handle(mount: Mount, nodeid: int, generation: int = 0) -> int:
    """open_by_handle_at(2) of a FUSE handle (fuse_encode_fh, fs/fuse/inode.c): nodeid and generation."""
    body = struct.pack("=III", nodeid >> 32, nodeid & 0xFFFFFFFF, generation)
    handle = ctypes.create_string_buffer(struct.pack("=Ii", len(body), 0x81) + body)
    at = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd: int = _libc.open_by_handle_at(at, handle, os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return fd
    finally:
        os.close(at)


@pytest.mark.skipif(os.getuid() != 0, reason="open_by_handle_at needs CAP_DAC_READ_SEARCH")
def test_no_inode_has_a_number_of_64_bits(mount: Mount) -> None:
    path = mount.path / "file"
    path.write_bytes(b"content")
    fd = open_by_handle(mount, path.stat().st_ino)
    assert os.read(fd, 10) == b"content"
    os.close(fd)
    for number in (1 << 62 | 4711, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1):
        assert outcome(functools.partial(open_by_handle, mount, number)) == "ESTALE", number


# The control socket


def ask(mount: Mount, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(mount.store / "run" / "control"))
        connection.sendall(line + b"\n")
        answer = json.loads(connection.makefile("rb").readline())
    assert isinstance(answer, dict)
    return answer


HUGE = 1 << 70
HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("cp", {}),
    ("cp", {"src": 1, "dst": "/b", "recursive": False}),
    ("cp", {"src": "/a", "dst": None, "recursive": False}),
    ("cp", {"src": "/a", "dst": "/b", "recursive": HUGE}),
    ("cp", {"src": "/a", "dst": "/b", "recursive": False, "more": 1}),
    ("cp", {"src": "/a", "dst": "/b\0c", "recursive": False}),
    ("cp", {"src": "/a\0", "dst": "/b", "recursive": False}),
    ("cp", {"src": "/a", "dst": "/b\ud800", "recursive": False}),
    ("cp", {"src": "/a", "dst": "/" + "b" * 256, "recursive": False}),
    ("cp", {"src": "/a", "dst": "/" + "b/" * 9_000, "recursive": False}),
    ("mv", {"src": "/a", "dst": ["/b"]}),
    ("mv", {"src": "/a", "dst": "/\0"}),
    ("mv", {"src": "", "dst": ""}),
    ("mv", {"src": "/a", "dst": "/" + "b" * 60_000}),
    ("collect", {"ids": 1, "cutoff_ns": 0, "now_ns": 0, "record": [0] * 5}),
    ("collect", {"ids": ["1"], "cutoff_ns": 0, "now_ns": 0, "record": [0] * 5}),
    ("collect", {"ids": [HUGE], "cutoff_ns": 0, "now_ns": 0, "record": [0] * 5}),
    ("collect", {"ids": [-1], "cutoff_ns": 0, "now_ns": 0, "record": [0] * 5}),
    ("collect", {"ids": [], "cutoff_ns": HUGE, "now_ns": 0, "record": [0] * 5}),
    ("collect", {"ids": [], "cutoff_ns": 0, "now_ns": -HUGE, "record": [0] * 5}),
    ("collect", {"ids": [], "cutoff_ns": 0, "now_ns": 0, "record": [0] * 4}),
    ("collect", {"ids": [], "cutoff_ns": 0, "now_ns": 0, "record": [HUGE] * 5}),
    ("damaged", {"blobs": ["x"]}),
    ("damaged", {"blobs": [HUGE]}),
    ("damaged", {"blobs": {}}),
    ("undelete", {"path": "/gone", "since_ns": -HUGE, "before_ns": HUGE}),
    ("undelete", {"path": "/gone", "since_ns": 0.5, "before_ns": 1}),
    ("undelete", {"path": "/\0", "since_ns": 0, "before_ns": 1}),
    ("undelete", {"path": "/gone", "since_ns": 0, "before_ns": 1}),
    ("trash_empty", {"older_seconds": 1e300}),
    ("trash_empty", {"older_seconds": -1}),
    ("trash_empty", {"older_seconds": "1"}),
    ("trash_set", {"directory": "", "days": HUGE, "exclude": None, "minimal_age": None}),
    ("trash_set", {"directory": "", "days": -1, "exclude": None, "minimal_age": None}),
    ("trash_set", {"directory": "", "days": None, "exclude": None, "minimal_age": 1 << 62}),
    ("trash_set", {"directory": "", "days": None, "exclude": ["a\nb"], "minimal_age": None}),
    ("trash_set", {"directory": "", "days": None, "exclude": ["\ud800"], "minimal_age": None}),
    ("trash_set", {"directory": "a\0", "days": 1, "exclude": None, "minimal_age": None}),
    ("prop_get", {"path": "/none"}),
    ("prop_get", {"path": "/a\0"}),
    ("act_on", {"action": {"type": "rm"}}),
    ("act_on", {"action": {}, "targets": []}),
    ("act_on", {"action": {"type": "no such thing"}, "targets": []}),
    ("act_on", {"action": {"type": "rm", "more": 1}, "targets": []}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/a", HUGE]]}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/a", -1]]}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/a", 0, 0]]}),
    ("act_on", {"action": {"type": "rm"}, "targets": ["/a"]}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/a\0", 0]]}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/", 0]]}),
    ("act_on", {"action": {"type": "rm"}, "targets": [["/.casfs", 0]]}),
    ("act_on", {"action": {"type": "cp", "directory": "/\ud800"}, "targets": []}),
    ("act_on", {"action": {"type": "mv", "directory": "/a"}, "targets": []}),
    *(
        ("act_on", {"action": {"type": "prop_set", "properties": properties}, "targets": [["/a", 0]]})
        for properties in (
            {"qa": []},
            {"qa": "x"},
            {"qa": [7]},
            {"\ud800": ["x"]},
            {"qa": ["\ud800"]},
            {"\udcff": ["x"]},
            {"": ["x"]},
            {"a=b": ["x"]},
            {"q\0": ["x"]},
            {"qa": ["\0"]},
            {"qa": ["x" * 2049]},
            {"q" * 240: ["x"]},
            {"qa": [f"{number}" * 2000 for number in range(9)] + ["y" * 1000] * 2, "q": ["x" * 60_000]},
        )
    ),
    ("act_on", {"action": {"type": "prop_rm", "keys": ["\ud800"]}, "targets": [["/a", 0]]}),
    ("sync", {"more": 1}),
    ("status", {"\0": None}),
    ("no such thing", {}),
]

NO_REQUESTS = [
    b"",
    b"{",
    b"null",
    b"[" * 60_000,
    b'{"version":' + b"1" * 5_000 + b"}",
    b"\xff\xfe\x00",
    b'{"version": 1, "op": "sync", "args": [1]}',
    b'{"version": 1, "op": null}',
    b'{"version": 1.5, "op": "sync"}',
    b'{"version": 3, "op": "sync"}',
    b'{"version": 1, "op": "sync", "lines": 1}\n[]',
    b'{"version": 1, "op": "sync", "lines": -1}',
    b'{"version": 1, "op": "act_on", "args": {"action": {"type": "rm"}}, "lines": 1025}',
    *(
        b'{"version": 1, "op": "act_on", "args": {"action": {"type": "rm"}}, "lines": 2}\n' + lines
        for lines in (
            b'[["/a"]]\n[7]',
            b'[["/a"]]\n[["/b", -1]]',
            b'[["/a"]]\n' + b"[" * 60_000,
            b'[["/a"]]\n' + b"x" * 65_536,
            b'[["/a"]]\n{"/a": 1}',
            b'[["/a"]]\nnull',
        )
    ),
    b'{"version": 1, "op": "sync", "args": {}, "more": 1}',
    b'{"version": 1, "op": "trash_empty", "args": {"older_seconds": NaN}}',
    b'{"version": 1, "op": "trash_empty", "args": {"older_seconds": Infinity}}',
    b'{"version": 1, "op": "x' + b"y" * 65_536 + b'"}',
]


def test_a_hostile_client_gets_one_clear_line(mount: Mount) -> None:
    (mount.path / "a").write_bytes(b"content")
    lines = [json.dumps({"version": 1, "op": op, "args": args}).encode() for op, args in HOSTILE]
    for line in (*lines, *NO_REQUESTS):
        answer = ask(mount, line)
        shown = f"{line[:200]!r}: {answer}"
        assert answer["ok"] is False, shown
        assert answer["error"], shown
        assert "\n" not in answer["error"], shown
        assert "internal" not in answer["error"], shown
        assert answer["exit_code"] in (1, 2), shown
    assert ask(mount, b'{"version": 1, "op": "sync"}') == {
        "ok": True,
        "result": {},
        "error": "",
        "exit_code": 1,
    }
    assert sorted(os.listdir(mount.path)) == ["a"]
