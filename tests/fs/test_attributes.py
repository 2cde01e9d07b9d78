"""Setting mode, owner, times and size."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casfs.errors import FsError
from casfs.fs.attributes import Changes
from casfs.fs.inodes import Inode
from casfs.store import create_store
from tests.invariants import assert_clean
from tests.kernel import Kernel
from tests.session import Session


def set_(kernel: Kernel, path: str, **changes: int) -> Inode:
    return kernel.set(kernel.inode(path, follow=False), Changes(**changes))


def test_every_attribute_survives_a_remount(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    set_(kernel, "file", mode=stat.S_IFDIR | 0o4751, uid=2**32 - 2, gid=12, atime=-1, mtime=2**62)
    inode = session.reopen().inode("file")
    assert inode.mode == stat.S_IFREG | 0o4751
    assert (inode.uid, inode.gid) == (2**32 - 2, 12)
    assert (inode.atime, inode.mtime) == (-1, 2**62)


def test_what_is_not_named_stays(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    before = kernel.tree()[b"file"]
    assert set_(kernel, "file").ctime > before.times[2]
    after = kernel.tree()[b"file"]
    assert (after.mode, after.owner, after.size, after.times[:2]) == (
        before.mode,
        before.owner,
        before.size,
        before.times[:2],
    )


@pytest.mark.parametrize("changes", [{"mode": 0o600}, {"uid": 1}, {"gid": 1}, {"atime": 1}, {"size": 3}])
def test_every_change_moves_ctime(kernel: Kernel, changes: dict[str, int]) -> None:
    kernel.write_file("file", b"content")
    before = kernel.inode("file").ctime
    now = time.time_ns()
    assert set_(kernel, "file", **changes).ctime >= now > before


def test_a_new_size_moves_mtime_and_other_changes_do_not(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    kernel.utime("file", 5, 5)
    set_(kernel, "file", mode=0o600)
    assert kernel.inode("file").mtime == 5
    set_(kernel, "file", size=7)
    assert kernel.inode("file").mtime > 5


def test_times_set_before_the_flush_stay(session: Session, kernel: Kernel) -> None:
    """What cp -p does: times, then close."""
    with kernel.open("file", os.O_WRONLY | os.O_CREAT) as file:
        file.write(b"content")
        kernel.set(file.stat(), Changes(atime=5, mtime=6), file.handle)
    inode = session.reopen().inode("file")
    assert (inode.atime, inode.mtime) == (5, 6)


@pytest.mark.parametrize(
    ("mode", "after"), [(0o6755, 0o755), (0o6745, 0o2745), (0o4644, 0o644), (0o2644, 0o2644), (0o755, 0o755)]
)
def test_a_new_owner_takes_suid_away(kernel: Kernel, mode: int, after: int) -> None:
    kernel.write_file("file", b"")
    for changes in ({"uid": 5}, {"gid": 5}):
        set_(kernel, "file", mode=mode)
        assert stat.S_IMODE(set_(kernel, "file", **changes).mode) == after
    set_(kernel, "file", mode=mode)
    assert stat.S_IMODE(set_(kernel, "file", uid=5, mode=mode).mode) == mode


def test_a_new_owner_leaves_a_directorys_bits(kernel: Kernel) -> None:
    kernel.mkdir("directory")
    set_(kernel, "directory", mode=0o7777)
    assert stat.S_IMODE(set_(kernel, "directory", uid=5, gid=5).mode) == 0o7777


def test_only_regular_files_have_a_size_to_set(kernel: Kernel) -> None:
    kernel.mkdir("directory")
    kernel.symlink("x", "symlink")
    kernel.make("fifo", stat.S_IFIFO)
    kernel.write_file("file", b"content")
    for path, size, number in (
        ("directory", 0, errno.EISDIR),
        ("symlink", 0, errno.EINVAL),
        ("fifo", 0, errno.EINVAL),
        ("file", -1, errno.EINVAL),
    ):
        with pytest.raises(FsError) as raised:
            set_(kernel, path, size=size)
        assert raised.value.errno == number
    assert kernel.read_file("file") == b"content"


def test_an_inode_that_is_gone_is_stale(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    inode = kernel.inode("file")
    kernel.unlink("file")
    with pytest.raises(FsError) as raised:
        kernel.set(inode, Changes(mode=0))
    assert raised.value.errno == errno.ESTALE


# Sizes at the limits


SIZES = st.one_of(st.integers(0, 100), st.sampled_from([262143, 262144, 262145, 600_000]))


@settings(max_examples=60)
@given(sizes=st.lists(SIZES, max_size=6))
def check_sizes(kernel: Kernel, sizes: list[int]) -> None:
    content = b"content"
    kernel.write_file("file", content)
    for size in sizes:
        kernel.truncate("file", size)
        content = content[:size] + bytes(max(0, size - len(content)))
        assert kernel.read_file("file") == content
    kernel.unlink("file")


def test_sizes_up_and_down(kernel: Kernel) -> None:
    check_sizes(kernel)


def test_a_file_of_four_tebibytes_stays_sparse(tmp_path: Path) -> None:
    """It stays a staged file: to hash the holes would take an hour. On a real disk."""
    create_store(str(tmp_path / "store"), fan_out=1)
    session = Session(tmp_path / "store")
    kernel = session.kernel
    size = 4 << 40
    with kernel.open("file", os.O_RDWR | os.O_CREAT) as file:
        file.truncate(size)
        file.write(b"middle", size // 2)
    kernel.sync()
    for _ in range(2):
        kernel = session.reopen()
        assert kernel.inode("file").size == size
        assert kernel.inode("file").staged is not None
        with pytest.raises(FsError) as raised:
            kernel.getxattr("file", b"user.casfs.blake3")
        assert raised.value.errno == errno.ENODATA
        with kernel.open("file") as file:
            assert file.read(8, size // 2 - 1) == b"\0middle\0"
            assert file.read(10, size - 5) == bytes(5)
            assert file.handle.content.allocated() <= 1 << 16
    with kernel.open("file", os.O_RDWR) as file:
        file.write(b"end", size)
        assert file.stat().size == size + 3
    kernel.truncate("file", 10)
    assert kernel.read_file("file") == bytes(10)
    session.stop()
    assert_clean(tmp_path / "store")
    assert os.listdir(tmp_path / "store" / "staging") == []


@pytest.mark.parametrize("size", [2**63 - 1, 2**62, 17 << 40])
def test_sizes_no_disk_can_hold(tmp_path: Path, size: int) -> None:
    """EFBIG, on a real disk, and the file is as it was."""
    create_store(str(tmp_path / "store"), fan_out=1)
    session = Session(tmp_path / "store")
    kernel = session.kernel
    kernel.write_file("file", b"content")
    with kernel.open("file", os.O_RDWR) as file:
        for change in (
            lambda: file.write(b"x", size),
            lambda: file.truncate(size),
            lambda: kernel.truncate("file", size),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as raised:
                change()
            assert raised.value.errno == errno.EFBIG
        assert file.read() == b"content"
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        kernel.truncate("file", size)
    kernel.sync()
    assert kernel.fs.activity().open_unsealed == 0
    assert session.reopen().read_file("file") == b"content"
    session.stop()
    assert_clean(tmp_path / "store")
