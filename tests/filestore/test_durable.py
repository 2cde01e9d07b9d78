"""The calls that reach the disk, for real."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from casfs.filestore.durable import Durable
from casfs.fuse.accelerator import NativeDurable, missing, native


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make write(2) stop short at `size` bytes and then fail with EFBIG, as a full disk does with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(params=[Durable, NativeDurable])
def durable(request: pytest.FixtureRequest) -> Durable:
    assert native is not None, f"no native accelerator: {missing}"
    return request.param()


def test_create_is_exclusive_and_follows_no_link(durable: Durable, tmp_path: Path) -> None:
    path = tmp_path / "new"
    fd = durable.create(str(path), 0o600)
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)
    os.close(fd)
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("new", "link"):
        with pytest.raises(FileExistsError):
            durable.create(str(tmp_path / name), 0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_write_whole_fails_when_the_disk_takes_only_a_part(durable: Durable, tmp_path: Path) -> None:
    fd = durable.create(str(tmp_path / "file"), 0o600)
    try:
        with file_size_limit(1000), pytest.raises(OSError, match="too large") as raised:
            durable.write_whole(fd, b"x" * 5000)
        assert raised.value.errno == errno.EFBIG
        os.truncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        durable.write_whole(fd, bytearray(b"y" * 5000))
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"y" * 5000


def test_files_are_written_whole_or_not_at_all(durable: Durable, tmp_path: Path) -> None:
    """One that is there is replaced, not written to: others may have it open or linked."""
    paths = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    paths[1].write_bytes(b"torn")
    os.link(paths[1], tmp_path / "link")
    files: list[tuple[str, bytes | bytearray, int]] = [
        (str(paths[0]), b"x" * 10, 0o400),
        (str(paths[1]), bytearray(b"y" * 900), 0o600),
        (str(paths[2]), b"z" * 5000, 0o400),
        (str(paths[3]), b"never", 0o400),
    ]
    with file_size_limit(1000), pytest.raises(OSError, match="too large") as raised:
        durable.write_files(files)
    assert raised.value.errno == errno.EFBIG
    assert [path.exists() for path in paths] == [True, True, False, False]
    assert (tmp_path / "link").read_bytes() == b"torn"
    durable.write_files(files)
    assert [path.read_bytes() for path in paths] == [bytes(data) for _, data, _ in files]
    assert [path.stat().st_mode & 0o777 for path in paths] == [mode for _, _, mode in files]


def test_paths_begin_at_a_descriptor(durable: Durable, tmp_path: Path) -> None:
    """Whatever the path of it means by then."""
    (tmp_path / "before").mkdir()
    with opened(tmp_path / "before") as folder:
        (tmp_path / "before").rename(tmp_path / "after")
        os.close(durable.create("first", 0o600, dir_fd=folder))
        durable.write_files([("first", b"new", 0o400), ("second", b"two", 0o600)], dir_fd=folder)
        durable.rename("first", "third", dir_fd=folder)
        durable.link("third", "fourth", dir_fd=folder)
        durable.unlink("second", dir_fd=folder)
        durable.fsync_path("fourth", dir_fd=folder)
        durable.fsync_path(".", dir_fd=folder)
        with pytest.raises(FileNotFoundError):
            durable.unlink("second", dir_fd=folder)
    found = {path.name: path.read_bytes() for path in (tmp_path / "after").iterdir()}
    assert found == {"third": b"new", "fourth": b"new"}
    assert not (tmp_path / "before").exists()


def test_names(durable: Durable, tmp_path: Path) -> None:
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    Path(first).write_text("content")
    durable.link(first, second)
    durable.rename(first, third)
    assert sorted(os.listdir(tmp_path)) == ["second", "third"]
    with pytest.raises(FileExistsError):
        durable.link(third, second)
    durable.unlink(second)
    with pytest.raises(FileNotFoundError):
        durable.unlink(second)


def test_syncs(durable: Durable, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    with path.open("r+b") as file:
        durable.fdatasync(file.fileno())
    durable.fsync_path(str(path))
    durable.fsync_path(str(tmp_path))
    with opened(tmp_path) as folder:
        durable.syncfs(folder)
    with pytest.raises(FileNotFoundError):
        durable.fsync_path(str(tmp_path / "absent"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable.syncfs(-1)
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="symbolic links") as raised:
        durable.fsync_path(str(tmp_path / "link"))
    assert raised.value.errno == errno.ELOOP


def test_what_has_to_be_synced_waits_for_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is synced is written already: to give up for EMFILE would lose it."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    refused = [errno.EMFILE, errno.ENFILE]
    real = os.open

    def scarce(*args: Any, **more: Any) -> int:
        if refused:
            raise OSError(refused[0], os.strerror(refused.pop(0)))
        return real(*args, **more)

    monkeypatch.setattr("casfs.filestore.durable.RETRY_SECONDS", 0)
    monkeypatch.setattr(os, "open", scarce)
    Durable().fsync_path(str(path))
    monkeypatch.setattr("casfs.filestore.durable.PATIENCE_SECONDS", -1)
    refused[:] = [errno.EMFILE]
    with pytest.raises(OSError, match="Too many"):
        Durable().fsync_path(str(path))
