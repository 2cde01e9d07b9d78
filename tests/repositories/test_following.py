"""Rows that follow from names."""

from __future__ import annotations

import pytest

from casfs.fs.scheduler import run_inline
from casfs.repositories.filesystem import follower_of
from tests.repositories.making import JAR, make_directories, make_repository
from tests.session import Session


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
