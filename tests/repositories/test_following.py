"""Rows that follow from names."""

from __future__ import annotations

from contextlib import suppress

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from tests.session import Session

LAYOUT = "maven-2-default"
JAR = "org/acme/app/1.0/app-1.0.jar"


def make_repository(session: Session, name: str, layout: str | None = LAYOUT) -> int:
    """A local repository with a layout."""
    make_directories(session, name)
    ino = session.kernel.inode(name).ino
    run_inline(session.fs.group.begin())
    session.store.namespace.repositories.set(RepositoryRow(ino, "local", layout, None, "{}"))
    registry_of(session.fs).read()
    follower_of(session.fs).follow(ino)
    return ino


def make_directories(session: Session, path: str) -> None:
    """As `mkdir -p`."""
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        with suppress(FsError):  # it is there
            session.kernel.mkdir("/".join(parts[:end]))


def artifacts(session: Session) -> set[tuple[str, str, str]]:
    """(organisation, module, revision) of each row, when everything is followed."""
    run_inline(follower_of(session.fs).drain())
    run_inline(session.fs.group.durable())
    rows = session.store.namespace.query("SELECT organisation, module, revision FROM artifact").fetchall()
    return {(org, module, revision) for org, module, revision in rows}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_has_its_coordinates(session: Session, when: str) -> None:
    if when == "after":
        make_repository(session, "libs")
    make_directories(session, "libs/org/acme/app/1.0")
    session.kernel.write_file(f"libs/{JAR}", b"jar")
    session.kernel.write_file("libs/notes", b"no artifact")
    if when == "before":
        make_repository(session, "libs")
    assert artifacts(session) == {("org.acme", "app", "1.0")}


def test_the_coordinates_follow_a_directory_that_is_renamed(session: Session) -> None:
    make_repository(session, "libs")
    make_directories(session, "libs/org/acme/app/1.0")
    session.kernel.write_file(f"libs/{JAR}", b"jar")
    assert artifacts(session)
    session.kernel.rename("libs/org/acme", "libs/org/other")
    assert artifacts(session) == {("org.other", "app", "1.0")}
    session.kernel.rename("libs/org", "org")
    assert artifacts(session) == set()
