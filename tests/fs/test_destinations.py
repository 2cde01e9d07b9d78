"""Files that are copied or moved in a batch keep the path that they have below a directory."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from casfs.errors import FsError
from casfs.fs import actions
from casfs.fs.batch import Done, Item, Undo
from casfs.fs.inodes import Inode
from tests.fs.test_batch import act, fails
from tests.kernel import Kernel
from tests.session import Session


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    for directory in ("from", "from/a", "from/a/b", "from/c", "to", "to/a"):
        kernel.mkdir(directory)
    kernel.chmod("from/a/b", 0o2750)
    kernel.setxattr("from/a/b", b"user.kept", b"yes")
    for name in ("from/top", "from/a/x", "from/a/b/y", "from/a/b/z", "from/c/w"):
        kernel.write_file(name, name.encode())
    return kernel


FILES = ("from/top", "/from/a/x", "from/a/b/y", "from/c/w")


@pytest.mark.parametrize("below", [b"from", b"/from/"])
def test_directories_that_are_missing_are_made_as_those_they_come_from(
    session: Session, kernel: Kernel, below: bytes
) -> None:
    fs = kernel.fs
    before = kernel.tree()
    assert act(fs, actions.CopyInto(fs, b"/to/", below), *FILES) == Done(4, 34, 0)
    kernel = session.reopen()
    tree = kernel.tree()
    assert {path: tree[path] for path in before if not path.startswith(b"to")} == {
        path: entry for path, entry in before.items() if not path.startswith(b"to")
    }
    assert sorted(path for path in tree if path.startswith(b"to/")) == [
        *(b"to/a", b"to/a/b", b"to/a/b/y", b"to/a/x", b"to/c", b"to/c/w", b"to/top"),
    ]
    assert kernel.read_file("to/a/b/y") == b"from/a/b/y"
    assert kernel.inode("to/a/b").mode & 0o7777 == 0o2750
    assert kernel.getxattr("to/a/b", b"user.kept") == b"yes"
    assert (kernel.inode("to").nlink, kernel.inode("to/a").nlink, kernel.inode("to/a/b").nlink) == (4, 3, 2)


def test_what_is_moved_leaves_its_directories(session: Session, kernel: Kernel) -> None:
    fs = kernel.fs
    inos = [kernel.inode(path).ino for path in FILES]
    assert act(fs, actions.MoveInto(fs, b"to", b"from"), *FILES).files == 4
    kernel = session.reopen()
    assert [kernel.inode(path).ino for path in ("to/top", "to/a/x", "to/a/b/y", "to/c/w")] == inos
    assert kernel.names("from/c") == []
    assert kernel.names("from/a/b") == [b"z"]


def test_all_of_the_root_may_be_below(kernel: Kernel) -> None:
    fs = kernel.fs
    kernel.write_file("file", b"x")
    fails(errno.EINVAL, "/to lies below /", lambda: actions.CopyInto(fs, b"/to", b"/"))
    fails(errno.EINVAL, "from/a lies below from", lambda: actions.MoveInto(fs, b"from/a", b"from"))
    assert act(fs, actions.MoveInto(fs, b"/", b"from"), "from/c/w").files == 1
    assert kernel.read_file("c/w") == b"from/c/w"


def test_what_is_refused_for_one_is_done_to_none(kernel: Kernel) -> None:
    fs = kernel.fs
    kernel.write_file("to/c", b"no directory")
    kernel.write_file("to/a/x", b"there")
    before = kernel.tree()
    for verb in (actions.CopyInto, actions.MoveInto):

        def into(*paths: str, verb: Callable[..., actions.CopyInto] = verb) -> Callable[[], object]:
            return lambda: act(fs, verb(fs, b"to", b"from"), *paths)

        fails(errno.ENOTDIR, "to/c: Not a directory", into("from/top", "from/c/w"))
        fails(errno.EEXIST, "to/a/x: File exists", into("from/top", "from/a/x"))
        fails(errno.EINVAL, "/to/c does not lie below /from/", into("from/top", "to/c"))
    assert kernel.tree() == before


def shape(kernel: Kernel) -> dict[bytes, tuple[int, int, bytes | None]]:
    """Without times."""
    inodes = {path: kernel.inode(path, follow=False) for path in kernel.tree()}
    contents = {path: entry.content for path, entry in kernel.tree().items()}
    return {path: (inode.ino, inode.nlink, contents[path]) for path, inode in inodes.items()}


def test_what_was_made_goes_when_a_later_one_fails(kernel: Kernel) -> None:
    fs, before = kernel.fs, shape(kernel)
    for kind in (actions.CopyInto, actions.MoveInto):

        class Failing(kind):  # type: ignore[misc, valid-type]
            def do(self, item: Item, inode: Inode) -> Undo | None:
                if item.name == b"w":
                    raise FsError(errno.EIO, "no more")
                undo: Undo | None = super().do(item, inode)
                return undo

        fails(errno.EIO, "no more", lambda kind=Failing: act(fs, kind(fs, b"to", b"from"), *FILES))  # type: ignore[misc]
        assert shape(kernel) == before


def test_what_others_have_put_into_such_a_directory_stays_with_it(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    fs = kernel.fs

    class Interrupted(actions.CopyInto):
        def do(self, item: Item, inode: Inode) -> Undo | None:
            if item.name == b"w":
                kernel.write_file("to/a/b/other", b"of others")
                raise FsError(errno.EIO, "no more")
            return super().do(item, inode)

    fails(errno.EIO, "no more", lambda: act(fs, Interrupted(fs, b"to", b"from"), *FILES))
    assert kernel.names("to/a/b") == [b"other"]
    assert kernel.names("to") == [b"a"]
    assert "in use, and stays" in caplog.text
