"""What a backup has below a path, restored to a plain directory."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from casfs.errors import CasfsError, FormatError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.offline import opened
from tests.maintenance.backup.backups import back_up, backups_of, listing, stop_after, tree_restored
from tests.maintenance.stores import ONE, TWO, Damaged, make_directory, make_file


@pytest.fixture
def copy(store: Damaged) -> Damaged:
    destination = store.path.parent / "destination"
    back_up(store, destination)
    return Damaged(destination)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def hostile(copy: Damaged, statement: str, *values: object) -> None:
    """Change the rows of the backup behind its back."""
    database = Damaged(copy.path / "snapshots" / backups_of(copy)[0].name)
    database.sql(statement, *values)


def test_everything(copy: Damaged, target: Path) -> None:
    done = tree_restored(copy, b"/", target)
    assert (done.files, done.directories, done.lost) == (7, 3, [])
    assert (target / "a" / "one").read_bytes() == ONE
    assert (target / "a" / "deep" / "two").read_bytes() == TWO
    assert (target / "a" / "one").stat().st_ino == (target / "b" / "link").stat().st_ino
    assert os.readlink(target / "b" / "symlink") == "../a/one"
    assert stat.S_ISFIFO((target / "b" / "fifo").lstat().st_mode)
    assert os.getxattr(target / "a" / "one", "user.note") == b"kept"
    assert stat.S_IMODE((target / "b" / "empty").stat().st_mode) == 0o600
    before = listing(target)
    again = tree_restored(copy, b"/", target)
    assert (again.files, again.directories, again.same) == (0, 0, 7)
    assert listing(target) == before


@pytest.mark.parametrize(("path", "names"), [(b"/a/deep", ["deep", "deep/two"]), (b"/b/link", ["link"])])
def test_a_part(copy: Damaged, target: Path, path: bytes, names: list[str]) -> None:
    tree_restored(copy, path, target)
    assert sorted(listing(target)) == names


def test_a_path_that_there_is_not(copy: Damaged, target: Path) -> None:
    for path in (b"/nothing", b"/a/one/below", b"/a/../b"):
        with pytest.raises(CasfsError, match="is not in the snapshot"):
            tree_restored(copy, path, target)
    assert not target.exists()


def test_nothing_is_replaced_unless_it_is_to_be(copy: Damaged, target: Path) -> None:
    (target / "a").mkdir(parents=True)
    (target / "a" / "one").write_bytes(b"mine")
    (target / "b").write_bytes(b"a file")
    before = listing(target)
    would = tree_restored(copy, b"/", target, dry_run=True)
    assert would.differ == [b"/a/one", b"/b"] or would.differ == [b"/b", b"/a/one"]
    with pytest.raises(CasfsError, match="--force replaces it"):
        tree_restored(copy, b"/", target)
    assert listing(target) == before
    tree_restored(copy, b"/", target, force=True)
    assert (target / "a" / "one").read_bytes() == ONE
    assert (target / "b" / "two again").read_bytes() == TWO


def test_a_directory_is_never_replaced_by_a_file(copy: Damaged, target: Path) -> None:
    (target / "a" / "one" / "mine").mkdir(parents=True)
    done = tree_restored(copy, b"/", target, force=True)
    assert done.differ == [b"/a/one"]
    assert (target / "a" / "one" / "mine").is_dir()
    assert (target / "b" / "link").read_bytes() == ONE


def test_a_stop_is_gone_on_with(store: Damaged, copy: Damaged, target: Path) -> None:
    assert not tree_restored(copy, b"/", target, stop=stop_after(15)).complete
    assert tree_restored(copy, b"/", target).complete
    assert (target / "b" / "two again").read_bytes() == TWO


def test_what_was_left_by_one_that_was_killed_goes(copy: Damaged, target: Path) -> None:
    (target / "a").mkdir(parents=True)
    for folder in (target, target / "a"):
        (folder / ".casfs-restoring-0123456789abcdef").write_bytes(b"half")
    tree_restored(copy, b"/", target)
    assert sorted(os.listdir(target / "a")) == ["deep", "one"]
    assert not list(target.glob(".casfs-*"))


def test_what_is_damaged_is_not_made(copy: Damaged, target: Path) -> None:
    copy.overwrite(copy.blob(TWO), TWO[:-1] + b"!")
    done = tree_restored(copy, b"/", target)
    assert sorted(lost.path for lost in done.lost) == [b"/a/deep/two", b"/b/two again"]
    assert os.listdir(target / "a" / "deep") == []
    assert (target / "a" / "one").read_bytes() == ONE


@pytest.mark.parametrize("name", [b"..", b".", b"", b"x/../../evil", b"/etc/evil", b"a\0b"])
def test_names_that_are_none_are_refused(copy: Damaged, target: Path, name: bytes) -> None:
    hostile(copy, "UPDATE dentry SET name = ? WHERE name = CAST('deep' AS BLOB)", name)
    outside = listing(target.parent)
    with pytest.raises((FormatError, OSError)):
        tree_restored(copy, b"/", target)
    assert listing(target.parent) == outside


def test_a_directory_in_itself_is_refused(copy: Damaged, target: Path) -> None:
    hostile(copy, "UPDATE dentry SET ino = 1 WHERE name = CAST('deep' AS BLOB)")
    with pytest.raises(FormatError, match="lies in itself"):
        tree_restored(copy, b"/", target)


def test_links_in_the_place_of_directories_are_not_followed(copy: Damaged, target: Path) -> None:
    outside = target.parent / "outside"
    outside.mkdir()
    target.mkdir()
    (target / "a").symlink_to(outside)
    with pytest.raises(CasfsError, match="--force"):
        tree_restored(copy, b"/", target)
    tree_restored(copy, b"/", target, force=True)
    assert os.listdir(outside) == []
    assert (target / "a" / "one").read_bytes() == ONE


def test_a_link_that_comes_meanwhile_is_not_followed(
    copy: Damaged, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody replaces the directory that was just made."""
    outside = target.parent / "outside"
    outside.mkdir()
    real = os.mkdir

    def mkdir(path: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        if path == b"a":
            os.rmdir(path, dir_fd=dir_fd)
            os.symlink(outside, path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    done = tree_restored(copy, b"/", target)
    assert b"/a" in [lost.path for lost in done.lost]
    assert os.listdir(outside) == []


def test_a_hostile_size_or_content_is_no_content(copy: Damaged, target: Path) -> None:
    hostile(copy, "UPDATE inode SET size = size + 1 WHERE size = ?", len(TWO))
    done = tree_restored(copy, b"/", target)
    assert len(done.lost) == 2


def test_deep_trees(store: Damaged, target: Path) -> None:
    with opened(str(store)) as fs:
        folder = 1
        for _ in range(600):
            folder = make_directory(fs, folder, b"d")
        make_file(fs, folder, b"bottom", b"bottom")
        run_inline(fs.group.durable())
    destination = store.path.parent / "deep"
    back_up(store, destination)
    assert tree_restored(destination, b"/d", target).files == 1
    with closing(os.scandir(target)):
        assert (target / "/".join("d" * 600) / "bottom").read_bytes() == b"bottom"


def test_a_link_to_what_is_no_path_was_an_internal_error(copy: Damaged, target: Path) -> None:
    hostile(copy, "UPDATE inode SET mode = 41471, target = x'610062' WHERE mode & 61440 = 32768")
    with pytest.raises(FormatError, match="which is no path"):
        tree_restored(copy, b"/", target)


def test_nothing_was_said_of_device_nodes_and_files_with_the_rights_of_others(
    copy: Damaged, target: Path
) -> None:
    hostile(copy, "UPDATE inode SET mode = 32768 + 2541 WHERE mode & 61440 = 32768")
    done = tree_restored(copy, b"/", target)
    assert 0 < done.privileged <= done.files
