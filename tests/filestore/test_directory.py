"""What is below STORE, reached from its descriptor."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from casfs.filestore.directory import READ, WRITE, StoreDirectory, folder_of
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
    assert directory.is_folder("folder")
    assert not directory.is_folder("folder/link")
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


def outside(scratch: Path) -> Path:
    """A file that is none of the store's, beside it."""
    place = scratch.with_name(scratch.name + "-outside")
    place.mkdir()
    (place / "file").write_bytes(b"theirs")
    (place / "file").chmod(0o644)
    return place


def test_no_link_on_the_way_is_followed(directory: StoreDirectory, scratch: Path) -> None:
    """With a link in place of staging/ everything that lay where it leads was removed at a mount."""
    place = outside(scratch)
    try:
        (scratch / "staging").symlink_to(place)
        (scratch / "mine").touch()
        for call in (
            lambda: directory.open("staging/file"),
            lambda: directory.create("staging/new", 0o600),
            lambda: directory.unlink("staging/file"),
            lambda: directory.rename("staging/file", "file"),
            lambda: directory.rename("mine", "staging/mine"),
            lambda: directory.link("staging/file", "file"),
            lambda: directory.link("mine", "staging/mine"),
            lambda: directory.write_files([("staging/new", b"ours", 0o400)]),
            lambda: directory.make_folder("staging/new"),
            lambda: directory.set_mode("staging/file", 0o600),
            lambda: directory.set_mode("staging", 0o700),
            lambda: directory.sync("staging/file"),
            lambda: directory.status("staging/file"),
            lambda: directory.names("staging"),
            lambda: directory.open("../" + place.name + "/file"),
        ):
            with pytest.raises(OSError, match=r"symbolic|cross-device|directory|own"):
                call()
        assert list(directory.entries("staging")) == []
        assert not directory.exists("staging/file")
        assert [path.name for path in place.iterdir()] == ["file"]
        assert (place / "file").read_bytes() == b"theirs"
        assert stat.S_IMODE((place / "file").stat().st_mode) == 0o644
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.mknod(path, stat.S_IFCHR, 0x105)])
def test_only_regular_files_are_opened(directory: StoreDirectory, scratch: Path, make) -> None:
    """A fifo stopped everything: to open it waits for who writes to it."""
    try:
        make(scratch / "odd")
    except PermissionError:
        pytest.skip("device nodes take root")
    for flags in (READ, WRITE):
        with pytest.raises(OSError, match=r"no regular file|a directory|device"):
            directory.open("odd", flags)
    if not (scratch / "odd").is_dir():
        with pytest.raises(OSError, match="own"):
            directory.set_mode("odd", 0o700)
        with pytest.raises(OSError, match="no regular file"):
            directory.sync("odd")


def test_what_has_a_name_elsewhere_is_read_and_not_changed(directory: StoreDirectory, scratch: Path) -> None:
    (scratch / "file").write_bytes(b"theirs")
    os.link(scratch / "file", scratch / "second")
    os.close(directory.open("second"))
    with pytest.raises(OSError, match="second name"):
        directory.open_own("second")
    with pytest.raises(OSError, match="own"):
        directory.set_mode("second", 0o400)
    (scratch / "file").unlink()
    os.close(directory.open_own("second"))
    directory.set_mode("second", 0o400)


def test_a_directory_is_not_reached_by_a_link(scratch: Path) -> None:
    (scratch / "link").symlink_to(scratch)
    with pytest.raises(OSError, match=r"symbolic|directory"):
        StoreDirectory(str(scratch / "link"))
