"""What is done to immutable releases by --force, and who is told."""

from __future__ import annotations

import errno

import pytest

from casfs.errors import FsError
from casfs.fs import copy
from casfs.fs.scheduler import run_inline
from casfs.repositories.forcing import Forced, current, forcing
from casfs.repositories.rules import Rules
from tests.kernel import Kernel
from tests.repositories.making import JAR, make_directories, make_repository
from tests.session import Session

RELEASE = f"libs/{JAR}"
SOURCES = RELEASE.replace(".jar", "-sources.jar")


@pytest.fixture
def immutable(session: Session, kernel: Kernel) -> Kernel:
    make_repository(session, "libs", with_rules=Rules(immutable=True))
    make_directories(session, RELEASE.rpartition("/")[0])
    kernel.write_file(RELEASE, b"wrong")
    kernel.write_file(SOURCES, b"wrong")
    kernel.write_file("right", b"right")
    return kernel


def test_a_release_is_replaced_by_force_and_it_is_said_who_did_it(
    immutable: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    with forcing(Forced("cp /right /libs/…", 7)):
        run_inline(copy.copy(immutable.fs, b"right", RELEASE.encode(), recursive=False))
        run_inline(copy.copy(immutable.fs, b"right", SOURCES.encode(), recursive=False))
    assert immutable.read_file(RELEASE) == immutable.read_file(SOURCES) == b"right"
    line = f"repository libs: {JAR} goes, though releases are immutable: uid 7 forces 'cp /right /libs/…'"
    assert caplog.messages == [line]


@pytest.mark.parametrize("source", ["libs/org/acme/app/1.0/app-1.0.jar", "libs/org"])
def test_a_release_is_moved_by_force(
    immutable: Kernel, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    with forcing(Forced("mv", 0)):
        run_inline(copy.move(immutable.fs, source.encode(), b"out"))
    assert immutable.inode("out")
    assert "forces 'mv'" in caplog.text


def test_only_what_is_forced_is(immutable: Kernel) -> None:
    with forcing(Forced("rm", 0)), forcing(None):
        with pytest.raises(
            FsError, match=r"libs/org/.*app-1\.0\.jar: .*release, which is immutable; see --force"
        ):
            immutable.unlink(RELEASE)
        assert current() is None
    assert current() is None


def test_no_other_rule_gives_way(session: Session, immutable: Kernel) -> None:
    make_repository(session, "libs", with_rules=Rules(immutable=True, read_only=True))
    with forcing(Forced("rm", 0)), pytest.raises(FsError, match="read-only") as raised:
        immutable.unlink(RELEASE)
    assert raised.value.errno == errno.EROFS


def test_who_only_looks_is_not_told_of(immutable: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    forced = Forced("rm", 0, looks=True)
    with forcing(forced):
        inode = immutable.inode(RELEASE)
        parent = immutable.inode(RELEASE.rpartition("/")[0]).ino
        immutable.fs.policy.check_remove(parent, b"app-1.0.jar", inode)
    assert forced.releases == 1
    assert caplog.messages == []
