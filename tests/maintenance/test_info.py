"""What a store knows of one path."""

from __future__ import annotations

import errno
import hashlib
from contextlib import closing

import pytest
from blake3 import blake3

from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.info import Info, info
from casfs.namespace.repositories import LayoutRow, RepositoryRow
from casfs.repositories.filesystem import registry_of
from casfs.repositories.rules import Rules
from casfs.store import Store
from casfs.trash.undelete import change_rule
from tests.repositories.test_derived import make_tree
from tests.repositories.test_following import JAR, make_directories, make_repository
from tests.session import Session


def shown(session: Session, path: str) -> Info:
    session.rest()
    session.kernel.sync()
    with closing(Store(str(session.path), readonly=True)) as store:
        return info(store.namespace, path.encode())


@pytest.fixture
def libs(session: Session) -> Session:
    make_repository(session, "libs")
    make_directories(session, "libs/org/acme/app/1.0")
    session.kernel.write_file(f"libs/{JAR}", b"jar")
    return session


def test_an_artifact(libs: Session) -> None:
    libs.kernel.link(f"libs/{JAR}", "link")
    found = shown(libs, f"//libs/./{JAR}")
    assert (found.path, found.kind, found.size) == (f"/libs/{JAR}".encode(), "regular file", 3)
    assert (found.digest, found.is_sealed) == (blake3(b"jar").hexdigest(), True)
    assert found.names == (f"/libs/{JAR}".encode(), b"/link")
    assert (found.repository, found.repository_kind, found.layout) == (b"libs", "local", "maven-2-default")
    assert found.coordinates is not None
    assert (found.coordinates.org, found.coordinates.module) == ("org.acme", "app")
    assert (found.snapshot, found.reason, found.damaged, found.rules) == (False, "", "", Rules())
    assert found.trash_rule is not None
    assert (found.trash_rule.days, found.trashed) == (14, None)


def test_a_file_that_trees_show(libs: Session) -> None:
    kernel = libs.kernel
    make_repository(libs, "more")
    make_directories(libs, "more/org/acme/app/1.0")
    kernel.write_file(f"more/{JAR}", b"another")
    make_tree(libs, "ivy", "view", ["libs"], "ivy-default")
    make_tree(libs, "all", "virtual", ["libs", "more"])
    source = f"/libs/{JAR}".encode()
    found = shown(libs, f"/all/{JAR}")
    assert (found.path, found.lies_at, found.hides) == (
        b"/all/" + JAR.encode(),
        source,
        (b"/more/" + JAR.encode(),),
    )
    assert (found.repository, found.layout, found.size) == (b"libs", "maven-2-default", 3)
    found = shown(libs, "/ivy/org.acme/app/1.0/jars/app-1.0.jar")
    assert (found.lies_at, found.hides, found.names) == (source, (), (source,))
    assert found.coordinates is not None
    assert found.coordinates.module == "app"
    kernel.unlink(f"libs/{JAR}")
    assert shown(libs, f"/all/{JAR}").lies_at == b"/more/" + JAR.encode()
    directory = shown(libs, "/all/org/acme")
    assert (directory.kind, directory.repository, directory.repository_kind) == (
        "directory",
        b"all",
        "virtual",
    )
    for path, number in (("/all/none", errno.ENOENT), (f"/all/{JAR}/x", errno.ENOTDIR)):
        with pytest.raises(FsError) as raised:
            shown(libs, path)
        assert raised.value.errno == number


def test_what_is_no_artifact_says_why(libs: Session) -> None:
    libs.kernel.write_file("libs/org/notes", b"")
    found = shown(libs, "/libs/org/notes")
    assert found.coordinates is None
    assert found.reason.startswith("it stops ")
    libs.kernel.write_file("libs/maven-metadata.xml", b"")
    assert shown(libs, "/libs/maven-metadata.xml").reason == "it is an index of a registry, no artifact"


@pytest.mark.parametrize(
    ("path", "kind", "repository"),
    [
        ("/", "directory", b""),
        ("/libs", "directory", b"libs"),
        ("/file", "regular file", b""),
        ("/plain/link", "symbolic link", b"plain"),
    ],
)
def test_what_has_no_layout_or_is_no_file(libs: Session, path: str, kind: str, repository: bytes) -> None:
    libs.kernel.write_file("file", b"")
    libs.kernel.mkdir("plain")
    libs.kernel.symlink("../file", "plain/link")
    found = shown(libs, path)
    assert (found.kind, found.repository, found.coordinates, found.reason) == (kind, repository, None, "")


def test_a_snapshot_by_its_revision(session: Session) -> None:
    make_repository(session, "libs", "simple-default")
    make_directories(session, "libs/org/app")
    session.kernel.write_file("libs/org/app/app-1.0-SNAPSHOT.jar", b"")
    assert shown(session, "/libs/org/app/app-1.0-SNAPSHOT.jar").snapshot


def test_what_lies_in_the_trash(libs: Session) -> None:
    run_inline(change_rule(libs.fs, b"", None, None, 0))
    libs.rest()
    libs.kernel.unlink(f"libs/{JAR}")
    libs.kernel.sync()
    (day,) = libs.kernel.names(".casfs/trash")
    found = shown(libs, f"/.casfs/trash/{day.decode()}/libs/{JAR}")
    assert found.trashed is not None
    assert (found.trashed.path, found.trashed.reason) == (f"libs/{JAR}".encode(), "removed")
    assert (found.trash_rule, found.repository, found.coordinates) == (None, b"", None)


def test_a_rule_of_the_repository_and_one_of_its_trash(libs: Session) -> None:
    run_inline(libs.fs.group.begin())
    ino = libs.kernel.inode("libs").ino
    libs.store.namespace.repositories.set(RepositoryRow(ino, "local", None, None, '{"immutable": true}'))
    registry_of(libs.fs).read()
    run_inline(change_rule(libs.fs, b"libs", 3, ["*.tmp"]))
    found = shown(libs, f"/libs/{JAR}")
    assert found.rules == Rules(immutable=True)
    assert found.trash_rule is not None
    assert (found.trash_rule.days, found.trash_rule.exclude) == (3, ("*.tmp",))
    libs.store.namespace.query("DELETE FROM artifact")  # of the layout that it had


def test_a_damaged_repository_is_told_of(session: Session) -> None:
    session.kernel.mkdir("libs")
    session.kernel.write_file("libs/file", b"")
    ino = session.kernel.inode("libs").ino
    rows = session.store.namespace.repositories
    run_inline(session.fs.group.begin())
    rows.set_layout(LayoutRow("own", "["))
    rows.set(RepositoryRow(ino, "local", "own", None, "["))
    found = shown(session, "/libs/file")
    assert found.damaged
    assert found.reason.startswith("unknown layout 'own'")
    run_inline(session.fs.group.begin())
    rows.remove_layout("own")
    rows.remove(ino)


@pytest.mark.parametrize(("path", "number"), [("/no", errno.ENOENT), (f"/libs/{JAR}/no", errno.ENOTDIR)])
def test_what_is_not_there(libs: Session, path: str, number: int) -> None:
    with pytest.raises(FsError) as raised:
        shown(libs, path)
    assert raised.value.errno == number


def test_digests_and_properties(libs: Session) -> None:
    run_inline(libs.fs.group.begin())
    libs.fs.contents.digesting.set_wanted(["sha256", "md5"])
    libs.kernel.write_file("libs/file", b"content")
    libs.kernel.setxattr("libs/file", b"user.casfs.prop.qa", b"passed\nsigned")
    libs.kernel.setxattr("libs/file", b"user.other", b"value")
    found = shown(libs, "/libs/file")
    assert found.others == {name: hashlib.new(name, b"content").hexdigest() for name in ("md5", "sha256")}
    assert found.properties == {"qa": ["passed", "signed"]}
