"""What is below STORE, reached from its descriptor."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from casfs.filestore.directory import StoreDirectory, folder_of
from tests.faults import FaultyDurable


def test_looking(directory: StoreDirectory, scratch: Path) -> None:
    (scratch / "folder").mkdir()
    (scratch / "folder/file").write_bytes(b"content")
    (scratch / "folder/link").symlink_to("file")
    (scratch / "folder/dangling").symlink_to("nothing")
    assert sorted(directory.names("folder")) == ["dangling", "file", "link"]
    assert {name: stat.S_IFMT(status.st_mode) for name, status in directory.entries("folder")} == {
        "file": stat.S_IFREG,
        "link": stat.S_IFLNK,
        "dangling": stat.S_IFLNK,
    }
    assert directory.status("folder/file").st_size == 7
    assert stat.S_ISLNK(directory.status("folder/link").st_mode)
    assert directory.status("folder/link", follow=True).st_size == 7
    assert directory.exists("folder/dangling")
    with pytest.raises(OSError, match="symbolic"):
        directory.open("folder/link")
    for name in ("nothing", "nothing/file", "folder/file/below"):
        assert not directory.exists(name)
        assert list(directory.entries(name)) == []
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            directory.names(name)


def test_what_is_gone_when_it_is_looked_at_is_passed_over(directory: StoreDirectory, scratch: Path) -> None:
    """Of a store in use; `casfs df` must not fail for a staged file that was published meanwhile."""
    (scratch / "folder").mkdir()
    for name in "abc":
        (scratch / "folder" / name).touch()
    seen = []
    for name, _ in directory.entries("folder"):
        seen.append(name)
        for other in os.listdir(scratch / "folder"):
            (scratch / "folder" / other).unlink()
    assert len(seen) == 1


def test_every_change_goes_through_the_seam(
    directory: StoreDirectory, seam: FaultyDurable, scratch: Path
) -> None:
    os.close(directory.create("first", 0o600))
    directory.write_files([("second", b"content", 0o400)])
    directory.link("second", "third")
    directory.rename("third", "fourth")
    directory.unlink("first")
    directory.sync("second")
    directory.sync(".")
    directory.sync_all()
    expected = ["create", "create", "write_whole", "link", "rename", "unlink", "fsync_path", "fsync_path"]
    assert seam.calls == [*expected, "syncfs"]
    assert {path.name for path in scratch.iterdir()} == {"second", "fourth"}


def test_folders_and_modes(directory: StoreDirectory, scratch: Path) -> None:
    directory.make_folder("folder")
    assert stat.S_IMODE((scratch / "folder").stat().st_mode) == 0o700
    directory.set_mode("folder", 0o500)
    assert stat.S_IMODE((scratch / "folder").stat().st_mode) == 0o500
    with pytest.raises(FileExistsError):
        directory.make_folder("folder")
    assert directory.statvfs().f_blocks == os.statvfs(scratch).f_blocks


@pytest.mark.parametrize(
    ("name", "folder"), [("blobs", "."), ("blobs/ab", "blobs"), ("blobs/ab/c", "blobs/ab")]
)
def test_the_folder_of_a_name(name: str, folder: str) -> None:
    assert folder_of(name) == folder


def test_there_has_to_be_a_directory(scratch: Path) -> None:
    (scratch / "file").touch()
    for name, error in (("file", NotADirectoryError), ("nothing", FileNotFoundError)):
        with pytest.raises(error):
            StoreDirectory(str(scratch / name))
