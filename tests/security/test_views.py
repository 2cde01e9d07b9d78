"""Nobody reaches through a view or a virtual repository what he cannot reach at its source."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mounted.mounts import Mount, asked
from tests.mounted.shown import Shown, contents, put, run
from tests.security.attempts import became
from tests.security.users import (
    GROUP_OBJ,
    MASK,
    OTHER,
    OTHERS,
    OWNER,
    TEAM,
    USER,
    USER_OBJ,
    access_list,
    as_user,
    renameat2,
)

pytestmark = pytest.mark.mounted

SECRET = "org/acme/app/1.0/app-1.0.jar"
THROUGH_VIEW = "org.acme/app/1.0/jars/app-1.0.jar"


@pytest.fixture
def shown(shared: Mount, request: pytest.FixtureRequest) -> Shown:
    """For everybody to look into; with an artifact."""
    shown = Shown(shared, re.sub(r"\W", "-", request.node.name)[:100] + "-")
    put(shown.libs / SECRET, b"secret")
    put(shown.more / "d/e/plain", b"secret")
    return shown


def close_by_mode(directory: Path) -> None:
    directory.chmod(0o700)


def close_to_a_group(directory: Path) -> None:
    os.chown(directory, 0, TEAM)
    directory.chmod(0o750)


def close_for_looking(directory: Path) -> None:
    directory.chmod(0o711)


def close_by_list(directory: Path) -> None:
    entries = (USER_OBJ, 7), (USER, 0, OTHER), (GROUP_OBJ, 5), (MASK, 7), (OTHERS, 5)
    os.setxattr(directory, "system.posix_acl_access", access_list(*entries))


CLOSE = [close_by_mode, close_to_a_group, close_for_looking, close_by_list]


def sees(tree: Path, *paths: str) -> Callable[[], Any]:
    """What somebody finds by looking, and by names that he knows."""

    def look() -> list[Any]:
        found = sorted(contents(tree))
        known = became(*((lambda path=path: os.stat(tree / path)) for path in paths))
        opened = became(*((lambda path=path: os.close(os.open(tree / path, os.O_RDONLY))) for path in paths))
        return [found, known, opened]

    return look


def assert_hidden(shown: Shown) -> None:
    for tree, path in ((shown.ivy, THROUGH_VIEW), (shown.all, SECRET), (shown.all, "d/e/plain")):
        found, known, opened = as_user(OTHER, sees(tree, path))
        assert os.fsencode(path) not in found
        assert (known, opened) == (["ENOENT"], ["ENOENT"])


def assert_seen(shown: Shown) -> None:
    assert as_user(OTHER, sees(shown.ivy, THROUGH_VIEW)) == [[THROUGH_VIEW.encode()], ["ok"], ["ok"]]
    expected = [[b"d/e/plain", SECRET.encode()], ["ok"] * 2, ["ok"] * 2]
    assert as_user(OTHER, sees(shown.all, "d/e/plain", SECRET)) == expected


@pytest.mark.parametrize("close", CLOSE)
@pytest.mark.parametrize("levels", [("", ""), ("org", "d"), ("org/acme/app/1.0", "d/e")])
def test_what_is_closed_is_hidden_also_from_who_has_looked_before(
    shown: Shown, close: Callable[[Path], None], levels: tuple[str, str]
) -> None:
    for _ in range(2):
        assert_seen(shown)
        places = shown.libs / levels[0], shown.more / levels[1]
        for place in places:
            close(place)
        assert_hidden(shown)
        for place in places:
            os.chown(place, 0, 0)
            if close is close_by_list:
                os.removexattr(place, "system.posix_acl_access")
            place.chmod(0o755)
    assert_seen(shown)


def test_what_is_moved_below_what_is_closed_is_hidden_and_shown_again(shown: Shown) -> None:
    assert_seen(shown)
    for top, name in ((shown.libs, "org"), (shown.more, "d")):
        (top / "closed").mkdir(mode=0o700)
        os.rename(top / name, top / "closed" / name)
    assert_hidden(shown)
    for top, name in ((shown.libs, "org"), (shown.more, "d")):
        os.rename(top / "closed" / name, top / name)
    assert_seen(shown)
    put(shown.libs / "closed/org/acme/b/1/b-1.jar")
    put(shown.more / "closed/new")
    assert_seen(shown)


def test_who_is_inside_is_shut_out(shown: Shown) -> None:
    """With a working directory and a descriptor in the tree."""

    def look() -> list[Any]:
        os.chdir(shown.all / "d/e")
        directory = os.open(shown.all / "d", os.O_RDONLY)
        before = sorted(os.listdir(".")), sorted(os.listdir(directory))
        os.write(ready[1], b".")
        os.read(closed[0], 1)
        after = became(
            lambda: os.stat("plain"),
            lambda: os.close(os.open("plain", os.O_RDONLY)),
            lambda: os.stat("e/plain", dir_fd=directory),
            lambda: os.close(os.open("new", os.O_CREAT | os.O_WRONLY)),
        )
        listed = []
        for place in (".", directory):
            try:
                listed += os.listdir(place)
            except FileNotFoundError:
                listed += []
        return [before, after, listed]

    ready, closed = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.read(ready[0], 1)
        (shown.more / "d").chmod(0o700)
        os.write(closed[1], b".")
        os._exit(0)
    before, after, listed = as_user(OTHER, look)
    os.waitpid(child, 0)
    assert before == (["plain"], ["e"])
    assert "ok" not in after
    assert listed == []


def test_nothing_is_changed_by_who_may_not_change_it_at_the_source(shown: Shown) -> None:
    """The trees are open to everybody, and the repositories are not."""
    shown.mount.expect("is refused, EROFS: it lies in another repository")
    for tree in (shown.ivy, shown.all):
        tree.chmod(0o777)
    shown.libs.chmod(0o755)

    def change() -> list[str]:
        attempts: list[Callable[[], Any]] = []
        for tree, path in ((shown.ivy, THROUGH_VIEW), (shown.all, SECRET), (shown.all, "d/e/plain")):
            name = str(tree / path)
            attempts += [
                lambda name=name: os.close(os.open(name, os.O_WRONLY)),
                lambda name=name: os.truncate(name, 0),
                lambda name=name: os.unlink(name),
                lambda name=name: os.rename(name, name + "x"),
                lambda name=name, tree=tree: os.rename(name, tree / "top"),
                lambda name=name, tree=tree: renameat2(name, f"{tree}/top", 1),
                lambda name=name: os.chmod(name, 0o777),
                lambda name=name: os.setxattr(name, "user.x", b""),
                lambda name=name: os.utime(name, (1, 1)),
                lambda tree=tree: os.close(os.open(tree / "new", os.O_CREAT | os.O_WRONLY)),
                lambda tree=tree: os.symlink("x", tree / "soft"),
                lambda tree=tree: os.mkfifo(tree / "fifo"),
            ]
        attempts += [
            lambda: os.mkdir(shown.all / "made"),
            lambda: os.rmdir(shown.all / "empty"),
            lambda: os.rename(shown.all / "d/e/plain", shown.ivy / "org.acme/plain"),
        ]
        return became(*attempts)

    (shown.more / "empty").mkdir()
    before = contents(shown.libs), contents(shown.more)
    outcomes = as_user(OTHER, change)
    assert set(outcomes) <= {"EACCES", "EPERM", "EROFS"}, outcomes
    assert (contents(shown.libs), contents(shown.more)) == before
    assert (shown.more / "empty").is_dir()


def test_a_sticky_directory_of_a_repository_is_sticky_through_a_tree(shown: Shown) -> None:
    for directory in (shown.all, shown.more):
        directory.chmod(0o777)
    (shown.more / "shared").mkdir()
    (shown.more / "shared").chmod(0o1777)
    for owner, name in ((OWNER, "owners"), (OTHER, "mine")):
        os.chown(put(shown.more / "shared" / name), owner, owner)
        os.chown(put(shown.more / "shared" / f"{name}2"), owner, owner)

    def change() -> list[str]:
        place = shown.all / "shared"
        return became(
            lambda: os.unlink(place / "owners"),
            lambda: os.rename(place / "owners", place / "taken"),
            lambda: os.rename(place / "mine", place / "owners"),
            lambda: os.unlink(place / "mine"),
            lambda: os.rename(place / "mine2", place / "mine3"),
        )

    assert as_user(OTHER, change) == ["EPERM", "EPERM", "EPERM", "ok", "ok"]


def test_what_is_made_in_a_sticky_tree_is_as_sticky(shown: Shown) -> None:
    for directory in (shown.ivy, shown.libs, shown.all, shown.more):
        directory.chmod(0o1777)
    files = shown.ivy / "net.own/app/1.0/jars/app-1.0.jar", shown.all / "own/d/file"
    for file in files:
        assert as_user(OWNER, lambda file=file: became(lambda: put(file))) == ["ok"]
        assert file.parent.stat().st_mode & 0o7777 == 0o1777

    def remove() -> list[str]:
        return became(*((lambda file=file: os.unlink(file)) for file in files))

    assert as_user(OTHER, remove) == ["EPERM"] * 2
    assert as_user(OWNER, remove) == ["ok"] * 2


def test_what_is_made_through_a_tree_is_its_makers(shown: Shown) -> None:
    for directory in (shown.ivy, shown.libs, shown.all, shown.more):
        directory.chmod(0o777)

    def make() -> list[str]:
        os.umask(0o027)
        calls: list[Callable[[], Any]] = []
        for place in (shown.ivy / "net.own/app/1.0/jars", shown.all / "own/d"):
            calls += [
                lambda place=place: os.makedirs(place),
                lambda place=place: put(place / "app-1.0.jar"),
                lambda place=place: os.symlink("x", place / "soft"),
                lambda place=place: os.rename(place / "app-1.0.jar", place / "app-sources-1.0.jar"),
                lambda place=place: put(place / "app-1.0.jar").chmod(0o604),
            ]
        return became(*calls)

    assert as_user(OTHER, make) == ["ok"] * 10
    for source in (shown.libs / "net/own/app/1.0/app-1.0", shown.more / "own/d/app-1.0"):
        made = Path(f"{source}.jar").stat()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (OTHER, OTHER, 0o604)
    sources = (shown.libs / "net/own/app/1.0/app-1.0-sources.jar").stat()
    assert (sources.st_uid, stat.S_IMODE(sources.st_mode)) == (OTHER, 0o640)


def test_who_writes_through_a_tree_has_all_his_groups(shown: Shown) -> None:
    """The trees are open to everybody, the repositories to a group."""
    top = shown.more / "team"
    top.mkdir()
    for directory in (shown.more, top, shown.libs):
        os.chown(directory, 0, TEAM)
        directory.chmod(0o775)
    for tree in (shown.ivy, shown.all):
        tree.chmod(0o777)
    place = shown.all / "team"

    def change() -> list[str]:
        return became(
            lambda: put(place / "new"),
            lambda: os.rename(place / "new", place / "moved"),
            lambda: os.link(place / "moved", place / "linked"),
            lambda: os.symlink("x", place / "soft"),
            lambda: os.unlink(place / "soft"),
            lambda: os.mkdir(place / "made"),
            lambda: os.rmdir(place / "made"),
            lambda: put(shown.ivy / "net.team/app/1.0/jars/app-1.0.jar"),
            lambda: os.unlink(shown.ivy / "net.team/app/1.0/jars/app-1.0.jar"),
        )

    missing = (shown.all / "team/moved", shown.all / "team/linked")
    outcomes = as_user(OTHER, change)
    assert set(outcomes) <= {"EACCES", "ENOENT"}, outcomes
    assert as_user(OTHER, change, TEAM + 1, TEAM) == ["ok"] * 9
    for path in missing:
        path.unlink()
    run(*("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", f"--groups={TEAM}"), "cp", "/bin/true", place)
    run(
        *("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"),
        "rm",
        "-f",
        place / "true",
        code=1,
    )
    top.chmod(0o757)  # whoever is in the group is none of the others
    assert set(as_user(OTHER, change, TEAM)[:1]) == {"EACCES"}


def test_rules_hold_through_trees(shown: Shown) -> None:
    shown.mount.expect("is refused, (EPERM|EACCES|EROFS|EDQUOT)")
    store, libs, more = shown.mount.store, shown.libs.name, shown.more.name
    asked("repo", "set", store, libs, "--immutable")
    ivy = shown.ivy / THROUGH_VIEW
    changes: list[Callable[[], Any]] = [
        lambda: os.unlink(ivy),
        lambda: os.rename(ivy, ivy.with_name("app-sources-1.0.jar")),
        lambda: os.truncate(ivy, 0),
        lambda: ivy.write_bytes(b"other"),
        lambda: os.unlink(shown.libs / SECRET),
    ]
    assert became(*changes) == ["EPERM"] * 5
    asked("repo", "set", store, libs, "--mutable", "--read-only")
    new = ivy.with_name("app-docs-1.0.jar")
    assert set(became(*changes, lambda: new.write_bytes(b"x"))) <= {"EROFS"}
    asked("repo", "set", store, libs, "--writable", "--exclude", "org/acme/app/**")
    assert became(lambda: new.write_bytes(b"x")) == ["EACCES"]
    asked("repo", "set", store, more, "--quota", "1M")
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        (shown.all / "big").write_bytes(bytes(2 << 20))
    assert ivy.read_bytes() == b"secret"


def test_a_name_is_taken_by_order_alone(shown: Shown) -> None:
    """A member that somebody may write to comes behind: he takes no name of the one before it."""
    for directory in (shown.all, shown.more):
        directory.chmod(0o777)

    def attack() -> list[str]:
        return became(
            lambda: put(shown.more / SECRET, b"false"),
            lambda: put(shown.more / "only-mine", b"false"),
            lambda: put(shown.all / SECRET, b"false"),
            lambda: os.rename(shown.all / "only-mine", shown.all / SECRET),
        )

    shown.mount.expect("is refused, EROFS: it lies in another repository")
    assert as_user(OTHER, attack) == ["ok", "ok", "EACCES", "EROFS"]
    assert (shown.all / SECRET).read_bytes() == b"secret"
    (shown.libs / SECRET).unlink()
    assert (shown.all / SECRET).read_bytes() == b"false"
