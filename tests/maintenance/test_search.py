"""Searches over what paths say of files, against coordinates that are real."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import UsageError
from casfs.fs.scheduler import run_inline
from casfs.layouts.builtin import builtin
from casfs.maintenance import search as search_module
from casfs.maintenance.query import parse
from casfs.maintenance.search import NothingFound, Search, latest, searching
from casfs.namespace.repositories import RepositoryRow
from casfs.repositories import verbs
from casfs.repositories.filesystem import follower_of, policy_of, registry_of
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


def found(session: Session, *terms: str) -> list[str]:
    commit(session)
    with searching(str(session.path)) as search:
        return [each.path.decode() for each in search.find(parse(terms))]


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
    paths = found(maven, "repo=libs")
    assert sorted(paths) == sorted(f"/{path}" for path in real(maven) if MAVEN.parse(path[5:].encode()))
    assert paths == sorted(paths, key=lambda path: path.rpartition("/")[::2])


def test_each_is_found_by_its_tokens_exact_and_by_patterns(maven: Session) -> None:
    for path in random.Random(2).sample(real(maven), 20):
        tokens = MAVEN.parse(path[5:].encode())
        assert tokens is not None
        org, module = f"org={tokens.org}", f"module={tokens.module}"
        for terms in (
            (org, module, f"rev={tokens.revision}"),
            ("repo=libs", org, module),
            ("repo=libs",),
            (module,),
            (org,),
            (f"org={tokens.org[:3]}*", f"module=?{tokens.module[1:]}"),
            (f"ext={tokens.extension}", f"type={tokens.kind}", f"classifier={tokens.classifier}"),
            ("!org=no such", "!rev=no*such"),
        ):
            assert f"/{path}" in found(maven, *terms), terms
        assert f"/{path}" not in found(maven, f"!{module}")
        assert found(maven, module, f"name={path.rpartition('/')[2].upper()}") == []
        assert f"/{path}" in found(maven, "repo=libs", f"name=*{path[-7:]}")
    assert found(maven, "module=no such") == found(maven, "org=no*such") == []


def test_what_has_another_place_is_found_there_and_what_is_removed_is_not(session: Session) -> None:
    make_repository(session, "libs")
    write(session, "libs/org/acme/app/1.0/app-1.0.jar", "libs/org/acme/app/1.0/app-1.0.jar.sha1")
    session.kernel.rename("libs/org/acme", "libs/org/other")
    assert found(session, "module=app") == ["/libs/org/other/app/1.0/app-1.0.jar"]
    both = found(session, "module=app", "companions")
    assert both == [f"/libs/org/other/app/1.0/app-1.0.jar{end}" for end in ("", ".sha1")]
    session.kernel.unlink("libs/org/other/app/1.0/app-1.0.jar")
    assert found(session, "repo=libs") == []
    session.kernel.rename("libs/org/other", "elsewhere")
    assert found(session, "companions") == []
    assert found(session) == ["/elsewhere/app/1.0/app-1.0.jar.sha1"]


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
    snapshots = found(session, "snapshots")
    assert snapshots == [
        "/libs/org/app/1.0-SNAPSHOT/app-1.0-20240102.030405-6.jar",
        "/simple/org/app/app-1.0-SNAPSHOT.jar",
    ]
    releases = found(session, "releases")
    assert releases == ["/libs/org/app/1.0/app-1.0.jar", "/simple/org/app/app-1.0.jar"]


def newest(session: Session, module: str, *, snapshots: bool = False, repository: str = "") -> list[str]:
    commit(session)
    organisation, _, name = module.rpartition(":")
    terms = [f"org={organisation}", f"module={name}", *["releases"] * (not snapshots)]
    with searching(str(session.path)) as search:
        files = latest(search, parse([*terms, f"repo={repository}"] if repository else terms))
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
        assert list(search.find(parse(["companions"]))) == []
    session.stop()
    with searching(str(session.path)) as search:
        assert [each.path for each in search.find(parse(["repo=libs"]))] == [b"/libs/org/app/1.0/app-1.0.jar"]


def test_a_name_may_be_any_bytes(session: Session) -> None:
    make_repository(session, "libs", "simple-default")
    write(session, "libs/org/app/app-1.0.jar")
    session.kernel.rename("libs/org/app/app-1.0.jar", b"libs/org/app/app-1.0\xff.jar")
    assert found(session, "repo=libs") == []
    commit(session)
    with closing(sqlite3.connect(session.path / "casfs.db")) as database:
        assert database.execute("SELECT count(*) FROM artifact").fetchone() == (0,)


def deploy(session: Session, *revisions: str, module: str = "app") -> None:
    for revision in revisions:
        folder = re.sub(r"-\d+\.\d+-\d+$", "-SNAPSHOT", revision)
        path = f"libs/org/{module}/{folder}/{module}-{revision}.jar"
        write(session, path, f"{path}.sha1")


def names(paths: list[str]) -> list[str]:
    return [path.rpartition("/")[2] for path in paths]


def test_the_newest_revisions_of_each_module_are_kept(session: Session) -> None:
    make_repository(session, "libs")
    deploy(session, "1.2", "1.9", "1.10", "1.11-SNAPSHOT")
    deploy(session, "1.0", "2.0", module="lib")
    assert names(found(session, "keep=2")) == ["app-1.2.jar", "app-1.9.jar"]
    assert names(found(session, "keep=2", "releases")) == ["app-1.2.jar"]
    assert names(found(session, "keep=1", "rev=1.*")) == ["app-1.10.jar", "app-1.2.jar", "app-1.9.jar"]
    assert names(found(session, "keep=1", "module=app", "!name=*-1.2.*")) == ["app-1.10.jar", "app-1.9.jar"]
    assert names(found(session, "keep=2", "companions")) == [
        f"app-{revision}.jar{end}" for revision in ("1.2", "1.9") for end in ("", ".sha1")
    ]
    assert len(found(session, "keep=0")) == 6
    assert found(session, "keep=9") == []


def test_snapshots_are_kept_by_their_time(session: Session) -> None:
    make_repository(session, "libs")
    stamps = [f"1.0-2024010{day}.030405-{day}" for day in (1, 2, 3, 4)]
    deploy(session, "1.0", *stamps)
    kept = found(session, "snapshots", "keep=2")
    assert names(kept) == [f"app-{stamp}.jar" for stamp in stamps[:2]]


def test_a_revision_of_which_only_a_checksum_is_there_yet_is_new(session: Session) -> None:
    make_repository(session, "libs")
    deploy(session, "1.0", "1.1")
    write(session, "libs/org/app/1.2/app-1.2.jar.sha1")
    assert names(found(session, "keep=1", "companions")) == ["app-1.0.jar", "app-1.0.jar.sha1"]


def test_contents_with_several_names_are_grouped(session: Session) -> None:
    write(session, "a/x", "b/x")
    for path in ("a/same", "a/same-2", "b/same"):
        session.kernel.write_file(path, b"12345")
    session.kernel.link("a/x", "linked")
    session.kernel.write_file("empty", b"")
    session.kernel.write_file("empty-2", b"")
    session.rest()
    with searching(str(session.path)) as search:
        groups = list(search.duplicates(parse(["duplicates"])))
        assert [(sorted(each.path for each in group.found), group.saves) for group in groups] == [
            ([b"/a/x", b"/linked"], 3),
            ([b"/a/same", b"/a/same-2", b"/b/same"], 10),
        ]
        (below,) = search.duplicates(parse(["duplicates", "path=/a/*"]))
        assert [each.path for each in below.found] == [b"/a/same", b"/a/same-2"]
        assert list(search.duplicates(parse(["duplicates", "name=same-2"]))) == []


def test_what_lies_in_the_trash_is_found_when_it_is_asked_for(session: Session) -> None:
    policy_of(session.fs).trash.minimal_age_ns = 0
    write(session, "a/x")
    session.rest()
    session.kernel.unlink("a/x")
    assert found(session, "name=x*") == []
    (path,) = found(session, "name=x*", "trash")
    assert path.startswith("/.casfs/trash/")


def test_the_term_with_the_best_index_is_looked_up(session: Session) -> None:
    make_repository(session, "libs")
    deploy(session, "1.0")
    commit(session)
    with searching(str(session.path)) as search:

        def source(*terms: str) -> str:
            found = search.source(parse(terms))
            return " ".join([found.kind, *map(os.fsdecode, found.directories), *["scan"] * found.scan])

        assert source("sha1=ab", "prop.a", "module=app", "name=x") == "digest"
        assert source("prop.a", "module=app") == "property"
        assert source("!prop.a", "!sha1=ab", "module=app") == "module"
        assert source("org=or*", "module=app") == "module"
        assert source() == "tree /"
        assert source("repo=libs") == "tree /libs/"
        assert source("org=or*", "repo=libs") == "tree /libs/ scan"
        assert source("path=/libs/org/*", "path=/libs/*") == "tree /libs/org/ scan"
        empty = "sha1=da39a3ee5e6b4b0d3255bfef95601890afd80709"
        for term in ("name=x", "module=a*", "!module=app", "!prop.a", "size>1", empty):
            assert source(term) == "tree / scan"
        assert source("duplicates", "sha1=ab") == "contents scan"


def test_a_property_that_much_has_is_not_looked_up_where_a_module_has_less(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_repository(session, "libs")
    deploy(session, "1.0", "1.1")
    write(session, *(f"file-{number}" for number in range(6)))
    commit(session)
    run_inline(session.fs.group.begin())
    for number in range(6):
        ino = session.kernel.inode(f"file-{number}").ino
        session.store.namespace.xattrs.set(ino, b"user.casfs.prop.qa", b"passed")
    monkeypatch.setattr(search_module, "FEW", 4)
    search = Search(session.store.namespace)
    assert search.source(parse(["prop.qa=passed"])).kind == "property"
    assert search.source(parse(["prop.qa=passed", "module=app"])).kind == "module"
    assert search.source(parse(["prop.qa=failed", "module=app"])).kind == "property"
    run_inline(session.fs.group.durable())


def test_long_answers_come_in_parts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "PART", 2)
    make_repository(session, "libs")
    deploy(session, *(f"1.{number}" for number in range(5)))
    for number in range(7):
        session.kernel.write_file(f"same-{number}", b"same")
    session.rest()
    run_inline(session.fs.group.begin())
    for number in range(7):
        ino = session.kernel.inode(f"same-{number}").ino
        session.store.namespace.xattrs.set(ino, b"user.casfs.prop.qa", b"passed\nby hand")
    expected = [f"/same-{number}" for number in range(7)]
    assert found(session, "name=same*") == expected
    assert found(session, f"blake3={blake3(b'same').hexdigest()}") == expected
    assert all(found(session, term) == expected for term in ("prop.qa", "prop.qa=*", "prop.qa=passed"))
    assert len(found(session, "blake3=0")) + len(found(session, "!blake3=0")) == 17
    assert len(found(session, "module=app")) == 5
