"""Requests whose effects trees show."""

from __future__ import annotations

import errno
import os

import pytest

from casfs.fs.scheduler import run_inline
from casfs.fuse.verbs import Verbs
from casfs.repositories.filesystem import follower_of
from tests.repositories.making import JAR, make_directories, make_repository
from tests.repositories.test_derived import files, make_tree
from tests.session import Session, no_room


def test_what_was_done_and_cannot_follow_yet_has_not_failed(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = session.kernel
    make_repository(session, "libs")
    make_directories(session, "libs/org/acme/app/1.0")
    kernel.write_file(f"libs/{JAR}", b"jar")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    assert files(kernel, "ivy")
    verbs = Verbs(session.fs, durable_each=False, relieve=no_room)
    directory = kernel.inode("libs/org/acme/app/1.0").ino

    def refused(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(follower_of(session.fs), "follow_at_once", refused)
        run_inline(verbs.unlink(directory, b"app-1.0.jar", 0))
    assert "later" in caplog.text
    assert kernel.names("libs/org/acme/app/1.0") == []
    assert kernel.names("ivy") == []
