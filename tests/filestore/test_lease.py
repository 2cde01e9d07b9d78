"""Who else has a file open, as the kernel tells it."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.filestore import lease
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.staging import Staging


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8192)
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def mapped(path: Path, flags: int, prot: int) -> mmap.mmap:
    other = os.open(path, flags)
    try:
        return mmap.mmap(other, 4096, prot=prot)
    finally:
        os.close(other)


def test_a_mapping_that_may_write_is_told_until_it_ends(path: Path, fd: int) -> None:
    assert not lease.others_may_write(fd)
    writing = mapped(path, os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)
    assert lease.others_may_write(fd)
    writing.close()
    assert not lease.others_may_write(fd)


def test_a_mapping_that_reads_does_not_write_but_has_the_file(path: Path, fd: int) -> None:
    assert not lease.others_have_open(fd)
    reading = mapped(path, os.O_RDONLY, mmap.PROT_READ)
    assert not lease.others_may_write(fd)
    assert lease.others_have_open(fd)
    reading.close()
    assert not lease.others_have_open(fd)


def test_where_there_are_no_leases_anybody_may_have_it(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("fcntl.fcntl", refused)
    assert lease.others_may_write(fd)
    assert lease.others_have_open(fd)


def test_nothing_of_the_lease_is_left(path: Path, fd: int) -> None:
    """A later open(2) for writing would wait for 45 s, and SIGIO would end the process."""
    before = signal.getsignal(signal.SIGIO)
    assert not lease.others_may_write(fd)
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    assert signal.getsignal(signal.SIGIO) == before


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    directory = StoreDirectory(str(tmp_path))
    staging = Staging(directory)
    staging.make_folder()
    yield staging
    directory.close()


def test_a_staged_file_is_asked_about_without_its_own_descriptor(staging: Staging) -> None:
    staged = staging.create()
    os.write(staged.fd, b"x" * 8192)
    assert not staging.others_may_write(staged)
    with mapped(Path(staging.path(staged.name)), os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE) as writing:
        assert staging.others_may_write(staged)
        writing[0:1] = b"y"
    assert not staging.others_may_write(staged)
    assert os.pwrite(staged.fd, b"z", 1) == 1, "it is still open for writing"
    assert os.pread(staged.fd, 3, 0) == b"yzx"
    os.close(staged.fd)


def test_what_was_lent_is_never_used_for_another_content(staging: Staging) -> None:
    name = Staging.new_name(lent=True)
    Path(staging.path(name)).write_bytes(b"content")
    lent = staging.reopen(name)
    assert lent.is_lent
    staging.drop(lent)
    assert staging.names() == []
    assert not staging.create().is_lent
    staging.close()
