"""Properties, and what is done to many files at once, in repositories with rules, views and virtual ones."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

import pytest

from casfs import properties
from casfs.control import batches
from casfs.control.messages import (
    Action,
    ActOn,
    CopyInto,
    GetProperties,
    MoveInto,
    RemoveFiles,
    SetProperties,
    Target,
)
from casfs.errors import FsError
from casfs.fs.scheduler import run_inline
from casfs.repositories.filesystem import policy_of
from casfs.repositories.rules import Rules
from tests.kernel import Kernel
from tests.repositories.making import JAR, make_directories, make_repository
from tests.repositories.test_derived import IVY_JAR, files, make_tree
from tests.session import Session

QA = properties.attribute_of("qa")
OTHER = "org/acme/app/2.0/app-2.0.jar"


def act(kernel: Kernel, action: Action, *paths: str, dry_run: bool = False) -> tuple[int, ...]:
    """As the daemon does it: files, bytes, changed, releases."""
    targets = [Target(f"/{path}", kernel.inode(path).ino) for path in paths]
    done = run_inline(batches.HANDLERS[ActOn](kernel.fs, ActOn(action, targets, dry_run)))
    return done.files, done.bytes, done.changed, done.releases


def fails(number: int, text: str, call: Callable[[], object]) -> None:
    with pytest.raises(FsError, match=text) as raised:
        call()
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


@pytest.fixture
def libs(session: Session, kernel: Kernel) -> Kernel:
    for path in (JAR, OTHER):
        make_directories(session, f"libs/{path.rpartition('/')[0]}")
        kernel.write_file(f"libs/{path}", b"content")
    make_directories(session, "to")
    return kernel


PASSED = SetProperties({"qa": ["passed"]})


def test_properties_of_immutable_releases_may_change_and_nothing_else(session: Session, libs: Kernel) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    assert act(libs, PASSED, f"libs/{JAR}") == (1, 7, 0, 0)
    libs.setxattr(f"libs/{JAR}", QA, b"again")
    for action in (RemoveFiles(), MoveInto("/to")):
        fails(
            errno.EPERM, "immutable", lambda action=action: act(libs, action, f"libs/{OTHER}", f"libs/{JAR}")
        )
    assert act(libs, CopyInto("/to"), f"libs/{JAR}") == (1, 7, 0, 0)
    assert libs.getxattr("to/app-1.0.jar", QA) == b"again"


@pytest.mark.parametrize("action", [RemoveFiles(True), MoveInto("/to", True)])
def test_releases_go_by_force_with_one_line_in_the_log(
    session: Session, libs: Kernel, caplog: pytest.LogCaptureFixture, action: Action
) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    with caplog.at_level(logging.WARNING):
        assert act(libs, action, f"libs/{JAR}", f"libs/{OTHER}", dry_run=True) == (2, 14, 0, 2)
        assert caplog.messages == []
        assert act(libs, action, f"libs/{JAR}", f"libs/{OTHER}") == (2, 14, 0, 2)
    assert len(caplog.messages) == 1
    assert f"{JAR} goes, though releases are immutable" in caplog.messages[0]
    assert files(libs, "libs") == {}


def test_nothing_is_done_where_nobody_writes(session: Session, libs: Kernel) -> None:
    make_repository(session, "libs", with_rules=Rules(read_only=True))
    libs.write_file("to/new", b"x")
    for action, path in (
        (PASSED, f"libs/{JAR}"),
        (RemoveFiles(), f"libs/{JAR}"),
        (MoveInto("/to"), f"libs/{JAR}"),
        (CopyInto("/libs"), "to/new"),
    ):
        fails(errno.EROFS, "read-only", lambda action=action, path=path: act(libs, action, path))
    fails(errno.EROFS, "read-only", lambda: libs.setxattr(f"libs/{JAR}", QA, b"x"))


def test_a_quota_holds_for_all_of_them_together(session: Session, libs: Kernel) -> None:
    make_repository(session, "to", None, Rules(quota_files=2))
    for name in "abc":
        libs.write_file(name, b"x")
    for action in (CopyInto("/to"), MoveInto("/to")):
        fails(errno.EDQUOT, "2 files", lambda action=action: act(libs, action, "a", "b", "c"))
        assert libs.names("to") == []
        assert sorted(libs.names())[:3] == [b"a", b"b", b"c"]
    ino = libs.inode("to").ino
    for path in ("a", "b", "c"):
        libs.fs.tree.lookup(1, path.encode())
    assert policy_of(session.fs).quotas.used(ino) == (0, 0)
    assert act(libs, MoveInto("/to"), "a", "b") == (2, 2, 0, 0)
    assert policy_of(session.fs).quotas.used(ino) == (2, 2)


@pytest.mark.parametrize("shown", [f"ivy/{IVY_JAR}", f"all/{JAR}"], ids=["view", "virtual"])
def test_what_trees_show_has_the_properties_of_the_file(session: Session, libs: Kernel, shown: str) -> None:
    make_repository(session, "libs")
    make_tree(session, "ivy", "view", ["libs"], "ivy-default")
    make_tree(session, "all", "virtual", ["libs"], deploy="libs")
    assert act(libs, PASSED, shown) == (1, 7, 0, 0)
    assert libs.getxattr(f"libs/{JAR}", QA) == b"passed"
    libs.setxattr(shown, QA, b"again")
    asked = GetProperties(f"/libs/{JAR}")
    assert run_inline(batches.HANDLERS[GetProperties](libs.fs, asked)).properties == {"qa": ["again"]}
    everything = SetProperties({"qa": ["all"]}, recursive=True)
    assert act(libs, everything, shown.partition("/")[0])[0] == 2
    assert libs.getxattr(f"libs/{OTHER}", QA) == b"all"
    for action in (RemoveFiles(), MoveInto("/to"), CopyInto("/to")):
        fails(errno.EXDEV, "in its repository", lambda action=action: act(libs, action, shown))
    fails(errno.EXDEV, "of a repository", lambda: act(libs, MoveInto("/all"), f"libs/{JAR}"))


def test_trees_follow_what_is_done_and_what_is_undone(session: Session, libs: Kernel) -> None:
    make_repository(session, "libs")
    make_tree(session, "all", "virtual", ["libs"], deploy="libs")
    make_repository(session, "to", None, Rules(quota_files=1))
    libs.write_file("libs/app-2.0.jar", b"beside")
    before = files(libs, "all")
    paths = [f"libs/{JAR}", f"libs/{OTHER}"]
    fails(errno.EDQUOT, "1 files", lambda: act(libs, MoveInto("/to"), *paths))
    assert files(libs, "all") == files(libs, "libs") == before
    assert act(libs, RemoveFiles(), *paths)[0] == 2
    assert files(libs, "all") == files(libs, "libs") == {"app-2.0.jar": b"beside"}
