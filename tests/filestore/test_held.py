"""What a mapping keeps of a file that was removed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.filestore import held
from casfs.filestore.directory import StoreDirectory
from casfs.filestore.held import SMALLEST, HeldFiles


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StoreDirectory]:
    directory = StoreDirectory(str(tmp_path))
    yield directory
    directory.close()


def held_below(directory: StoreDirectory) -> HeldFiles:
    """Files take the place of blobs, their paths that of digests."""
    return HeldFiles(directory, lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def removed(files: HeldFiles, path: Path, size: int) -> mmap.mmap:
    """A file that is mapped while it is removed."""
    path.write_bytes(b"x" * size)
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
    files.will_remove(os.fsencode(path), size)
    path.unlink()
    return mapping


def test_space_that_a_mapping_keeps_is_counted_until_it_lets_go(
    directory: StoreDirectory, tmp_path: Path
) -> None:
    files = held_below(directory)
    first = removed(files, tmp_path / "first", SMALLEST)
    second = removed(files, tmp_path / "second", 2 * SMALLEST)
    assert files.amount() == (2, 3 * SMALLEST)
    first.close()
    assert files.amount() == (1, 2 * SMALLEST)
    second.close()
    assert files.amount() == (0, 0)


def test_what_nobody_has_mapped_is_not_counted(directory: StoreDirectory, tmp_path: Path) -> None:
    files = held_below(directory)
    path = tmp_path / "file"
    path.write_bytes(b"x" * SMALLEST)
    files.will_remove(os.fsencode(path), SMALLEST)
    path.unlink()
    files.will_remove(os.fsencode(path), SMALLEST)
    removed(files, tmp_path / "small", 5000)
    assert files.amount() == (0, 0)


def test_where_files_have_no_handles_nothing_is_counted(
    directory: StoreDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "file_handle", lambda _: None)
    files = held_below(directory)
    with removed(files, tmp_path / "file", SMALLEST):
        assert files.amount() == (0, 0)
    assert os.listdir(tmp_path) == []
