"""Bit rot under a mount that is in use: an error instead of wrong bytes, and then the right ones again.

What the daemon and the kernel have of a file that was read before is what makes it hard: cached pages, open
descriptors, handles kept for the next open(2), backing files the kernel reads by itself.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.mounted.mounts import CASFS, ENVIRONMENT, Mount, casfs
from tests.mounted.sides import LARGE, SMALL

CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


def blob(mount: Mount, content: bytes) -> Path:
    name = blake3(content).hexdigest()
    return mount.store / "blobs" / name[:2] / name


def flip(path: Path) -> bytes:
    """Change one bit in the middle of a blob's file, in place, as a disk does. What it is now."""
    fd = os.open(path, os.O_RDWR)
    middle = os.fstat(fd).st_size // 2
    os.pwrite(fd, bytes([os.pread(fd, 1, middle)[0] ^ 1]), middle)
    os.close(fd)
    return path.read_bytes()


def told(*words: str | Path, code: int) -> dict[str, Any]:
    done = subprocess.run([*CASFS, *words, "--json"], env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def read_errno(path: Path) -> int:
    """How reading a file ends, 0 for well: it need not be open(2) that fails."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or 0
    return 0


def make(mount: Mount, content: bytes) -> tuple[Path, Path]:
    """A file with a second name elsewhere, and another one, both read once so that all caches are warm."""
    (mount.path / "d").mkdir()
    path, other = mount.path / "d" / "file", mount.path / "other"
    path.write_bytes(content)
    other.write_bytes(b"other" + content)
    casfs("cp", path, mount.path / "copy")
    mount.usage()
    for name in (path, other, mount.path / "copy"):
        assert name.read_bytes()[-4:] == content[-4:]
    return path, other


@CONTENTS
def test_a_damaged_file_gives_an_error_until_its_content_is_written_again(
    mount: Mount, content: bytes
) -> None:
    path, other = make(mount, content)
    rotten = flip(blob(mount, content))
    report = told("scrub", mount.store, code=5)
    (bad,) = report["bad"]
    assert (bad["kind"], bad["digest"]) == ("corrupt-blob", blake3(content).hexdigest())
    assert sorted(bad["paths"]) == ["/copy", "/d/file"]
    assert (mount.store / bad["quarantined"]).read_bytes() == rotten
    assert [read_errno(name) for name in (path, mount.path / "copy")] == [errno.EIO, errno.EIO]
    assert other.read_bytes() == b"other" + content
    assert path.stat().st_size == len(content)

    (mount.path / "again").write_bytes(content)
    mount.usage()
    assert [name.read_bytes() for name in (path, mount.path / "copy")] == [content, content]
    assert told("scrub", mount.store, code=0)["bad"] == []


@pytest.mark.parametrize(("how", "content"), [("truncate", SMALL), ("append", LARGE), ("remove", LARGE)])
def test_other_damage(mount: Mount, how: str, content: bytes) -> None:
    path, other = make(mount, content)
    file = blob(mount, content)
    if how == "remove":
        file.unlink()
    else:
        with open(file, "r+b") as opened:
            opened.truncate(len(content) + (5 if how == "append" else -5))
    (bad,) = told("scrub", mount.path, code=5)["bad"]
    assert bad["kind"] == ("missing-blob" if how == "remove" else "blob-size")
    assert read_errno(path) == errno.EIO
    assert other.read_bytes() == b"other" + content
    (mount.path / "again").write_bytes(content)
    mount.usage()
    assert path.read_bytes() == content


@CONTENTS
def test_a_file_that_is_open_meanwhile(mount: Mount, content: bytes) -> None:
    """What the kernel reads by itself cannot be taken from who has it open; nobody else gets it any more."""
    path, _ = make(mount, content)
    native = mount.status["features"]["passthrough"] == "on"
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 10, 0) == content[:10]
        flip(blob(mount, content))
        told("scrub", mount.store, code=5)
        if native and content is LARGE:
            assert os.pread(fd, 10, 0) == content[:10]
        else:
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(fd, 10, 0)
        assert read_errno(path) == errno.EIO
        (mount.path / "again").write_bytes(content)
        mount.usage()
    finally:
        os.close(fd)
    assert path.read_bytes() == content


@CONTENTS
def test_a_damaged_file_can_be_replaced_and_removed_but_not_changed(mount: Mount, content: bytes) -> None:
    path, _ = make(mount, content)
    flip(blob(mount, content))
    told("scrub", mount.store, code=5)
    with pytest.raises(OSError, match="Input/output error"), open(path, "r+b", buffering=0) as file:
        file.write(b"part of it")
    path.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    (mount.path / "copy").unlink()
    mount.usage()
    (mount.path / "again").write_bytes(content)  # the orphan's blob is still missing
    mount.usage()
    assert (mount.path / "again").read_bytes() == content


def test_a_mapping_does_not_show_wrong_bytes(mount: Mount) -> None:
    path, _ = make(mount, SMALL)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        assert mapping[:] == SMALL
        flip(blob(mount, SMALL))
        told("scrub", mount.store, code=5)
    assert read_errno(path) == errno.EIO
    (mount.path / "again").write_bytes(SMALL)
    mount.usage()
    assert path.read_bytes() == SMALL


@pytest.mark.parametrize(
    ("kind", "mounted", "content"),
    [("tree", True, SMALL), ("store", True, LARGE), ("tree", False, LARGE)],
    ids=["mounted from a tree", "mounted from a store", "unmounted"],
)
def test_heal(
    new_mount: Callable[..., Mount], scratch: Path, kind: str, mounted: bool, content: bytes
) -> None:
    mount = new_mount().start()
    path, _ = make(mount, content)
    source = scratch / "source"
    if kind == "tree":
        (source / "deep").mkdir(parents=True)
        (source / "deep" / "whatever").write_bytes(content)
        (source / "of the same size").write_bytes(bytes(len(content)))
    else:
        other = new_mount(source).start()
        (other.path / "any name").write_bytes(content)
        other.stop()
    if not mounted:
        mount.stop()
    flip(blob(mount, content))
    told("scrub", mount.store, code=5)
    report = told("heal", mount.store, "--from", source, code=0)
    (healed,) = report["healed"]
    assert sorted(healed["paths"]) == ["/copy", "/d/file"]
    assert report["left"] == []
    if not mounted:
        mount.start()
    assert path.read_bytes() == content
    assert (mount.path / "copy").read_bytes() == content


def test_scrubbing_a_store_that_is_written_all_the_time_finds_nothing(mount: Mount) -> None:
    """Blobs die, are born again, and get other files, since writers come while others read."""
    contents = [bytes([number]) * (200_000 + number) for number in range(8)]
    scrubbing = subprocess.Popen(["true"], env=ENVIRONMENT)
    readers: list[int] = []
    for round_ in range(240):
        content = contents[round_ % 8]
        path = mount.path / f"file {round_ % 3}"
        path.write_bytes(content)
        readers.append(os.open(path, os.O_RDONLY))
        os.pread(readers[-1], 1, 0)
        with open(path, "r+b") as file:
            file.write(b"changed %d" % (round_ % 5))
        if len(readers) > 4:
            os.close(readers.pop(0))
        if scrubbing.poll() is not None:
            assert scrubbing.returncode == 0
            scrubbing = subprocess.Popen(
                [*CASFS, "scrub", mount.store, "--restart"], env=ENVIRONMENT, stdout=subprocess.DEVNULL
            )
    assert scrubbing.wait() == 0
    for fd in readers:
        os.close(fd)
    mount.usage()
    mount.assert_blobs_whole()
