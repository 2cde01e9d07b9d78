"""What the extended attributes of a repository's directory say."""

from __future__ import annotations

import errno

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.repositories import verbs
from casfs.repositories.attributes import KIND, LAYOUT
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Settings
from tests.session import Session


def attribute(session: Session, path: str, name: bytes) -> bytes | None:
    return session.fs.policy.attribute(session.kernel.inode(path).ino, name)


def test_a_repository_says_what_it_is(session: Session) -> None:
    fs = session.fs
    run_inline(verbs.create(fs, b"libs", RepositoryKind.LOCAL, settings=Settings(layout="ivy-default")))
    run_inline(verbs.create(fs, b"all", RepositoryKind.VIRTUAL, members=[b"libs"]))
    session.kernel.mkdir("plain")
    session.kernel.mkdir("plain/below")
    session.kernel.write_file("file", b"x")
    for path, kind, layout in (
        ("libs", b"local", b"ivy-default"),
        ("all", b"virtual", None),
        ("plain", b"local", None),
        ("plain/below", None, None),
        ("file", None, None),
        ("", None, None),
    ):
        assert attribute(session, path, KIND) == kind, path
        assert attribute(session, path, LAYOUT) == layout, path
        assert session.kernel.listxattr(path) == []
    assert session.kernel.getxattr("libs", LAYOUT) == b"ivy-default"
    with pytest.raises(FsError) as raised:
        session.kernel.getxattr("all", LAYOUT)
    assert raised.value.errno == errno.ENODATA


def test_nobody_sets_what_it_is(session: Session) -> None:
    session.kernel.mkdir("plain")
    for name in (KIND, LAYOUT):
        with pytest.raises(FsError) as raised:
            session.kernel.setxattr("plain", name, b"virtual")
        assert raised.value.errno == errno.EPERM
