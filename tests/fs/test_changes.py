"""What the kernel is to be told: what it has not asked for."""

from __future__ import annotations

import os

import pytest
import trio

from casfs.fs.changes import Changes, Unseen
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.types import ROOT_INO
from tests.kernel import Kernel


@pytest.fixture
def files(kernel: Kernel) -> Kernel:
    """Two files of one name each, one of two, two directories."""
    for name in ("one", "two", "linked"):
        kernel.write_file(name, name.encode())
    kernel.link("linked", "link")
    kernel.mkdir("d")
    kernel.mkdir("e")
    return kernel


def unseen(kernel: Kernel, verb: str, *words: object) -> Unseen:
    with kernel.fs.changes.unseen() as found:
        run_inline(getattr(kernel.fs.tree, verb)(*words))
    return found


def test_a_name_that_goes_is_told_with_the_inode_that_has_no_other(files: Kernel) -> None:
    ino = files.inode("one").ino
    found = unseen(files, "unlink", ROOT_INO, b"one")
    assert found.names == {(ROOT_INO, b"one"): ino}
    assert found.inos == {ROOT_INO, ino}
    assert unseen(files, "unlink", ROOT_INO, b"link").names == {(ROOT_INO, b"link"): 0}


def test_a_move_is_told_at_both_ends(files: Kernel) -> None:
    one, two, directory = (files.inode(name).ino for name in ("one", "two", "d"))
    found = unseen(files, "rename", ROOT_INO, b"one", directory, b"moved", 0)
    assert found.names == {(ROOT_INO, b"one"): 0, (directory, b"moved"): 0}
    assert found.inos == {ROOT_INO, directory, one}
    found = unseen(files, "rename", directory, b"moved", ROOT_INO, b"two", 0)
    assert found.names == {(directory, b"moved"): 0, (ROOT_INO, b"two"): two}


def test_an_exchange_and_a_link_are_told(files: Kernel) -> None:
    found = unseen(files, "rename", ROOT_INO, b"one", ROOT_INO, b"two", 2)
    assert found.names == {(ROOT_INO, b"one"): 0, (ROOT_INO, b"two"): 0}
    ino = files.inode("one").ino
    found = unseen(files, "link", ino, ROOT_INO, b"three")
    assert (found.names, found.inos) == ({(ROOT_INO, b"three"): 0}, {ROOT_INO, ino})


def test_names_of_directories_that_the_kernel_cannot_know_are_left_out(files: Kernel) -> None:
    directory = files.inode("d").ino
    with files.fs.changes.unseen(directory.__eq__) as found:
        files.write_file("d/told", b"")
        files.write_file("e/not told", b"")
    assert found.names == {(directory, b"told"): 0}


def test_what_others_do_meanwhile_is_theirs() -> None:
    """A command waits while requests of the kernel are served, which needs not be told of those."""
    changes = Changes(InlineScheduler())
    served = trio.Event()

    async def command() -> None:
        with changes.unseen() as found:
            changes.name(1, b"by the command")
            await served.wait()
        assert list(found.names) == [(1, b"by the command")]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command)
            await trio.testing.wait_all_tasks_blocked()
            assert changes.collecting == 1
            changes.name(1, b"by a request")
            served.set()

    trio.run(main)
    assert changes.collecting == 0


def test_nothing_is_collected_after_a_failure(files: Kernel) -> None:
    with pytest.raises(OSError, match=os.strerror(2)), files.fs.changes.unseen():
        run_inline(files.fs.tree.unlink(ROOT_INO, b"absent"))
    assert files.fs.changes.collecting == 0
