"""The requests of a mount, free of any protocol."""

from __future__ import annotations

import errno
import os

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
    with pytest.raises(FsError):
        verbs.lookup(ROOT_INO, b".casfs")
    assert verbs.lookup(ROOT_INO, b"file") is None
    with monkeypatch.context() as patch:
        patch.setattr(Dentries, "insert", lambda *_: False)
        with pytest.raises(FsError) as raised:
            run_inline(verbs.create(ROOT_INO, b"file", 0o644, 0, os.O_RDWR, 0, 0))
    assert raised.value.errno == errno.EEXIST
    assert session.fs.contents.table.handles == 0
    handle = run_inline(verbs.create(ROOT_INO, b"file", 0o644, 0, os.O_RDWR, 0, 0))
    run_inline(verbs.release(verbs.opened(handle)))
