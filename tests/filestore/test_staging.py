"""Staged files and their pool."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from casfs.filestore import staging
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.staging import StagedFile, Staging
from tests.faults import FaultyDurable
from tests.session import descriptors


@pytest.fixture
def area(directory: StoreDirectory) -> Iterator[Staging]:
    area = Staging(directory)
    area.make_folder()
    yield area
    area.close()


def test_staged_files_are_private_and_different(area: Staging) -> None:
    first, second = area.create(), area.create()
    assert {first.name, second.name} == set(area.names())
    assert os.stat(area.path(first.name)).st_mode & 0o777 == 0o600
    area.drop(first)
    area.drop(second)


def test_a_dropped_file_is_used_again_empty(area: Staging, seam: FaultyDurable) -> None:
    staged = area.create()
    os.pwrite(staged.fd, b"secret", 3)
    area.drop(staged)
    assert area.create() is staged
    assert os.fstat(staged.fd).st_size == 0
    assert seam.calls == ["create"]
    area.drop(staged)


def test_the_pool_has_an_end(area: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "POOL_SIZE", 2)
    files = [area.create() for _ in range(4)]
    for file in files:
        area.drop(file)
    assert set(area.names()) == {file.name for file in files[:2]}
    assert len(open_below(os.path.dirname(area.path("x")))) == 2
    area.close()
    assert area.names() == []
    assert open_below(os.path.dirname(area.path("x"))) == []


def open_below(folder: str) -> list[str]:
    return [path for path in descriptors().values() if path.startswith(folder)]


def test_reopen_and_remove_by_name(area: Staging) -> None:
    staged = area.create()
    os.pwrite(staged.fd, b"content", 0)
    os.close(staged.fd)
    again = area.reopen(staged.name)
    assert os.pread(again.fd, 100, 0) == b"content"
    os.close(again.fd)
    area.remove(staged.name)
    area.remove(staged.name)
    with pytest.raises(OSError, match=staged.name) as raised:
        area.reopen(staged.name)
    assert raised.value.errno == errno.EIO


def test_usage_counts_what_holds_something(area: Staging) -> None:
    empty, sparse = area.create(), area.create()
    assert area.usage() == (0, 0)
    os.pwrite(sparse.fd, b"x", 1 << 30)
    count, size = area.usage()
    assert count == 1
    assert 0 < size <= 1 << 16
    area.drop(empty)
    area.drop(sparse)


def test_staged_files_leave_descriptors_to_others(area: Staging) -> None:
    """A user who kept many files open had every commit fail, and others could not read."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    files: list[StagedFile] = []

    def fill() -> None:
        while True:
            files.append(area.create())

    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            fill()
        left = [os.open(os.devnull, os.O_RDONLY) for _ in range(45)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert raised.value.errno == errno.EMFILE
    assert set(area.names()) == {file.name for file in files}
    for fd in left:
        os.close(fd)
    for file in files:
        area.drop(file)
