"""Snapshots that are too many go to the trash, and nothing else goes."""

from __future__ import annotations

import time

import pytest

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.layouts.versions import ORDERS
from casfs.namespace.integrations import IntegrationFile
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.integrations import QUIET_NS, Cleaned, clean, oldest
from casfs.repositories.rules import Rules, encode
from casfs.trash.filesystem import trash_of
from casfs.trash.undelete import change_rule
from tests.repositories.test_following import make_directories
from tests.session import Session

FOLDER = "libs/org/app/1.0-SNAPSHOT"
LATER = 10 * QUIET_NS


def set_rules(session: Session, rules: Rules, layout: str = "maven-2-default") -> None:
    make_directories(session, "libs")
    ino = session.kernel.inode("libs").ino
    run_inline(session.fs.group.begin())
    session.store.namespace.repositories.set(RepositoryRow(ino, "local", layout, None, encode(rules)))
    registry_of(session.fs).read()
    follower_of(session.fs).follow(ino)


def write(session: Session, *paths: str) -> None:
    for path in paths:
        make_directories(session, path.rpartition("/")[0])
        session.kernel.write_file(path, path.encode())


def names(*numbers: int, end: str = ".jar") -> list[str]:
    return [f"app-1.0-20240102.03040{number}-{number}{end}" for number in numbers]


def cleaned(session: Session, limit: int | None = None, after_ns: int = LATER) -> Cleaned:
    run_inline(follower_of(session.fs).drain())
    session.kernel.sync()
    result = run_inline(clean(session.fs, time.time_ns() + after_ns, limit))
    session.kernel._forget()
    session.kernel.sync()
    return result


def left(session: Session, folder: str = FOLDER) -> list[str]:
    return [name.decode() for name in session.kernel.names(folder)]


def trashed(session: Session) -> list[str]:
    return sorted(row.path.decode() for row, _ in session.store.namespace.trash.sized())


@pytest.fixture
def libs(session: Session) -> Session:
    """Files of five snapshots, of which two may stay; the trash takes what is just made, too."""
    set_rules(session, Rules(max_unique_snapshots=2))
    write(session, *(f"{FOLDER}/{name}" for name in names(3, 1, 2, 5, 4)))
    run_inline(change_rule(session.fs, b"", None, None, 0))
    return session


def test_the_oldest_go_to_the_trash(libs: Session) -> None:
    assert cleaned(libs).files == 3
    assert left(libs) == names(4, 5)
    assert trashed(libs) == [f"{FOLDER}/{name}" for name in names(1, 2, 3)]
    assert cleaned(libs) == Cleaned()


def test_what_accompanies_them_goes_along_and_classifiers_count_apart(libs: Session) -> None:
    write(
        libs,
        *(
            f"{FOLDER}/{name}"
            for end in (".jar.sha1", "-sources.jar", ".pom")
            for name in names(1, 2, end=end)
        ),
    )
    write(libs, f"{FOLDER}/{names(5)[0]}.sha1", f"{FOLDER}/maven-metadata.xml")
    assert cleaned(libs).files == 5
    kept = [*names(4, 5), *names(5, end=".jar.sha1"), "maven-metadata.xml"]
    kept += [*names(1, 2, end="-sources.jar"), *names(1, 2, end=".pom")]
    assert left(libs) == sorted(kept)


def test_releases_and_what_does_not_parse_stay_and_empty_directories_go(libs: Session) -> None:
    write(
        libs, "libs/org/app/1.0/app-1.0.jar", "libs/org/app/1.1/app-1.1.jar", "libs/org/app/1.2/app-1.2.jar"
    )
    write(libs, *(f"libs/org/app/1.{number}/notes" for number in range(3)))
    set_rules(libs, Rules(max_unique_snapshots=1), "gradle-default")
    write(
        libs,
        *(f"libs/org/app/1.0-2024010203040{number}/app-1.0-2024010203040{number}.jar" for number in range(4)),
    )
    assert cleaned(libs).files == 3
    assert left(libs, "libs/org/app") == ["1.0", "1.0-20240102030403", "1.0-SNAPSHOT", "1.1", "1.2"]
    assert left(libs, "libs/org/app/1.2") == ["app-1.2.jar", "notes"]
    assert len(left(libs)) == 5  # no paths of that layout


@pytest.mark.parametrize(
    "rules",
    [Rules(), Rules(max_unique_snapshots=5), Rules(max_unique_snapshots=2, read_only=True)],
)
def test_nothing_goes_that_the_rules_keep(libs: Session, rules: Rules) -> None:
    set_rules(libs, rules)
    assert cleaned(libs) == Cleaned()
    assert len(left(libs)) == 5
    set_rules(libs, Rules())


def test_the_newest_stays(libs: Session) -> None:
    set_rules(libs, Rules(max_unique_snapshots=1, immutable=True))
    assert cleaned(libs).files == 4
    assert left(libs) == names(5)


def test_nothing_goes_while_a_module_is_published(libs: Session) -> None:
    assert cleaned(libs, after_ns=QUIET_NS - 10**9) == Cleaned(0, waits=True)
    run_inline(change_rule(libs.fs, b"", None, None, 3600))
    assert cleaned(libs, after_ns=3599 * 10**9).files == 0  # they would not come to the trash
    assert len(left(libs)) == 5
    run_inline(change_rule(libs.fs, b"", None, None, 0))
    write(libs, "libs/org/other/1/other-1.jar")
    assert cleaned(libs).files == 3


def test_what_is_in_use_waits(libs: Session) -> None:
    with libs.kernel.open(f"{FOLDER}/{names(1)[0]}"):
        assert cleaned(libs) == Cleaned(2, waits=True)
        assert left(libs) == names(1, 4, 5)
    assert cleaned(libs) == Cleaned(1)
    assert len(trashed(libs)) == 3


def test_what_rests_before_it_is_sealed_is_kept_too(libs: Session) -> None:
    path = f"{FOLDER}/{names(1)[0]}"
    libs.kernel.sync()
    libs.kernel.write_file(path, b"another content")
    libs.kernel.write_file(path, b"one more")
    assert cleaned(libs).files == 3
    reasons = [row.reason for row, _ in libs.store.namespace.trash.sized()]
    assert sorted(reasons) == ["removed", "removed", "removed", "truncated"]


def test_up_to_so_many_series_are_cleaned_at_a_time(libs: Session) -> None:
    write(libs, *(f"{FOLDER}/{name}" for name in names(1, 2, 3, end=".pom")))
    first = cleaned(libs, limit=1).files
    assert first in (1, 3)
    assert cleaned(libs).files == 4 - first


def test_where_there_is_no_trash_nothing_goes(libs: Session) -> None:
    trash_of(libs.fs).off = "there is none"
    assert cleaned(libs) == Cleaned()
    assert len(left(libs)) == 5


def test_what_is_refused_is_logged_and_the_rest_goes(
    libs: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(libs, *(f"libs/org/b/1.0-SNAPSHOT/{name.replace('app', 'b')}" for name in names(1, 2, 3)))
    leaves = libs.fs.policy.leaves

    def refuse(inode: object, directory: int, name: bytes, *rest: object) -> None:
        if name.startswith(b"app"):
            raise FsError(13)
        leaves(inode, directory, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(libs.fs.policy, "leaves", refuse)
    assert cleaned(libs) == Cleaned(1, waits=True)
    assert "snapshots of org:app 1.0 are not cleaned up: Permission denied" in caplog.text
    caplog.clear()


def file(revision: str, integration: str, mtime: int = 0, companion: str = "") -> IntegrationFile:
    return IntegrationFile(5, revision.encode(), f"1.0-{integration}", integration, companion, mtime, 0)


@pytest.mark.parametrize(
    ("order", "files", "expected"),
    [
        ("maven", [("a", "20240102.030405-1", 9), ("b", "20230102.030405-2", 10)], "b"),
        ("maven", [("a", "20240102030405", 9), ("b", "20230102030405", 10)], "b"),
        ("maven", [("a", "SNAPSHOT", 2**62), ("b", "20240102.030405-1", 0)], "b"),
        ("maven", [("a", "SNAPSHOT", 0), ("b", "20240102.030405-1", 0)], "a"),
        ("maven", [("a", "c0ffee", 5), ("b", "deadbeef", 4)], "b"),
        ("maven", [("a", "99999999.999999-1", 5), ("b", "x", 4)], "b"),
        ("semver", [("a", "beta.10", 4), ("b", "beta.9", 5)], "b"),
    ],
)
def test_which_one_is_the_oldest(order: str, files: list[tuple[str, str, int]], expected: str) -> None:
    gone = oldest([file(*each) for each in files], 1, ORDERS[order])
    assert [each.name.decode() for each in gone] == [expected]
    assert oldest([file(*each) for each in files], 0, ORDERS[order]) == gone
    assert oldest([file(*each) for each in files], 2, ORDERS[order]) == []
    assert oldest([], 1, ORDERS[order]) == []
