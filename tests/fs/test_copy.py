"""`casfs cp` and `casfs mv`: by rows alone, wholly or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casfs.errors import FsError
from casfs.fs import acl, copy
from casfs.fs.changes import Unseen
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from tests.faults import FaultyDurable
from tests.fs.test_acl import EXTENDED
from tests.images import copy_store
from tests.invariants import assert_clean
from tests.kernel import Entry, Kernel
from tests.limits import set_limits
from tests.session import Session

LARGE = bytes(range(256)) * 1200


def cp(kernel: Kernel, source: str, target: str, *, recursive: bool = True) -> Unseen:
    with kernel.fs.changes.unseen() as unseen:
        run_inline(copy.copy(kernel.fs, source.encode(), target.encode(), recursive=recursive))
    return unseen


def mv(kernel: Kernel, source: str, target: str) -> Unseen:
    with kernel.fs.changes.unseen() as unseen:
        run_inline(copy.move(kernel.fs, source.encode(), target.encode()))
    return unseen


def fails(number: int, function: Callable[..., object], *args: object, **options: bool) -> str:
    with pytest.raises(FsError) as raised:
        function(*args, **options)
    assert raised.value.errno == number, raised.value
    return str(raised.value.strerror)


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    """With a tree of everything."""
    kernel.mkdir("tree", 0o750)
    kernel.mkdir("tree/sub")
    kernel.mkdir("tree/sub/empty", 0o3711)
    kernel.write_file("tree/small", b"content")
    kernel.write_file("tree/sub/large", LARGE)
    kernel.write_file("tree/empty file", b"")
    kernel.link("tree/small", "tree/sub/link")
    kernel.symlink("../nowhere", "tree/symlink")
    kernel.make("tree/device", stat.S_IFBLK | 0o600, 0x801)
    kernel.setxattr("tree/small", b"user.x", b"value")
    kernel.setxattr("tree/sub", b"system.posix_acl_default", acl.encode(EXTENDED))
    kernel.chown("tree/small", 5, 6)
    kernel.utime("tree/small", 5, 6)
    kernel.utime("tree", 7, 8)
    return kernel


def below(kernel: Kernel, top: str) -> dict[bytes, Entry]:
    prefix = top.encode() + b"/"
    return {path[len(prefix) :]: entry for path, entry in kernel.tree().items() if path.startswith(prefix)}


def same(one: Entry, two: Entry) -> bool:
    """All but the inode number and the times that no copy can have."""
    aspects = ("mode", "nlink", "owner", "rdev", "size", "mtime", "content", "xattrs")
    return all(getattr(one, aspect) == getattr(two, aspect) for aspect in aspects)


def test_a_tree_is_copied_with_everything(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, STEP=2, GROUP_LIMIT=5)
    cp(kernel, "tree", "copy")
    kernel = session.reopen()
    original, copied = below(kernel, "tree"), below(kernel, "copy")
    assert original.keys() == copied.keys()
    for path, entry in original.items():
        assert same(entry, copied[path]), path
        assert entry.ino != copied[path].ino
    assert copied[b"small"].ino == copied[b"sub/link"].ino
    assert kernel.inode("copy").mtime == 8
    assert kernel.inode("").nlink == 4
    assert session.store.namespace.blobs.totals()[0] == 2


def test_a_copy_goes_its_own_way(kernel: Kernel) -> None:
    cp(kernel, "tree", "copy")
    kernel.write_file("copy/small", b"changed")
    kernel.unlink("copy/sub/large")
    kernel.chmod("copy/sub", 0o700)
    assert kernel.read_file("tree/small") == b"content"
    assert kernel.read_file("tree/sub/large") == LARGE
    assert stat.S_IMODE(kernel.inode("tree/sub").mode) == 0o755


def test_a_copy_adds_no_blob(session: Session, kernel: Kernel) -> None:
    kernel.sync()
    before = session.blobs
    cp(kernel, "tree", "copy")
    assert session.blobs == before


def test_a_file_is_copied_over_another(session: Session, kernel: Kernel) -> None:
    kernel.write_file("target", b"old")
    old = kernel.open("target")
    told = cp(kernel, "tree/small", "target", recursive=False)
    assert told.names == {(1, b"target"): old.ino}
    assert old.read() == b"old"
    assert kernel.read_file("target") == b"content"
    assert kernel.inode("target").nlink == 1
    old.close()
    assert session.reopen().read_file("target") == b"content"


def test_into_a_directory(kernel: Kernel) -> None:
    kernel.mkdir("target")
    cp(kernel, "tree/small", "target")
    cp(kernel, "tree", "target/")
    assert kernel.names("target") == [b"small", b"tree"]
    assert kernel.inode("target").nlink == 3
    mv(kernel, "tree/small", "target/tree/sub")
    assert kernel.read_file("target/tree/sub/small") == b"content"


def test_errors_of_copying(kernel: Kernel) -> None:
    kernel.write_file("file", b"")
    assert "copy it with -r" in fails(errno.EISDIR, cp, kernel, "tree", "copy", recursive=False)
    fails(errno.ENOENT, cp, kernel, "absent", "copy")
    fails(errno.ENOENT, cp, kernel, "tree", "absent/copy")
    fails(errno.ENOTDIR, cp, kernel, "tree", "file/copy")
    fails(errno.EEXIST, cp, kernel, "tree", "file")
    fails(errno.EINVAL, cp, kernel, "tree", "tree/sub")
    fails(errno.EINVAL, cp, kernel, "tree", "tree/sub/new")
    fails(errno.EINVAL, cp, kernel, "tree/small", "tree/small")
    fails(errno.EINVAL, cp, kernel, "", "copy")
    fails(errno.EINVAL, cp, kernel, "tree/../tree", "copy")
    fails(errno.ENAMETOOLONG, cp, kernel, "tree", "x" * 256)
    fails(errno.ENOTDIR, cp, kernel, "file", "new/")
    assert kernel.names() == [b"file", b"tree"]


def test_a_file_that_is_being_written_is_not_copied(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, WAIT_SECONDS=0.1)
    with kernel.open("tree/small", os.O_RDWR) as file:
        file.write(b"x")
        fails(errno.EBUSY, cp, kernel, "tree/small", "copy")
        fails(errno.EBUSY, cp, kernel, "tree", "copy")
    assert kernel.names() == [b"tree"]
    cp(kernel, "tree", "copy")
    assert kernel.read_file("copy/small") == b"xontent"


def test_a_file_that_is_open_for_reading_is_copied(kernel: Kernel) -> None:
    with kernel.open("tree/small") as file:
        assert file.read() == b"content"
        cp(kernel, "tree", "copy")
    assert kernel.read_file("copy/small") == b"content"


def test_moving(session: Session, kernel: Kernel) -> None:
    before = below(kernel, "tree")
    ino = kernel.inode("tree").ino
    told = mv(kernel, "tree", "moved")
    assert told.names == {(1, b"tree"): 0, (1, b"moved"): 0}
    assert told.inos == {1, ino}
    assert below(session.reopen(), "moved").keys() == before.keys()
    kernel = session.kernel
    fails(errno.EINVAL, mv, kernel, "moved", "moved/sub")
    fails(errno.ENOENT, mv, kernel, "absent", "x")


@pytest.mark.parametrize("call", ["reserve_log", "commit", "sync_log"])
def test_a_tree_is_there_wholly_or_not_at_all(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path, call: str
) -> None:
    """The process dies at each commit on the way."""
    set_limits(monkeypatch, STEP=3, GROUP_LIMIT=10)
    seam = FaultyDurable()
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.mkdir("tree")
    for number in range(8):
        kernel.mkdir(f"tree/{number}")
        for each in range(8):
            kernel.write_file(f"tree/{number}/{each}", b"content %d" % each)
    kernel.sync()
    found: list[bool] = []

    def cut(number: int, name: str) -> None:
        if name != call:
            return
        image = scratch / f"image {len(found)}"
        copy_store(store_path, image)
        seam.before = seam.after = lambda number, name: None
        again = Session(image)
        copied = "copy" if b"copy" in again.kernel.names() else ""
        found.append(bool(copied))
        if copied:
            assert below(again.kernel, copied).keys() == below(again.kernel, "tree").keys()
        else:
            assert again.store.namespace.inodes.count() == 1 + 1 + 8 + 64
        again.stop()
        assert_clean(image, strays=True)
        seam.before = seam.after = cut

    seam.before = seam.after = cut
    cp(kernel, "tree", "copy")
    seam.before = seam.after = lambda number, name: None
    assert found.count(False) >= 3
    assert found == sorted(found)
    session.stop()


def test_a_copy_that_fails_leaves_nothing(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, STEP=2, REMOVE_BATCH=2)
    claims = []
    claim = session.store.filestore.space.claim

    def full(size: int) -> None:
        claims.append(size)
        if len(claims) > 6:
            raise OSError(errno.ENOSPC, "full")
        claim(size)

    kernel.sync()
    before = session.store.namespace.inodes.count()
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore.space, "claim", full)
        with pytest.raises(OSError, match="full"):
            cp(kernel, "tree", "copy")
    kernel.sync()
    assert kernel.names() == [b"tree"]
    assert session.store.namespace.inodes.count() == before
    assert kernel.inode("tree/small").nlink == 2


def test_a_copy_onto_a_name_taken_meanwhile_leaves_nothing(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.sync()
    before = session.store.namespace.inodes.count()
    fill = copy._TreeCopy._fill

    async def slow(self: copy._TreeCopy, *args: Any) -> int:
        kernel.mkdir("copy")
        return await fill(self, *args)

    monkeypatch.setattr(copy._TreeCopy, "_fill", slow)
    fails(errno.EEXIST, cp, kernel, "tree", "copy")
    kernel.sync()
    assert kernel.names("copy") == []
    assert session.store.namespace.inodes.count() == before + 1


def test_walking(fs: FileSystem, kernel: Kernel) -> None:
    assert copy.find(fs, b"").inode is fs.inodes.get(1)
    assert copy.find(fs, b"//tree/./sub/").name == b"sub"
    assert copy.find(fs, b"tree/new").inode is None
    fails(errno.ENOENT, copy.find, fs, b"absent/new")
    fails(errno.ENOTDIR, copy.find, fs, b"tree/symlink/x")
