"""Rules of the trash, by the names of directories in the root."""

from __future__ import annotations

import errno

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.fs.tree import RENAME_EXCHANGE
from casfs.trash.filesystem import trash_of
from casfs.trash.undelete import change_rule
from tests.session import Session


def rules(session: Session) -> dict[bytes, int]:
    """Directory -> days, as rows, which are what is in memory."""
    found = session.store.namespace.trash.rules()
    assert {rule.directory: rule for rule in trash_of(session.fs).rules} == {
        rule.directory: rule for rule in found
    }
    return {rule.directory: rule.days for rule in found if rule.directory}


def set_rule(session: Session, name: bytes, days: int) -> None:
    run_inline(change_rule(session.fs, name, days, ["*.tmp"]))


def test_a_rule_goes_with_its_directory(session: Session) -> None:
    for name in ("libs", "other"):
        session.kernel.mkdir(name)
    set_rule(session, b"libs", 3)
    session.kernel.rename("libs", "jars")
    assert rules(session) == {b"jars": 3}
    assert trash_of(session.fs).rule(b"jars/x").exclude == ("*.tmp",)
    session.kernel.rename("jars", "other")
    assert rules(session) == {b"other": 3}
    session.reopen()
    assert rules(session) == {b"other": 3}


def test_two_directories_that_change_names_change_rules(session: Session) -> None:
    for name in ("a", "b", "c"):
        session.kernel.mkdir(name)
    set_rule(session, b"a", 3)
    set_rule(session, b"b", 5)
    session.kernel.rename("a", "b", RENAME_EXCHANGE)
    assert rules(session) == {b"a": 5, b"b": 3}
    session.kernel.rename("a", "c", RENAME_EXCHANGE)
    assert rules(session) == {b"c": 5, b"b": 3}


def test_what_is_kept_for_longer_by_a_rule_is_so_after_a_rename(session: Session) -> None:
    session.kernel.mkdir("libs")
    set_rule(session, b"libs", 300)
    session.kernel.rename("libs", "jars")
    assert rules(session) == {b"libs": 300, b"jars": 300}


def test_other_renames_leave_the_rules_alone(session: Session) -> None:
    session.kernel.mkdir("libs")
    session.kernel.mkdir("libs/below")
    session.kernel.write_file("file", b"x")
    for name in (b"libs", b"file", b"below"):
        set_rule(session, name, 3)
    before = rules(session)
    session.kernel.rename("libs/below", "libs/deep")
    session.kernel.rename("file", "renamed")
    session.kernel.rename("libs", "file2")
    session.kernel.rename("file2", "libs")
    session.kernel.rename("libs/deep", "deep")
    assert rules(session) == before


def test_a_rename_that_fails_leaves_the_rules_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.kernel.mkdir("libs")
    session.kernel.mkdir("jars")
    set_rule(session, b"libs", 3)

    def refuse(*_: object) -> None:
        raise FsError(errno.EIO)

    for flags in (0, RENAME_EXCHANGE):
        with monkeypatch.context() as patch:
            patch.setattr(session.store.namespace.trash, "set_rule", refuse)
            with pytest.raises(FsError):
                session.kernel.rename("libs", "jars", flags)
        assert rules(session) == {b"libs": 3}
        assert sorted(session.kernel.names("")) == [b"jars", b"libs"]
