"""Contents by their digests: what is found, and that nothing of it can be changed."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable

import pytest
from blake3 import blake3

from casfs.errors import FsError
from casfs.filestore.hashing import ALGORITHMS, other_digests
from casfs.fs import copy
from casfs.fs.attributes import Changes
from casfs.fs.scheduler import run_inline
from casfs.maintenance.collect.mounted import collect_oldest
from casfs.namespace.collecting import Amount
from tests.kernel import Kernel
from tests.session import Session

CONTENT = b"content" * 1000
SHA256 = f".casfs/by-sha256/{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def kernel(session: Session) -> Kernel:
    """Of a store that keeps all digests, with one file."""
    run_inline(session.fs.group.begin())
    session.fs.contents.digesting.set_wanted(ALGORITHMS)
    session.kernel.write_file("file", CONTENT)
    session.rest()
    return session.kernel


@pytest.mark.parametrize("algorithm", ["blake3", *ALGORITHMS])
@pytest.mark.parametrize("content", [CONTENT, b""])
def test_a_content_is_found_by_each_of_its_digests(kernel: Kernel, algorithm: str, content: bytes) -> None:
    digests = other_digests(content, ALGORITHMS) | {"blake3": blake3(content).digest()}
    name = f".casfs/by-{algorithm}/{digests[algorithm].hex()}"
    assert kernel.read_file(name) == content
    inode = kernel.inode(name)
    assert (inode.size, inode.mode, inode.nlink) == (len(content), 0o100644, 1)
    with pytest.raises(FsError, match="No such file"):
        kernel.inode(name.upper())
    with pytest.raises(FsError, match="No such file"):
        kernel.inode(f"{name}0")
    with pytest.raises(FsError, match="No such file"):
        kernel.inode(name[:-1])


def test_the_directories_are_not_listed_and_list_nothing(kernel: Kernel) -> None:
    assert kernel.names() == [b"file"]
    assert kernel.names(".casfs") == kernel.names(".casfs/by-md5") == []
    assert kernel.inode(".casfs/by-md5").mode == 0o40500
    for name in (".casfs/by-sha3", ".casfs/x", "by-md5", ".casfs/by-md5/by-md5"):
        with pytest.raises(FsError, match="No such file"):
            kernel.inode(name)


def test_they_are_there_with_and_without_a_trash(kernel: Kernel, session: Session) -> None:
    assert session.fs.nodes.base == 0
    kernel.chmod("", 0o711)
    assert kernel.inode(".casfs").mode == 0o40711
    session.store.namespace.trash.set_minimal_age(0)
    kernel = session.reopen()
    kernel.unlink("file")
    session.rest()
    assert session.fs.nodes.base
    assert kernel.names(".casfs") == [b"trash"]
    assert kernel.read_file(SHA256) == CONTENT


CHANGES: dict[str, Callable[[Kernel], object]] = {
    "write": lambda kernel: kernel.open(SHA256, os.O_WRONLY),
    "cut": lambda kernel: kernel.truncate(SHA256, 0),
    "cut at open": lambda kernel: kernel.open(SHA256, os.O_RDONLY | os.O_TRUNC),
    "mode": lambda kernel: kernel.chmod(SHA256, 0o666),
    "owner": lambda kernel: kernel.chown(SHA256, 1, 1),
    "times": lambda kernel: kernel.utime(SHA256, 0, 0),
    "attribute": lambda kernel: kernel.setxattr(SHA256, b"user.a", b"b"),
    "no attribute": lambda kernel: kernel.removexattr(SHA256, b"user.a"),
    "link": lambda kernel: kernel.link(SHA256, "linked"),
    "unlink": lambda kernel: kernel.unlink(SHA256),
    "rename": lambda kernel: kernel.rename(SHA256, "moved"),
    "rename over": lambda kernel: kernel.rename("file", SHA256),
    "make": lambda kernel: kernel.write_file(f"{SHA256}0", b"new"),
    "mkdir": lambda kernel: kernel.mkdir(".casfs/by-sha256/new"),
    "make above": lambda kernel: kernel.write_file(".casfs/new", b"new"),
    "mode of the directory": lambda kernel: kernel.chmod(".casfs/by-sha256", 0o755),
    "remove the directory": lambda kernel: kernel.rmdir(".casfs/by-sha256"),
    "move the directory": lambda kernel: kernel.rename(".casfs/by-sha256", "mine"),
    "no name": lambda kernel: kernel.open_unnamed(".casfs/by-sha256"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_it_can_be_changed(kernel: Kernel, session: Session, change: str) -> None:
    before = kernel.tree()
    with pytest.raises(FsError) as raised:
        CHANGES[change](kernel)
    assert raised.value.errno == (errno.EXDEV if change == "link" else errno.EROFS)
    assert kernel.read_file(SHA256) == CONTENT
    session.rest()
    assert session.reopen().tree() == before


def test_numbers_that_no_inode_has_are_stale(kernel: Kernel) -> None:
    for number in (1 << 62 | 4711, 1 << 62 | 1 << 54 | 99, 1 << 62 | 77 << 54, (1 << 63) - 1, 1 << 63):
        with pytest.raises(FsError, match="Stale"):
            kernel.fs.inodes.get(number)
        with pytest.raises(FsError):
            run_inline(kernel.fs.attributes.set(number, Changes(mode=0o777), None, 0))


def test_a_copy_is_one_row(kernel: Kernel, session: Session) -> None:
    with kernel.open(SHA256) as source, kernel.open("copy", os.O_WRONLY | os.O_CREAT) as target:
        copied = kernel.fs.contents.ranges.copy_range(source.handle, 0, target.handle, 0, 1 << 40)
        assert run_inline(copied) == len(CONTENT)
    run_inline(copy.copy(kernel.fs, SHA256.encode(), b"copied", recursive=False))
    session.rest()
    assert session.blobs == 1
    assert kernel.read_file("copy") == kernel.read_file("copied") == CONTENT


def test_a_content_that_was_collected_gives_no_dangling_copy(kernel: Kernel, session: Session) -> None:
    """Nothing keeps a content from being collected while it is looked at by its digest."""
    kernel.unlink("file")
    session.rest()
    with kernel.open(SHA256) as source:
        assert source.read(10) == CONTENT[:10]
        inode = kernel.inode(SHA256)
        gone = run_inline(
            collect_oldest(session.fs, time.time_ns() + 10**9, wanted=lambda done: 1 - done.blobs)
        )
        assert gone == Amount(1, len(CONTENT))
        with pytest.raises(FsError, match="Stale"), kernel.open("copy", os.O_WRONLY | os.O_CREAT) as target:
            run_inline(kernel.fs.contents.ranges.copy_range(source.handle, 0, target.handle, 0, 1 << 40))
        assert source.read(10, 10) == CONTENT[10:20]
    with pytest.raises(FsError, match="No such file"):
        kernel.inode(SHA256)
    with pytest.raises(FsError, match="Stale"):
        copy.duplicate(session.fs, inode)
    assert kernel.read_file("copy") == b""


@pytest.mark.parametrize("beginning", [64, 8])
def test_a_content_gets_a_name_by_its_digest(kernel: Kernel, session: Session, beginning: int) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()[:beginning]
    kernel.mkdir("place")
    run_inline(copy.link(session.fs, "sha256", digest, b"/place/linked", 1000))
    session.reopen()
    inode = session.kernel.inode("place/linked")
    assert (inode.mode, inode.uid, inode.size) == (0o100644, 1000, len(CONTENT))
    assert session.kernel.read_file("place/linked") == CONTENT
    assert session.blobs == 1


def test_what_was_just_closed_is_found(session: Session) -> None:
    session.kernel.write_file("new", b"new")
    digest = blake3(b"new").hexdigest()
    run_inline(copy.link(session.fs, "blake3", digest, b"/linked", 0))
    assert session.kernel.read_file("linked") == b"new"


def test_several_contents_are_named_and_none_is_taken(kernel: Kernel, session: Session) -> None:
    for number in range(40):
        kernel.write_file(f"file{number}", b"%d" % number)
    session.rest()
    with pytest.raises(FsError, match=r"that of several: [0-9a-f]{64}, ") as raised:
        run_inline(copy.link(session.fs, "sha256", hashlib.sha256(CONTENT).hexdigest()[:1], b"/linked", 0))
    assert raised.value.errno == errno.ENOTUNIQ
    with pytest.raises(FsError, match="no content with the sha256 0000") as raised:
        run_inline(copy.link(session.fs, "sha256", "0" * 64, b"/linked", 0))
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(FsError, match="exists"):
        run_inline(copy.link(session.fs, "sha256", hashlib.sha256(CONTENT).hexdigest(), b"/file", 0))
    assert b"linked" not in kernel.names()
