"""Rows of repositories and layouts that say nothing that can be meant."""

from __future__ import annotations

import pytest

from casfs.fs.scheduler import run_inline
from casfs.namespace.repositories import LayoutRow, RepositoryRow
from casfs.repositories.damaged import circles, layouts_of
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Rules
from tests.repositories.test_following import JAR, make_directories
from tests.session import Session

GOOD = "[layout.good]\nartifact = '[org]/[module]-[baseRev].[ext]'\n"
DEEP = 100_000


def test_a_layout_that_cannot_be_read_is_none_and_the_others_are_there() -> None:
    rows = [
        LayoutRow("good", GOOD),
        LayoutRow("other", GOOD),
        LayoutRow("two", f"{GOOD}[layout.two]\nartifact = '[org]/[module]-[baseRev].[ext]'\n"),
        LayoutRow("empty", ""),
        LayoutRow("wrong", "[layout.wrong]\nartifact = '[module'\n"),
        LayoutRow("deep", "a = " + "[" * DEEP),
        LayoutRow("long", "[layout.long]\nartifact = '" + "(" * DEEP + "'\n"),
        LayoutRow("number", "[layout.number]\nartifact = " + "9" * DEEP),
    ]
    layouts, damaged = layouts_of(rows)
    assert list(layouts) == ["good"]
    assert damaged.keys() == {row.name for row in rows} - {"good"}
    assert all("\n" not in why for why in damaged.values())


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, []),
        ({1: [2, 3], 2: [4], 3: [4]}, []),
        ({1: [1]}, [[1]]),
        ({1: [2], 2: [3], 3: [1]}, [[1, 2, 3]]),
        ({1: [2], 2: [3, 2], 3: [2]}, [[2, 3], [2]]),
    ],
)
def test_circles_of_members_are_found(members: dict[int, list[int]], expected: list[list[int]]) -> None:
    assert circles(members) == expected


def test_a_long_chain_of_members_is_followed_in_linear_time() -> None:
    chain = {number: [number + 1] for number in range(DEEP)}
    assert circles(chain) == []
    (found,) = circles({**chain, DEEP: [0]})
    assert len(found) == DEEP + 1


@pytest.mark.parametrize(
    "row",
    [
        ("local", "gone", "{}"),
        ("other", None, "{}"),
        ("local", None, ""),
        ("local", None, "[" * DEEP),
        ("local", None, '{"quota_bytes": ' + "9" * DEEP + "}"),
        ("local", None, '{"exclude": ' + "[" * DEEP),
        ("local", None, '{"unknown": true}'),
    ],
)
def test_a_repository_that_cannot_be_read_is_read_only_until_it_can(
    session: Session, row: tuple[str, str | None, str], caplog: pytest.LogCaptureFixture
) -> None:
    make_directories(session, "libs/org/acme/app/1.0")
    session.kernel.write_file(f"libs/{JAR}", b"jar")
    ino = session.kernel.inode("libs").ino
    kind, layout, rules = row
    rows = session.store.namespace.repositories
    run_inline(session.fs.group.begin())
    rows.set(RepositoryRow(ino, kind, layout, None, rules))
    session.kernel.sync()
    session.reopen()
    registry = registry_of(session.fs)
    assert registry.repositories[ino].rules == Rules(read_only=True)
    assert (registry.repositories[ino].kind, registry.repositories[ino].layout) == (
        RepositoryKind.LOCAL,
        None,
    )
    assert ino in registry.damaged
    (record,) = caplog.records
    assert "casfs fsck" in record.getMessage()
    caplog.clear()
    assert session.kernel.read_file(f"libs/{JAR}") == b"jar"
    run_inline(session.fs.group.begin())
    session.store.namespace.repositories.set(RepositoryRow(ino, "local", None, None, "{}"))
    registry.read()
    assert not registry.damaged
    run_inline(follower_of(session.fs).drain())


def test_repositories_that_show_each_other_show_nothing(session: Session) -> None:
    for name in ("a", "b", "c"):
        make_directories(session, name)
    a, b, c = (session.kernel.inode(name).ino for name in ("a", "b", "c"))
    run_inline(session.fs.group.begin())
    for ino, members in ((a, [b]), (b, [a]), (c, [a])):
        session.store.namespace.repositories.set(RepositoryRow(ino, "virtual", None, None, "{}"), members)
    registry = registry_of(session.fs)
    registry.read()
    assert registry.damaged.keys() == {a, b}
    assert [registry.repositories[ino].members for ino in (a, b, c)] == [(), (), (a,)]
    for ino in (a, b, c):
        session.store.namespace.repositories.remove(ino)
    registry.read()


def test_a_tree_without_a_directory_does_not_keep_others_from_being_followed(session: Session) -> None:
    """Each commit failed, and the store could not be unmounted."""
    make_directories(session, "libs")
    libs, gone = session.kernel.inode("libs").ino, 999
    run_inline(session.fs.group.begin())
    session.store.namespace.repositories.set(RepositoryRow(gone, "virtual", None, None, "{}"), [libs])
    registry_of(session.fs).read()
    session.kernel.write_file("libs/file", b"content")
    run_inline(follower_of(session.fs).drain())
    session.kernel.sync()
    session.store.namespace.repositories.remove(gone)
    registry_of(session.fs).read()
