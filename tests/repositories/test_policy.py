"""What rules of repositories refuse, and what they leave alone."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.attributes import Changes
from casfs.fs.scheduler import run_inline
from casfs.repositories import guard
from casfs.repositories.filesystem import policy_of, registry_of
from casfs.repositories.rules import Rules
from tests.kernel import Kernel
from tests.repositories.making import make_directories, make_repository
from tests.session import Session

PLACE = "libs/org/acme/app/1.0"
JAR = f"{PLACE}/app-1.0.jar"
SNAPSHOT = "libs/org/acme/app/1.1-SNAPSHOT/app-1.1-SNAPSHOT.jar"


def fails(number: int, verb: Callable[..., object], *args: object) -> None:
    with pytest.raises(FsError) as raised:
        verb(*args)
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


def directory_of(path: str) -> str:
    return path.rpartition("/")[0]


# Paths


@pytest.fixture
def excluding(session: Session, kernel: Kernel) -> Kernel:
    make_directories(session, "libs/a")
    kernel.write_file("libs/old.exe", b"was there before")
    kernel.write_file("x", b"x")
    make_repository(session, "libs", None, Rules(exclude=("**/*.exe", "private/")))
    return kernel


def test_excluded_names_are_not_given(excluding: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel = excluding
    for path in ("libs/a.exe", "libs/a/b.exe"):
        fails(errno.EACCES, kernel.write_file, path, b"")
        fails(errno.EACCES, kernel.symlink, "x", path)
        fails(errno.EACCES, kernel.link, "x", path)
        fails(errno.EACCES, kernel.rename, "x", path)
        fails(
            errno.EACCES,
            lambda path=path: run_inline(copy.copy(kernel.fs, b"x", path.encode(), recursive=False)),
        )
    line = "repository libs: a/b.exe is refused, EACCES: it is excluded by '**/*.exe'"
    assert line in caplog.messages
    kernel.mkdir("libs/d.exe")
    kernel.write_file("libs/d.exe/a", b"a directory of that name is none of the files meant")
    kernel.write_file("libs/old.exe", b"what is there may be written")
    kernel.rename("libs/old.exe", "libs/old")
    kernel.write_file("other.exe", b"outside")


def test_a_directory_below_which_nothing_may_be_is_not_made(excluding: Kernel) -> None:
    fails(errno.EACCES, excluding.mkdir, "libs/private")
    fails(errno.EACCES, excluding.rename, "libs/a", "libs/private")
    excluding.mkdir("libs/a/private")


def test_a_directory_brings_no_excluded_files(excluding: Kernel, session: Session) -> None:
    make_directories(session, "out/deep/er")
    excluding.write_file("out/deep/er/x.exe", b"x")
    fails(errno.EACCES, excluding.rename, "out", "libs/in")
    fails(errno.EACCES, lambda: run_inline(copy.copy(excluding.fs, b"out", b"libs", recursive=True)))
    excluding.rename("out/deep/er/x.exe", "out/deep/er/x")
    run_inline(copy.copy(excluding.fs, b"out", b"libs/a", recursive=True))
    excluding.rename("out", "libs/in")
    assert excluding.read_file("libs/in/deep/er/x") == excluding.read_file("libs/a/out/deep/er/x") == b"x"


def test_what_is_exchanged_comes_at_both_ends(excluding: Kernel) -> None:
    excluding.write_file("y.exe", b"y")
    excluding.write_file("libs/z", b"z")
    fails(errno.EACCES, excluding.rename, "libs/z", "libs/a.exe")
    excluding.write_file("libs/a/b", b"b")
    excluding.rename("y.exe", "libs/z", 2)
    fails(errno.EACCES, excluding.rename, "libs/a/b", "libs/old.exe", 2)


def test_more_than_can_be_looked_at_is_moved_singly(
    excluding: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LIMIT", 3)
    excluding.mkdir("out")
    for number in range(3):
        excluding.write_file(f"out/{number}", b"")
    excluding.rename("out", "libs/in")
    excluding.write_file("libs/in/3", b"")
    fails(errno.EXDEV, excluding.rename, "libs/in", "libs/other")
    excluding.rename("libs/in", "out")


def test_names_that_take_long_are_moved_singly(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True, snapshots=False))
    make_directories(session, "out/org/acme/app/1.0")
    for number in range(4):
        kernel.write_file(f"out/org/acme/app/1.0/{number}", b"")
    monkeypatch.setattr(guard, "kind_of", lambda *_: busy(0.02))
    monkeypatch.setattr(guard, "SECONDS", 0.03)
    fails(errno.EXDEV, kernel.rename, "out/org", "libs/org")
    monkeypatch.setattr(guard, "SECONDS", 10.0)
    kernel.rename("out/org", "libs/org")
    monkeypatch.setattr(guard, "SECONDS", 0.03)
    place = "libs/org/acme/app/1.0"
    kernel.write_file(f"{place}/0", b"content")
    for number in range(4):
        kernel.link(f"{place}/0", f"{place}/link{number}")
    fails(errno.EPERM, kernel.write_file, f"{place}/0", b"")
    kernel.write_file(f"{place}/1", b"")


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_file_has_no_more_names_than_can_be_looked_at(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LINKS", 2)
    kernel.write_file("a", b"")
    make_repository(session, "libs", None, Rules(exclude=("*.exe",)))
    kernel.link("a", "b")
    kernel.link("a", "c")
    make_repository(session, "libs", None, Rules(quota_files=1))
    fails(errno.EMLINK, kernel.link, "a", "d")


def test_only_what_is_included_may_be_there(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs", None, Rules(include=("org/**/*.jar", "*.txt")))
    fails(errno.EACCES, kernel.mkdir, "libs/com")
    make_directories(session, "libs/org/acme")
    fails(errno.EACCES, kernel.write_file, "libs/org/acme/a.zip", b"")
    kernel.write_file("libs/org/acme/a.jar", b"jar")
    kernel.write_file("libs/a.txt", b"text")
    with kernel.open_unnamed("libs") as file:
        file.write(b"it gets its name later")
        fails(errno.EACCES, kernel.link_file, file, "libs/a.zip")
        kernel.link_file(file, "libs/b.txt")


def test_rules_are_read_at_once(session: Session, kernel: Kernel) -> None:
    make_repository(session, "libs")
    kernel.write_file("libs/a.exe", b"")
    make_repository(session, "libs", None, Rules(exclude=("*.exe",)))
    fails(errno.EACCES, kernel.write_file, "libs/b.exe", b"")
    make_repository(session, "libs", None, Rules())
    kernel.write_file("libs/b.exe", b"")
    make_repository(session, "libs", None, Rules(exclude=("*.exe",)))
    kernel.rename("libs", "renamed")
    fails(errno.EACCES, kernel.write_file, "renamed/c.exe", b"")
    session.reopen()
    fails(errno.EACCES, session.kernel.write_file, "renamed/c.exe", b"")


def test_nobody_gets_past_the_rules_by_going_deep(session: Session, kernel: Kernel) -> None:
    make_directories(session, "/".join(["out"] + ["d"] * 200))
    make_repository(session, "libs", None, Rules(exclude=("**/*.exe",)))
    deep = "libs/" + "/".join(["d"] * 254)
    make_directories(session, deep)
    kernel.write_file(f"{deep}/a", b"")
    fails(errno.EACCES, kernel.write_file, f"{deep}/a.exe", b"")
    make_directories(session, f"{deep}/d/d/d")
    fails(errno.ENOENT, kernel.inode, f"{deep}/d/d/d")
    fails(errno.ENAMETOOLONG, kernel.write_file, f"{deep}/d/d/a.exe", b"")
    fails(errno.ENAMETOOLONG, kernel.rename, "out", "libs/" + "/".join(["d"] * 100))


# Kinds


@pytest.mark.parametrize(
    ("layout", "release", "snapshot"),
    [
        ("maven-2-default", JAR, SNAPSHOT),
        ("npm-default", "libs/app/-/app-1.0.0.tgz", "libs/app/-/app-1.1.0-beta.1.tgz"),
    ],
)
def test_a_kind_that_is_not_handled_is_refused(
    session: Session, kernel: Kernel, layout: str, release: str, snapshot: str
) -> None:
    for path in (release, snapshot):
        make_directories(session, directory_of(path))
    kernel.write_file("x", b"x")
    for rules, refused, taken in (
        (Rules(releases=False), release, snapshot),
        (Rules(snapshots=False), snapshot, release),
    ):
        make_repository(session, "libs", layout, rules)
        for name in (refused, f"{refused}.sha1"):
            fails(errno.EACCES, kernel.write_file, name, b"")
            fails(errno.EACCES, kernel.link, "x", name)
            fails(errno.EACCES, kernel.rename, "x", name)
        kernel.write_file(taken, b"taken")
        kernel.unlink(taken)
        kernel.write_file(f"{refused}.part", b"a temporary name")
        fails(errno.EACCES, kernel.rename, f"{refused}.part", refused)
        kernel.write_file("libs/readme", b"neither")


# Read-only


def test_nothing_changes_in_a_read_only_repository(session: Session, kernel: Kernel) -> None:
    make_directories(session, "libs/d/e")
    for name in ("libs/a", "libs/d/b", "out"):
        kernel.write_file(name, b"content")
    kernel.setxattr("libs/a", b"user.x", b"1")
    make_repository(session, "libs", None, Rules(read_only=True))
    before = kernel.tree()
    with kernel.open_unnamed() as unnamed:
        for attempt in (
            lambda: kernel.write_file("libs/new", b""),
            lambda: kernel.open_unnamed("libs/d"),
            lambda: kernel.mkdir("libs/new"),
            lambda: kernel.symlink("x", "libs/new"),
            lambda: kernel.link("out", "libs/new"),
            lambda: kernel.link("libs/a", "new"),
            lambda: kernel.link_file(unnamed, "libs/new"),
            lambda: kernel.open("libs/a", os.O_RDWR),
            lambda: kernel.open("libs/a", os.O_RDONLY | os.O_TRUNC),
            lambda: kernel.truncate("libs/a", 1),
            lambda: kernel.chmod("libs/a", 0o600),
            lambda: kernel.chmod("libs", 0o700),
            lambda: kernel.chown("libs/d", 1, 1),
            lambda: kernel.utime("libs/a", 1, 1),
            lambda: kernel.setxattr("libs/a", b"user.y", b"1"),
            lambda: kernel.removexattr("libs/a", b"user.x"),
            lambda: kernel.unlink("libs/a"),
            lambda: kernel.rmdir("libs/d/e"),
            lambda: kernel.rename("libs/a", "new"),
            lambda: kernel.rename("libs/d", "new"),
            lambda: kernel.rename("out", "libs/new"),
            lambda: kernel.rename("out", "libs/a"),
            lambda: kernel.rename("libs/a", "libs/d/a"),
            lambda: kernel.rename("out", "libs/a", 2),
            lambda: run_inline(copy.copy(kernel.fs, b"out", b"libs/a", recursive=False)),
            lambda: run_inline(copy.copy(kernel.fs, b"out", b"libs/new", recursive=False)),
        ):
            fails(errno.EROFS, attempt)
    assert kernel.tree() == before
    assert kernel.read_file("libs/a") == b"content"
    kernel.rename("libs", "renamed")
    kernel.write_file("elsewhere", b"")
    make_repository(session, "renamed", None, Rules())
    kernel.unlink("renamed/a")


# Immutable releases


@pytest.fixture
def immutable(session: Session, kernel: Kernel) -> Kernel:
    for path in (PLACE, directory_of(SNAPSHOT), "out"):
        make_directories(session, path)
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    kernel.write_file("out/x", b"other")
    return kernel


def test_a_release_stays_what_and_where_it_is(
    immutable: Kernel, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = immutable
    for name in (JAR, f"{JAR}.sha1"):
        kernel.write_file(name, b"release")
        kernel.write_file("out/x", b"other")
        for _ in range(2):
            for attempt in (
                lambda name=name: kernel.write_file(name, b"x"),
                lambda name=name: kernel.open(name, os.O_WRONLY),
                lambda name=name: kernel.open(name, os.O_RDONLY | os.O_TRUNC),
                lambda name=name: kernel.truncate(name, 0),
                lambda name=name: kernel.unlink(name),
                lambda name=name: kernel.rename(name, f"{PLACE}/renamed"),
                lambda name=name: kernel.rename(name, "out/moved"),
                lambda name=name: kernel.rename("out/x", name),
                lambda name=name: kernel.rename("out/x", name, 2),
                lambda name=name: kernel.rename(name, "out/x", 2),
                lambda name=name: run_inline(copy.copy(kernel.fs, b"out/x", name.encode(), recursive=False)),
                lambda: kernel.rename(PLACE, "libs/org/acme/app/2.0"),
                lambda: kernel.rename("libs/org", "org"),
                lambda: kernel.rename("out", "libs/org", 2),
            ):
                fails(errno.EPERM, attempt)
            assert kernel.read_file(name) == b"release"
            session.rest()
    kernel.chmod(JAR, 0o400)
    kernel.utime(JAR, 1, 1)
    kernel.setxattr(JAR, b"user.built.by", b"me")
    kernel.link(JAR, "out/linked")
    fails(errno.EPERM, kernel.write_file, "out/linked", b"the content of a release, by another name")
    kernel.unlink("out/linked")
    kernel.rename("libs", "renamed")
    assert "repository libs: org/acme/app/1.0/app-1.0.jar is refused, EPERM" in caplog.text
    fails(errno.EPERM, session.reopen().unlink, JAR.replace("libs", "renamed"))


def test_a_release_may_be_made_in_every_usual_way(immutable: Kernel) -> None:
    kernel = immutable
    with kernel.open(JAR, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
        file.write(b"first")
        file.flush()
        file.truncate(2)
        file.write(b"second", 2)
        kernel.set(file.stat(), Changes(mode=0o600, mtime=1), file.handle)
    fails(errno.EPERM, kernel.truncate, JAR, 1)
    for number, temporary in enumerate(
        ("out/x", f"{PLACE}/.app-1.0-a.jar.Xy12", f"{PLACE}/app-1.0-b.jar.tmp")
    ):
        kernel.write_file(temporary, b"")
        kernel.write_file(temporary, b"whole")
        kernel.rename(temporary, f"{PLACE}/app-1.0-{number}.jar")
    empty = f"{PLACE}/app-1.0-empty.jar"
    kernel.write_file(empty, b"")
    kernel.unlink(empty)
    kernel.write_file(empty, b"")
    kernel.write_file(empty, b"now it is one")
    fails(errno.EPERM, kernel.unlink, empty)


def test_what_is_no_release_changes_as_it_did(immutable: Kernel) -> None:
    kernel = immutable
    for path in (SNAPSHOT, "libs/maven-metadata.xml", "libs/readme"):
        kernel.write_file(path, b"1")
        kernel.write_file(path, b"2")
        kernel.rename(path, "out/moved")
        kernel.rename("out/moved", path)
        kernel.unlink(path)
    kernel.rename("libs/org", "libs/com")


# Repositories themselves


def test_a_repository_stays_in_the_root(session: Session, kernel: Kernel) -> None:
    for name in ("libs", "out", "out/sub", "empty"):
        kernel.mkdir(name)
    ino = make_repository(session, "libs")
    for attempt in (
        lambda: kernel.rename("libs", "out/libs"),
        lambda: kernel.rename("libs", "out/sub", 2),
        lambda: kernel.rename("out/sub", "libs", 2),
        lambda: kernel.rename("out/sub", "libs"),
    ):
        fails(errno.EBUSY, attempt)
    kernel.rename("libs", "out", 2)
    assert kernel.inode("out").ino == ino
    kernel.rename("libs", "out", 2)
    kernel.rename("libs", "empty")
    assert registry_of(session.fs).repositories.keys() == {ino}
    kernel.rename("out", "libs")


def test_a_repository_goes_with_its_directory(session: Session, kernel: Kernel) -> None:
    libs, plugins = make_repository(session, "libs"), make_repository(session, "plugins")
    every = make_repository(session, "all", None, kind="virtual", members=(libs,), deploy=plugins)
    for name in ("libs", "plugins", "all"):
        fails(errno.EBUSY, kernel.rmdir, name)
    make_repository(session, "all", None, kind="virtual")
    kernel.write_file("libs/a", b"")
    fails(errno.ENOTEMPTY, kernel.rmdir, "libs")
    kernel.unlink("libs/a")
    kernel.rmdir("libs")
    assert registry_of(session.fs).repositories.keys() == {plugins, every}
    session.reopen()
    assert registry_of(session.fs).repositories.keys() == {plugins, every}


def test_a_store_without_rules_has_only_the_checks_of_the_trash(session: Session) -> None:
    policy = policy_of(session.fs)
    names = ("check_add", "check_write", "check_link", "check_attributes", "check_remove", "check_move")
    assert {getattr(policy, name).__self__ for name in names} == {policy.trash}
    make_repository(session, "libs")
    assert {getattr(policy, name).__self__ for name in names[:4]} == {policy.trash}
    assert policy.resizes is None
    assert session.fs.inodes.watcher is None
