"""The requests of a mount, free of any protocol."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.fuse.verbs import Verbs
from casfs.namespace.dentries import Dentries
from casfs.types import ROOT_INO
from tests.session import Session, no_room


def test_a_file_that_gets_no_name_leaves_no_handle(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was looked up in vain is opened before its row is written: the row failed, and the handle
    stayed open until the mount ended."""
    verbs = Verbs(session.fs, durable_each=False, relieve=no_room)
    generated = verbs.lookup(ROOT_INO, b".casfs")
    assert generated is not None
    assert generated.is_generated
    assert verbs.lookup(ROOT_INO, b"file") is None
    with monkeypatch.context() as patch:
        patch.setattr(Dentries, "insert", lambda *_: False)
        with pytest.raises(FsError) as raised:
            run_inline(verbs.create(ROOT_INO, b"file", 0o644, 0, os.O_RDWR, 0, 0))
    assert raised.value.errno == errno.EEXIST
    assert session.fs.contents.table.handles == 0
    handle = run_inline(verbs.create(ROOT_INO, b"file", 0o644, 0, os.O_RDWR, 0, 0))
    run_inline(verbs.release(verbs.opened(handle)))


class FullOnce:
    """A disk on which a commit finds no room until some is made."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch, *, can_make_room: bool) -> None:
        self.is_full = True
        self._can_make_room = can_make_room
        self._durable = session.fs.group.durable
        monkeypatch.setattr(session.fs.group, "durable", self.durable)

    async def durable(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no room for the log")
        await self._durable()

    async def relieve(self) -> bool:
        self.is_full = self.is_full and not self._can_make_room
        return self._can_make_room


CHANGES: dict[str, Callable[[Verbs], Awaitable[object]]] = {
    "mkdir": lambda verbs: verbs.mkdir(ROOT_INO, b"new", 0o755, 0, 0, 0),
    "mknod": lambda verbs: verbs.mknod(ROOT_INO, b"new", 0o100644, 0, 0, 0, 0),
    "symlink": lambda verbs: verbs.symlink(ROOT_INO, b"new", b"target", 0, 0),
    "link": lambda verbs: verbs.link(verbs.lookup(ROOT_INO, b"file").ino, ROOT_INO, b"new", 0),
    "rename": lambda verbs: verbs.rename(ROOT_INO, b"file", ROOT_INO, b"new", 1, 0, 0),
    "create": lambda verbs: verbs.create(ROOT_INO, b"new", 0o644, 0, os.O_RDWR, 0, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_found_no_room_for_its_commit_is_not_done_twice(
    session: Session, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """With commit_interval=0 it was: the second time it was refused with EEXIST, or ENOENT."""
    session.kernel.write_file("file", b"content")
    disk = FullOnce(session, monkeypatch, can_make_room=True)
    verbs = Verbs(session.fs, durable_each=True, relieve=disk.relieve)
    run_inline(CHANGES[change](verbs))
    assert verbs.lookup(ROOT_INO, b"new") is not None
    if change == "create":
        session.fs.contents.table.close_all(verbs.lookup(ROOT_INO, b"new"))


@pytest.mark.parametrize("name", [b"new", None])
@pytest.mark.parametrize("natively", [True, False])
def test_a_file_whose_name_could_not_be_committed_leaves_no_handle(
    session: Session, monkeypatch: pytest.MonkeyPatch, natively: bool, name: bytes | None
) -> None:
    """The program got ENOSPC, so that the kernel had nothing to release."""
    disk = FullOnce(session, monkeypatch, can_make_room=False)
    verbs = Verbs(session.fs, durable_each=True, relieve=disk.relieve)
    opened = partial(Verbs.opened, verbs) if natively else None
    with pytest.raises(OSError, match="no room"):
        run_inline(verbs.create(ROOT_INO, name, 0o644, 0, os.O_RDWR, 0, 0, opened))
    assert (session.fs.contents.table.handles, verbs.handles) == (0, {})
    assert session.fs.tree.unlinked == set()
    disk.is_full = False
