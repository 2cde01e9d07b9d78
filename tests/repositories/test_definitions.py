"""Layouts of a store's own: added, changed, removed."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from casfs.errors import LayoutError, RepositoryError
from casfs.fs.scheduler import run_inline
from casfs.layouts.layout import Definition
from casfs.repositories import definitions, verbs
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Settings
from tests.session import Session

OURS = Definition(name="ours", artifact="[org]/[module]-[baseRev].[ext]")


def add(session: Session, *layouts: Definition, replace: bool = False) -> None:
    run_inline(definitions.add(session.fs, layouts, replace=replace))


def change(session: Session, name: str, **changes: Any) -> None:
    run_inline(definitions.change(session.fs, name, changes))


def make_repository(session: Session, name: str = "libs", layout: str = "ours") -> None:
    run_inline(
        verbs.create(session.fs, name.encode(), RepositoryKind.LOCAL, settings=Settings(layout=layout))
    )


def modules(session: Session) -> set[str]:
    run_inline(follower_of(session.fs).drain())
    return {row[0] for row in session.store.namespace.query("SELECT module FROM artifact").fetchall()}


def test_a_layout_is_added_and_there_after_a_crash(session: Session) -> None:
    add(session, OURS)
    make_repository(session)
    session.crash(session.path.parent / "copy")
    assert registry_of(session.fs).layout("ours").definition == OURS


def test_what_a_layout_says_follows_its_definition(session: Session) -> None:
    add(session, OURS, Definition(name="other", artifact="[org]/[module]-[baseRev].[ext]"))
    make_repository(session)
    make_repository(session, "others", "other")
    for name in ("libs", "others"):
        session.kernel.mkdir(f"{name}/acme")
        session.kernel.write_file(f"{name}/acme/one-two-3.jar", b"jar")
    assert modules(session) == {"one-two"}
    change(session, "ours", artifact="[org]/[baseRev]-[module<.+>].[ext]")
    assert modules(session) == {"one-two", "two-3"}
    add(session, OURS, replace=True)
    assert modules(session) == {"one-two"}


def test_a_definition_that_cannot_be_changes_nothing(session: Session) -> None:
    add(session, OURS)
    for changes, complaint in (
        ({"artifact": "[org]/[modul]"}, "ours: artifact, column 7: unknown token 'modul'"),
        ({"versions": "mavn"}, "unknown order of versions 'mavn'; did you mean 'maven'"),
        ({"versions": 1}, "ours: Expected `str`"),
        ({"unknown": ""}, "ours: Object contains unknown field `unknown`"),
        ({"file-integration": "("}, "ours: file-integration, column "),
    ):
        with pytest.raises(LayoutError, match=complaint):
            change(session, "ours", **changes)
    assert registry_of(session.fs).layout("ours").definition == OURS
    session.reopen()
    assert registry_of(session.fs).layout("ours").definition == OURS


def test_layouts_are_added_all_or_none(session: Session) -> None:
    add(session, OURS)
    other = Definition(name="other", artifact=OURS.artifact)
    with pytest.raises(RepositoryError, match="there is a layout 'ours' already"):
        add(session, other, OURS)
    with pytest.raises(RepositoryError, match="layout 'ivy-default' is built in"):
        add(session, other, Definition(name="ivy-default", artifact=OURS.artifact), replace=True)
    assert list(registry_of(session.fs).layouts) == ["ours"]


def test_a_layout_in_use_stays(session: Session) -> None:
    add(session, OURS)
    make_repository(session)
    make_repository(session, "jars")
    with pytest.raises(RepositoryError, match="layout 'ours' is in use: jars, libs; give them another one"):
        run_inline(definitions.remove(session.fs, "ours"))
    run_inline(verbs.remove(session.fs, [b"libs", b"jars"]))
    run_inline(definitions.remove(session.fs, "ours"))
    assert registry_of(session.fs).layouts == {}
    with pytest.raises(LayoutError, match="unknown layout 'ours'"):
        run_inline(definitions.remove(session.fs, "ours"))
    with pytest.raises(RepositoryError, match="is built in"):
        run_inline(definitions.remove(session.fs, "ivy-default"))


def test_a_database_that_refuses_leaves_the_layouts_as_they_were(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(session, OURS)
    make_repository(session)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(session.store.namespace.repositories, "follow", refuse)
        with pytest.raises(OSError, match="refused"):
            change(session, "ours", versions="semver")
    assert registry_of(session.fs).layout("ours").definition == OURS
    libs = session.kernel.inode("libs").ino
    layout = registry_of(session.fs).repositories[libs].layout
    assert layout is not None
    assert layout.definition == OURS
