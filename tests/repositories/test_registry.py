"""Whether programs make directories in the root."""

from __future__ import annotations

import errno

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.scheduler import run_inline
from casfs.fs.tree import RENAME_EXCHANGE
from casfs.repositories import verbs
from casfs.repositories.registry import RepositoryKind
from tests.session import Session


@pytest.fixture
def closed(session: Session) -> Session:
    """A store that takes repositories only, with a plain directory of before and a repository."""
    session.kernel.mkdir("plain")
    session.kernel.mkdir("plain/below")
    session.kernel.mkdir("other")
    run_inline(verbs.create(session.fs, b"libs", RepositoryKind.LOCAL))
    run_inline(verbs.set_plain(session.fs, False))
    return session


def test_programs_make_no_directories_in_the_root(closed: Session, caplog: pytest.LogCaptureFixture) -> None:
    kernel = closed.kernel
    for attempt in (
        lambda: kernel.mkdir("new"),
        lambda: kernel.rename("plain/below", "new"),
        lambda: kernel.rename("other", "plain/below", RENAME_EXCHANGE),
        lambda: run_inline(copy.copy(closed.fs, b"/plain", b"/new", recursive=True)),
    ):
        caplog.clear()
        with pytest.raises(FsError) as raised:
            attempt()
        assert raised.value.errno == errno.EACCES
        assert caplog.text.count("a directory in the root is refused, EACCES: the store takes repo") == 1
    assert sorted(kernel.names("")) == [b"libs", b"other", b"plain"]


def test_all_else_is_as_before(closed: Session) -> None:
    closed.reopen()
    kernel = closed.kernel
    kernel.write_file("file", b"x")
    kernel.symlink("file", "link")
    kernel.mkdir("plain/new")
    kernel.mkdir("libs/new")
    kernel.rename("plain", "renamed")
    run_inline(verbs.create(closed.fs, b"more", RepositoryKind.LOCAL))
    run_inline(verbs.rename(closed.fs, b"more", b"others"))
    with pytest.raises(FsError):
        kernel.mkdir("plain")
    run_inline(verbs.set_plain(closed.fs, True))
    kernel.mkdir("plain")
