"""Views and virtual repositories: what they show, and what is done through them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.scheduler import run_inline
from casfs.layouts.files import to_toml
from casfs.layouts.layout import Definition
from casfs.maintenance.check.fsck import check
from casfs.namespace.repositories import LayoutRow, RepositoryRow
from casfs.repositories.filesystem import follower_of, registry_of
from casfs.repositories.rules import Rules
from tests.images import copy_store
from tests.kernel import Kernel
from tests.repositories.making import JAR, make_directories, make_repository
from tests.session import Session

IVY_JAR = "org.acme/app/1.0/jars/app-1.0.jar"


def make_tree(
    session: Session,
    name: str,
    kind: str,
    members: list[str],
    layout: str | None = None,
    deploy: str | None = None,
) -> int:
    """A view or a virtual repository."""
    kernel = session.kernel
    make_directories(session, name)
    ino = kernel.inode(name).ino
    run_inline(session.fs.group.begin())
    row = RepositoryRow(ino, kind, layout, kernel.inode(deploy).ino if deploy else None, "{}")
    session.store.namespace.repositories.set(row, [kernel.inode(member).ino for member in members])
    registry_of(session.fs).read()
    run_inline(follower_of(session.fs).drain())
    return ino


def files(kernel: Kernel, path: str) -> dict[str, bytes]:
    """Path below -> content of all files."""
    return dict(_files(kernel, path, ""))


def _files(kernel: Kernel, top: str, below: str) -> Iterator[tuple[str, bytes]]:
    for name in kernel.names(f"{top}/{below}"):
        path = f"{below}/{name.decode()}".lstrip("/")
        if kernel.inode(f"{top}/{path}").is_directory:
            yield from _files(kernel, top, path)
        else:
            yield path, kernel.read_file(f"{top}/{path}")


@pytest.fixture
def libs(session: Session) -> Session:
    """A Maven repository with one artifact and something else, and a view of it as Ivy has it."""
    make_repository(session, "libs")
    make_directories(session, "libs/org/acme/app/1.0")
    session.kernel.write_file(f"libs/{JAR}", b"jar")
    session.kernel.write_file("libs/notes", b"no artifact")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    return session


def fails(number: int, call: object, *words: object) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        call(*words)  # type: ignore[operator]
    assert raised.value.errno == number


def test_a_view_shows_what_parses_in_its_own_layout(libs: Session) -> None:
    assert files(libs.kernel, "ivy") == {IVY_JAR: b"jar"}
    assert libs.kernel.inode(f"ivy/{IVY_JAR}") is libs.kernel.inode(f"libs/{JAR}")
    assert libs.reopen().inode(f"ivy/{IVY_JAR}").nlink == 1


def test_two_names_of_a_file_in_one_directory_are_both_listed_wherever_the_listing_goes_on(
    libs: Session,
) -> None:
    kernel = libs.kernel
    make_turned(libs)
    for members in (["libs", "turned"], ["turned", "libs"]):
        make_tree(libs, "both", "virtual", members)
        listed = list(kernel.list("both/org/acme/app/1.0"))
        assert {name for _, name, _ in listed} == {b"app-1.0.jar", b"1.0-app.jar"}
        assert len({ino for _, _, ino in listed}) == 1
        for position, (cookie, _, _) in enumerate(listed):
            assert list(kernel.list("both/org/acme/app/1.0", cookie)) == listed[position + 1 :]
    libs.stop()
    assert check(str(libs.path)).problems == ()


def make_turned(session: Session) -> None:
    """A view of `libs` in whose directories its files have other names."""
    pattern = "[orgPath]/[module]/[baseRev]/[baseRev]-[module](-[classifier]).[ext]"
    run_inline(session.fs.group.begin())
    row = LayoutRow("turned", to_toml([Definition(name="turned", artifact=pattern)]))
    session.store.namespace.repositories.set_layout(row)
    make_tree(session, "turned", "view", ["libs"], "turned")


def test_a_view_is_current_at_once(libs: Session) -> None:
    kernel = libs.kernel
    kernel.rename(f"libs/{JAR}", "libs/org/acme/app/1.0/app-1.0-sources.jar")
    assert list(files(kernel, "ivy")) == ["org.acme/app/1.0/jars/app-sources-1.0.jar"]
    kernel.rename("libs/org/acme", "libs/org/other")
    run_inline(follower_of(libs.fs).drain())
    assert list(files(kernel, "ivy")) == ["org.other/app/1.0/jars/app-sources-1.0.jar"]
    kernel.unlink("libs/org/other/app/1.0/app-1.0-sources.jar")
    assert kernel.names("ivy") == []


def test_what_is_made_through_a_view_is_made_in_the_repository(libs: Session) -> None:
    kernel = libs.kernel
    make_directories(libs, "ivy/org.acme/app/2.0/jars")
    kernel.write_file("ivy/org.acme/app/2.0/jars/app-2.0.jar", b"two")
    assert kernel.read_file("libs/org/acme/app/2.0/app-2.0.jar") == b"two"
    assert files(kernel, "ivy")["org.acme/app/2.0/jars/app-2.0.jar"] == b"two"
    kernel.unlink("ivy/org.acme/app/2.0/jars/app-2.0.jar")
    fails(errno.ENOENT, kernel.inode, "libs/org/acme/app/2.0/app-2.0.jar")
    for path in ("ivy/org.acme/app/2.0/jars", "ivy/org.acme/app/2.0"):
        kernel.rmdir(path)
    assert kernel.names("ivy/org.acme/app") == [b"1.0"]


def test_a_temporary_name_in_a_view_is_seen_and_may_be_renamed(libs: Session) -> None:
    kernel = libs.kernel
    kernel.mkdir("ivy/org.acme/app/2.0")
    kernel.mkdir("ivy/org.acme/app/2.0/jars")
    kernel.write_file("ivy/org.acme/app/2.0/jars/.app-2.0.jar.Xy12", b"two")
    assert b".app-2.0.jar.Xy12" in kernel.names("ivy/org.acme/app/2.0/jars")
    kernel.rename("ivy/org.acme/app/2.0/jars/.app-2.0.jar.Xy12", "ivy/org.acme/app/2.0/jars/app-2.0.jar")
    assert kernel.names("ivy/org.acme/app/2.0/jars") == [b"app-2.0.jar"]
    assert kernel.read_file("libs/org/acme/app/2.0/app-2.0.jar") == b"two"


def test_a_virtual_repository_shows_its_members_in_order(session: Session) -> None:
    kernel = session.kernel
    for name in ("first", "second"):
        make_directories(session, f"{name}/d")
        kernel.write_file(f"{name}/d/both", name.encode())
        kernel.write_file(f"{name}/d/{name}", b"own")
    kernel.mkdir("second/empty")
    make_tree(session, "all", "virtual", ["first", "second"], deploy="second")
    assert files(kernel, "all") == {"d/both": b"first", "d/first": b"own", "d/second": b"own"}
    assert kernel.names("all/empty") == []
    kernel.unlink("first/d/both")
    assert kernel.read_file("all/d/both") == b"second"
    kernel.write_file("all/d/new", b"new")
    kernel.mkdir("all/made")
    assert kernel.read_file("second/d/new") == b"new"
    assert kernel.inode("second/made").is_directory
    kernel.rmdir("all/made")
    fails(errno.ENOENT, kernel.inode, "second/made")
    session.reopen()
    assert set(files(session.kernel, "all")) == {"d/both", "d/first", "d/second", "d/new"}


def test_what_lies_in_other_repositories_than_the_deployment_repository_stays(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = session.kernel
    for name in ("first", "second"):
        make_directories(session, f"{name}/d")
        kernel.write_file(f"{name}/d/both", name.encode())
        kernel.write_file(f"{name}/d/{name}", b"own")
    make_tree(session, "all", "virtual", ["first", "second"], deploy="first")
    fails(errno.EROFS, kernel.unlink, "all/d/second")
    assert "repository all: d/second is refused, EROFS: it lies in another repository" in caplog.text
    fails(errno.EROFS, kernel.rename, "all/d/second", "all/d/moved")
    fails(errno.EROFS, kernel.rename, "all/d/first", "all/d/second")
    kernel.rename("all/d/first", "all/d/moved")
    assert sorted(kernel.names("first/d")) == [b"both", b"moved"]
    kernel.rename("all/d/moved", "all/d/both")
    assert kernel.read_file("first/d/both") == b"own"
    kernel.unlink("all/d/both")
    assert kernel.read_file("all/d/both") == b"second"
    fails(errno.EROFS, kernel.unlink, "all/d/both")
    assert files(kernel, "second") == {"d/both": b"second", "d/second": b"own"}


def test_an_emptied_directory_of_a_virtual_repository_goes_with_that_of_the_repository(
    session: Session,
) -> None:
    kernel = session.kernel
    make_directories(session, "first/d/e")
    kernel.write_file("first/d/file", b"")
    make_tree(session, "all", "virtual", ["first"], deploy="first")
    kernel.unlink("all/d/file")
    kernel.rmdir("all/d/e")
    assert kernel.names("all") == [b"d"]
    kernel.rmdir("first/d")
    assert kernel.names("all") == []


def test_what_a_view_does_not_show_is_not_replaced_through_it(
    libs: Session, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = libs.kernel
    kernel.symlink("elsewhere", "libs/org/acme/app/1.0/app-1.0-sources.jar")
    kernel.write_file("ivy/temporary", b"new")
    for name in ("notes", "org.acme/app/1.0/jars/app-sources-1.0.jar"):
        fails(errno.ENOENT, kernel.inode, f"ivy/{name}")
        fails(errno.EEXIST, kernel.rename, "ivy/temporary", f"ivy/{name}")
        fails(errno.EEXIST, kernel.write_file, f"ivy/{name}", b"new")
    assert "repository ivy: notes is refused, EEXIST: the repository has that name" in caplog.text
    assert kernel.read_file("libs/notes") == b"no artifact"
    assert kernel.readlink("libs/org/acme/app/1.0/app-1.0-sources.jar") == b"elsewhere"
    kernel.rename("ivy/temporary", f"ivy/{IVY_JAR}")
    assert kernel.read_file(f"libs/{JAR}") == b"new"


def test_what_could_not_be_emptied_goes_when_it_is_emptied_elsewhere(libs: Session) -> None:
    kernel = libs.kernel
    make_repository(libs, "libs", with_rules=Rules(immutable=True))
    fails(errno.EPERM, kernel.unlink, f"ivy/{IVY_JAR}")
    make_repository(libs, "libs", with_rules=Rules())
    kernel.unlink(f"libs/{JAR}")
    assert kernel.names("ivy") == []


def test_directories_of_a_view_that_are_emptied_one_by_one_stay_until_they_are_removed(
    libs: Session,
) -> None:
    kernel = libs.kernel
    kernel.unlink(f"ivy/{IVY_JAR}")
    for path in ("jars", "1.0", "app", "org.acme"):
        above = IVY_JAR[: IVY_JAR.index(f"{path}/")]
        assert kernel.names(f"ivy/{above}") == [path.encode()]
        kernel.rmdir(f"ivy/{above}{path}")
        assert kernel.names(f"ivy/{above}") == []
    assert kernel.names("libs") == [b"notes"]


def test_a_virtual_repository_without_a_deployment_repository_is_read_only(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = session.kernel
    make_directories(session, "first/d")
    make_directories(session, "first/e")
    kernel.write_file("first/e/there", b"there")
    make_tree(session, "all", "virtual", ["first"])
    fails(errno.EROFS, kernel.write_file, "all/d/file", b"")
    fails(errno.EROFS, kernel.unlink, "all/e/there")
    fails(errno.EROFS, kernel.rename, "all/e/there", "all/e/other")
    assert kernel.names("first/e") == [b"there"]
    fails(errno.EROFS, kernel.mkdir, "all/d/more")
    fails(errno.EROFS, kernel.rmdir, "all/d")
    fails(errno.EROFS, kernel.link, "first/e/there", "all/e/linked")
    fails(errno.EROFS, kernel.symlink, "there", "all/e/symlink")
    assert "repository all: d is refused, EROFS: there is no repository that takes" in caplog.text


def test_whole_trees_are_copied_and_moved_by_rows_neither_into_a_view_nor_out_of_it(libs: Session) -> None:
    kernel = libs.kernel

    def attempt(verb: str, source: str, destination: str) -> None:
        origin, target = source.encode(), destination.encode()
        if verb == "cp":
            run_inline(copy.copy(libs.fs, origin, target, recursive=True))
        else:
            run_inline(copy.move(libs.fs, origin, target))

    before = {name: files(kernel, name) for name in ("libs", "ivy")}
    make_directories(libs, "plain")
    for source, destination in (
        ("ivy", "copy"),
        ("ivy/org.acme", "plain"),
        ("libs/org", "ivy/new"),
        ("libs/notes", "ivy"),
    ):
        fails(errno.EXDEV, attempt, "cp", source, destination)
        if source != "ivy":
            fails(errno.EXDEV, attempt, "mv", source, destination)
    assert {name: files(kernel, name) for name in ("libs", "ivy")} == before
    assert kernel.names("plain") == []
    attempt("cp", f"ivy/{IVY_JAR}", "plain")
    assert files(kernel, "plain") == {"app-1.0.jar": b"jar"}
    attempt("mv", f"ivy/{IVY_JAR}", "ivy/org.acme/app/1.0/jars/app-sources-1.0.jar")
    assert "org/acme/app/1.0/app-1.0-sources.jar" in files(kernel, "libs")


@pytest.mark.parametrize("verb", ["cp", "mv"])
def test_a_file_that_a_tree_shows_is_replaced_where_it_is(libs: Session, verb: str) -> None:
    kernel = libs.kernel
    kernel.write_file("new", b"new")
    if verb == "cp":
        run_inline(copy.copy(libs.fs, b"new", f"ivy/{IVY_JAR}".encode(), recursive=False))
    else:
        run_inline(copy.move(libs.fs, b"new", f"ivy/{IVY_JAR}".encode()))
    assert kernel.read_file(f"libs/{JAR}") == kernel.read_file(f"ivy/{IVY_JAR}") == b"new"
    make_tree(libs, "all", "virtual", ["libs"])
    fails(errno.EROFS, run_inline, copy.copy(libs.fs, b"libs/notes", f"all/{JAR}".encode(), recursive=False))


def test_what_lies_below_a_directory_that_is_closed_is_not_shown(libs: Session) -> None:
    kernel = libs.kernel
    kernel.chmod("libs/org/acme", 0o700)
    run_inline(follower_of(libs.fs).drain())
    assert files(kernel, "ivy") == {}
    kernel.chmod("libs/org/acme", 0o755)
    run_inline(follower_of(libs.fs).drain())
    assert files(kernel, "ivy") == {IVY_JAR: b"jar"}


def test_a_tree_that_is_gone_leaves_nothing(libs: Session) -> None:
    ino = libs.kernel.inode("ivy").ino
    run_inline(libs.fs.group.begin())
    libs.store.namespace.repositories.remove(ino)
    registry_of(libs.fs).read()
    run_inline(follower_of(libs.fs).drain())
    assert libs.kernel.names("ivy") == []
    assert not libs.store.namespace.query("SELECT 1 FROM derived").fetchall()
    libs.kernel.rmdir("ivy")


def test_a_repository_and_a_view_of_it_in_one_virtual_repository(libs: Session) -> None:
    """Each name of the repository had only one in the tree."""
    make_tree(libs, "all", "virtual", ["libs", "ivy"], deploy="libs")
    assert set(files(libs.kernel, "all")) == {JAR, IVY_JAR, "notes"}
    libs.kernel.unlink(f"libs/{JAR}")
    assert set(files(libs.kernel, "all")) == {"notes"}


@pytest.mark.parametrize("path", ["libs/org/acme", "ivy/org.acme"])
def test_a_directory_whose_inode_is_missing_keeps_no_commit_from_being_made(
    libs: Session, path: str, scratch: Path
) -> None:
    """Only who writes the database himself can take it away."""
    libs.kernel.sync()
    copy_store(libs.path, scratch / "copy")
    damaged = Session(scratch / "copy")
    app = damaged.kernel.inode("libs/org/acme/app/1.0").ino
    ino = damaged.kernel.inode(path).ino
    damaged.store.namespace.query("DELETE FROM inode WHERE ino = ?", (ino,)).fetchall()
    damaged.store.namespace.repositories.note([(app, b"app-1.0.jar")])
    damaged.abandon()
    damaged = Session(scratch / "copy")
    run_inline(follower_of(damaged.fs).drain())
    damaged.kernel.write_file("file", b"content")
    damaged.kernel.sync()
    damaged.stop()
    assert Session(scratch / "copy").kernel.read_file("file") == b"content"


def test_virtual_repositories_in_diamonds(session: Session) -> None:
    """To find out what they show took twice as long for each."""
    kernel = session.kernel
    names = ["r0", "r1"]
    for name in names:
        make_directories(session, name)
    kernel.write_file("r0/file", b"content")
    for number in range(2, 60):
        names.append(f"r{number}")
        make_tree(session, names[-1], "virtual", names[-3:-1])
    assert files(kernel, names[-1]) == {"file": b"content"}


def test_views_of_views_and_virtual_repositories(libs: Session) -> None:
    kernel = libs.kernel
    make_repository(libs, "more")
    make_directories(libs, "more/org/more/lib/3.0")
    kernel.write_file("more/org/more/lib/3.0/lib-3.0.jar", b"lib")
    make_tree(libs, "all", "virtual", ["libs", "more"], deploy="more")
    make_tree(libs, "gradle", "view", ["all"], "gradle-default")
    make_tree(libs, "again", "view", ["gradle"], "ivy-default")
    assert set(files(kernel, "again")) == {IVY_JAR, "org.more/lib/3.0/jars/lib-3.0.jar"}
    kernel.mkdir("again/org.new")
    make_directories(libs, "again/org.new/x/1/jars")
    kernel.write_file("again/org.new/x/1/jars/x-1.jar", b"new")
    assert kernel.read_file("more/org/new/x/1/x-1.jar") == b"new"
    with pytest.raises(FsError):
        kernel.inode("libs/org/new")


def test_a_directory_that_is_made_closed_in_a_virtual_repository_is_as_open_as_that(session: Session) -> None:
    """As cp(1) makes one, which cannot open it afterwards."""
    kernel = session.kernel
    for name in ("own", "all"):
        make_directories(session, name)
    kernel.chmod("all", 0o750)
    make_repository(session, "own", None)
    make_tree(session, "all", "virtual", ["own"], deploy="own")
    for path in ("all/d", "all/d/e"):
        kernel.mkdir(path, 0o700)
        assert kernel.inode(path).mode & 0o7777 == 0o750
    assert kernel.inode("own/d/e").mode & 0o7777 == 0o750
    kernel.write_file("all/d/e/f", b"content")
    assert files(kernel, "all") == {"d/e/f": b"content"}
