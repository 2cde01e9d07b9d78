"""Searches over what paths say of files, against coordinates that are real."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from casfs.errors import UsageError
from casfs.fs.scheduler import run_inline
from casfs.layouts.builtin import builtin
from casfs.maintenance.search import NothingFound, latest, searching
from casfs.namespace.namespace import Namespace
from casfs.namespace.repositories import RepositoryRow
from casfs.namespace.searches import Wanted, directories_query
from casfs.repositories import verbs
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.registry import RepositoryKind
from tests.repositories.test_following import make_directories, make_repository
from tests.session import Session

REAL = (Path(__file__).parents[1] / "layouts" / "maven-repo.txt").read_text().split()
"""Paths of a Debian machine's /usr/share/maven-repo."""

MAVEN = builtin("maven-2-default")


def write(session: Session, *paths: str) -> None:
    for path in paths:
        make_directories(session, path.rpartition("/")[0])
        session.kernel.write_file(path, path.encode())


def commit(session: Session) -> None:
    run_inline(follower_of(session.fs).drain())
    session.kernel.sync()


def found(
    session: Session, wanted: Wanted, name: str | None = None, snapshot: bool | None = None
) -> list[str]:
    commit(session)
    with searching(str(session.path)) as search:
        return [each.path.decode() for each in search.find(wanted, name, snapshot)]


@pytest.fixture
def maven(session: Session) -> Session:
    """Some hundred real artifacts."""
    make_repository(session, "libs")
    write(session, *(f"libs/{path}" for path in random.Random(1).sample(REAL, min(150, len(REAL)))))
    return session


def real(session: Session) -> list[str]:
    below = [path.decode() for path, entry in session.kernel.tree().items() if entry.content is not None]
    return [path for path in below if path.startswith("libs/")]


def test_all_are_found_by_directory_and_name(maven: Session) -> None:
    paths = found(maven, Wanted())
    assert sorted(paths) == sorted(f"/{path}" for path in real(maven) if MAVEN.parse(path[5:].encode()))
    assert paths == sorted(paths, key=lambda path: path.rpartition("/")[::2])


def test_each_is_found_by_its_tokens_exact_and_by_patterns(maven: Session) -> None:
    for path in random.Random(2).sample(real(maven), 20):
        tokens = MAVEN.parse(path[5:].encode())
        assert tokens is not None
        ino = maven.kernel.inode("libs").ino
        for wanted in (
            Wanted(organisation=tokens.org, module=tokens.module, revision=tokens.revision),
            Wanted((ino,), tokens.org, tokens.module),
            Wanted((ino,)),
            Wanted(module=tokens.module),
            Wanted(organisation=tokens.org),
            Wanted(organisation=f"{tokens.org[:3]}*", module=f"?{tokens.module[1:]}"),
            Wanted(extension=tokens.extension, type=tokens.kind, classifier=tokens.classifier),
        ):
            assert f"/{path}" in found(maven, wanted), wanted
        assert found(maven, Wanted(module=tokens.module), name=path.rpartition("/")[2].upper()) == []
        assert f"/{path}" in found(maven, Wanted(), name=f"*{path[-7:]}")
    assert found(maven, Wanted(module="no such")) == found(maven, Wanted(organisation="no*such")) == []


def test_what_has_another_place_is_found_there_and_what_is_removed_is_not(session: Session) -> None:
    make_repository(session, "libs")
    write(session, "libs/org/acme/app/1.0/app-1.0.jar", "libs/org/acme/app/1.0/app-1.0.jar.sha1")
    session.kernel.rename("libs/org/acme", "libs/org/other")
    assert found(session, Wanted(module="app")) == ["/libs/org/other/app/1.0/app-1.0.jar"]
    both = found(session, Wanted(module="app", companions=True))
    assert both == [f"/libs/org/other/app/1.0/app-1.0.jar{end}" for end in ("", ".sha1")]
    session.kernel.unlink("libs/org/other/app/1.0/app-1.0.jar")
    assert found(session, Wanted()) == []
    session.kernel.rename("libs/org/other", "elsewhere")
    assert found(session, Wanted(companions=True)) == []


def test_snapshots_are_those_by_path_and_those_by_revision(session: Session) -> None:
    make_repository(session, "libs")
    make_repository(session, "simple", "simple-default")
    write(
        session,
        "libs/org/app/1.0-SNAPSHOT/app-1.0-20240102.030405-6.jar",
        "libs/org/app/1.0/app-1.0.jar",
        "simple/org/app/app-1.0-SNAPSHOT.jar",
        "simple/org/app/app-1.0.jar",
    )
    snapshots = found(session, Wanted(), snapshot=True)
    assert snapshots == [
        "/libs/org/app/1.0-SNAPSHOT/app-1.0-20240102.030405-6.jar",
        "/simple/org/app/app-1.0-SNAPSHOT.jar",
    ]
    releases = found(session, Wanted(), snapshot=False)
    assert releases == ["/libs/org/app/1.0/app-1.0.jar", "/simple/org/app/app-1.0.jar"]


def newest(session: Session, module: str, *, snapshots: bool = False, repository: str = "") -> list[str]:
    commit(session)
    organisation, _, name = module.rpartition(":")
    with searching(str(session.path)) as search:
        inos = search.repositories(repository.encode()) if repository else ()
        files = latest(search, Wanted(inos, organisation, name), snapshots=snapshots)
        return [files[0].row.revision, *(each.path.decode() for each in files)]


def test_the_newest_is_by_the_order_of_the_layout(session: Session) -> None:
    make_repository(session, "libs")
    for revision in ("1.9", "1.10", "1.10-alpha-1", "1.11-SNAPSHOT", "1.2"):
        write(
            session,
            f"libs/org/app/{revision}/app-{revision}.jar",
            f"libs/org/app/{revision}/app-{revision}.pom",
        )
    assert newest(session, "org:app") == [
        "1.10",
        "/libs/org/app/1.10/app-1.10.jar",
        "/libs/org/app/1.10/app-1.10.pom",
    ]
    assert newest(session, "org:app", snapshots=True)[0] == "1.11-SNAPSHOT"
    with pytest.raises(NothingFound, match="there is no release of org:other"):
        newest(session, "org:other")
    make_repository(session, "npm", "npm-default")
    write(session, *(f"npm/app/-/app-{revision}.tgz" for revision in ("2.0.0-beta.1", "1.2.0", "1.10.0")))
    assert newest(session, "app") == ["1.10.0", "/npm/app/-/app-1.10.0.tgz"]
    assert newest(session, ":app", snapshots=True)[0] == "2.0.0-beta.1"


def test_repositories_that_sort_in_different_ways_have_to_be_named(session: Session) -> None:
    make_repository(session, "libs")
    make_repository(session, "semantic", "bower-default")
    write(session, "libs/org/app/1.0/app-1.0.jar", "semantic/org/app/app-2.0.0.jar")
    with pytest.raises(UsageError, match="libs, semantic sort revisions in different ways"):
        newest(session, "org:app")
    assert newest(session, "org:app", repository="libs")[0] == "1.0"
    assert newest(session, "org:app", repository="semantic")[0] == "2.0.0"
    with pytest.raises(UsageError, match="did you mean 'libs'"):
        newest(session, "org:app", repository="lib")


def test_a_virtual_repository_stands_for_those_that_it_shows(session: Session) -> None:
    inos = [make_repository(session, name) for name in ("a", "b", "c")]
    write(session, *(f"{name}/org/app/1.{index}/app-1.{index}.jar" for index, name in enumerate("abc")))
    run_inline(verbs.create(session.fs, b"some", RepositoryKind.VIRTUAL, members=[b"a", b"b"]))
    run_inline(verbs.create(session.fs, b"all", RepositoryKind.VIRTUAL, members=[b"some", b"c"]))
    commit(session)
    with searching(str(session.path)) as search:
        assert search.repositories(b"some") == tuple(inos[:2])
        assert search.repositories(b"all") == tuple(inos)
    assert newest(session, "org:app", repository="some") == ["1.1", "/b/org/app/1.1/app-1.1.jar"]
    assert newest(session, "org:app", repository="all")[0] == "1.2"


def test_what_a_user_that_was_killed_has_not_followed_is_followed_first(session: Session) -> None:
    make_directories(session, "libs/org/app/1.0")
    session.kernel.write_file("libs/org/app/1.0/app-1.0.jar", b"jar")
    ino = session.kernel.inode("libs").ino
    run_inline(session.fs.group.begin())
    rows = session.store.namespace.repositories
    rows.set(RepositoryRow(ino, "local", "maven-2-default", None, "{}"))
    registry_of(session.fs).read()
    follower_of(session.fs).follow(ino)
    session.kernel.sync()
    with searching(str(session.path)) as search:  # it is in use: as it is
        assert list(search.find(Wanted())) == []
    session.stop()
    with searching(str(session.path)) as search:
        assert [each.path for each in search.find(Wanted())] == [b"/libs/org/app/1.0/app-1.0.jar"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(organisation="a", module="b"), "artifact_module (organisation=? AND module=?)"),
        (Wanted((5,), "a", "b"), "artifact_module (organisation=? AND module=?)"),
        (Wanted((5,), "a", "b", "1.*"), "artifact_module (organisation=? AND module=?)"),
        (Wanted(organisation="a"), "artifact_module (organisation=?)"),
        (Wanted(module="b"), "artifact_module (organisation=? AND module=?)"),
        (Wanted((5,), module="b"), "artifact_module (organisation=? AND module=?)"),
        (Wanted((5, 6)), "artifact_repository (repository=?)"),
        (Wanted((5,), "a*", "b*"), "artifact_repository (repository=?)"),
    ],
)
def test_what_is_asked_for_often_is_a_look_into_an_index(
    store_path: Path, wanted: Wanted, index: str
) -> None:
    with closing(Namespace(str(store_path / "casfs.db"), readonly=True)) as namespace:
        sql, values = directories_query(wanted)
        plan = [row[3] for row in namespace.query(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert any(index in line for line in plan), plan
    assert not any(line in ("SCAN a", "SCAN artifact") for line in plan), plan


def test_a_name_may_be_any_bytes(session: Session) -> None:
    make_repository(session, "libs", "simple-default")
    write(session, "libs/org/app/app-1.0.jar")
    session.kernel.rename("libs/org/app/app-1.0.jar", b"libs/org/app/app-1.0\xff.jar")
    assert found(session, Wanted()) == []
    commit(session)
    with closing(sqlite3.connect(session.path / "casfs.db")) as database:
        assert database.execute("SELECT count(*) FROM artifact").fetchone() == (0,)
