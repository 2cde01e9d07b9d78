"""Repositories may keep the times of opens: the open moves a file's time of access, once a day."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from casfs.errors import UsageError
from casfs.fs.scheduler import run_inline
from casfs.fuse import verbs as verbs_module
from casfs.fuse.verbs import Verbs
from casfs.maintenance.query import parse
from casfs.maintenance.search import NothingFound, Search
from casfs.repositories import verbs
from casfs.repositories.access_times import DAY_NS
from casfs.repositories.filesystem import policy_of, registry_of
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Rules, Settings, changed
from tests.session import Session, no_room

DAILY = Settings(rules={"access_times": "daily"})


def test_the_rule_has_the_time_from_which_on_it_holds() -> None:
    before = int(time.time())
    daily = changed(Rules(), {"access_times": "daily"})
    assert before <= daily.access_times_since <= time.time()
    assert (
        changed(daily, {"quota_files": 5, "access_times": "daily"}).access_times_since
        == daily.access_times_since
    )
    assert changed(daily, {"access_times": "none"}) == Rules()
    with pytest.raises(UsageError, match="access_times"):
        changed(Rules(), {"access_times": "hourly"})
    with pytest.raises(UsageError, match="access-times-since"):
        changed(Rules(), {"access_times_since": -1})


@pytest.fixture
def libs(session: Session) -> Session:
    """A repository that keeps times of access, and one that does not."""
    run_inline(verbs.create(session.fs, b"libs", RepositoryKind.LOCAL, settings=DAILY))
    run_inline(verbs.create(session.fs, b"other", RepositoryKind.LOCAL))
    for path in ("libs/file", "other/file", "file"):
        session.kernel.write_file(path, b"content")
    return session


class Clock:
    """Of who opens files."""

    def __init__(self) -> None:
        self.now = time.time_ns()

    def time_ns(self) -> int:
        return self.now


@contextmanager
def opening(session: Session, clock: Clock, *, read_only: bool = False) -> Iterator[Verbs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbs_module, "time", clock)
        yield Verbs(session.fs, durable_each=False, relieve=no_room, read_only=read_only)


def open_file(session: Session, verbs: Verbs, path: str, flags: int = os.O_RDONLY) -> int:
    """Its time of access afterwards."""
    inode = session.kernel.inode(path)
    run_inline(verbs.release(verbs.opened(run_inline(verbs.open(inode.ino, flags, 0)))))
    return inode.atime


def test_an_open_moves_the_time_once_a_day(libs: Session) -> None:
    clock = Clock()
    first = libs.kernel.inode("libs/file").atime
    with opening(libs, clock) as verbs:
        assert open_file(libs, verbs, "libs/file") == first
        clock.now = first + DAY_NS - 1
        assert open_file(libs, verbs, "libs/file") == first
        clock.now += 1
        before = libs.kernel.inode("libs/file")
        assert open_file(libs, verbs, "libs/file", os.O_NOATIME) == first
        others = before.ctime, before.mtime
        assert open_file(libs, verbs, "libs/file") == clock.now
        assert (before.ctime, before.mtime) == others
        noted = clock.now
        clock.now += DAY_NS // 2
        assert open_file(libs, verbs, "libs/file", os.O_RDWR) == noted
        clock.now -= 3 * DAY_NS
        assert open_file(libs, verbs, "libs/file") == noted
    libs.reopen()
    assert libs.kernel.inode("libs/file").atime == noted


def test_others_keep_none(libs: Session) -> None:
    clock = Clock()
    clock.now += 9 * DAY_NS
    with opening(libs, clock) as verbs:
        for path in ("other/file", "file"):
            first = libs.kernel.inode(path).atime
            assert open_file(libs, verbs, path) == first < clock.now
        libs.kernel.link("file", "libs/linked")
        assert open_file(libs, verbs, "file") == clock.now
    with opening(libs, clock, read_only=True) as verbs:
        assert open_file(libs, verbs, "libs/file") < clock.now


def test_an_open_succeeds_where_its_time_cannot_be_kept(
    libs: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin() -> None:
        raise OSError(28, "no room")

    clock = Clock()
    clock.now += 2 * DAY_NS
    libs.kernel.sync()
    with opening(libs, clock) as verbs, monkeypatch.context() as patch:
        patch.setattr(libs.fs.group, "begin", begin)
        assert open_file(libs, verbs, "libs/file") < clock.now


def test_nobody_is_asked_where_no_repository_keeps_them(libs: Session) -> None:
    policy = policy_of(libs.fs)
    times = policy.access_times
    assert times is not None
    assert times.tops == {libs.kernel.inode("libs").ino}
    registry_of(libs.fs).read()
    assert policy.access_times is times  # nothing that was leased has to be given back
    run_inline(verbs.change(libs.fs, b"libs", settings=Settings(rules={"access_times": "none"})))
    assert policy.access_times is None


def test_a_file_may_be_opened_unasked_until_its_time_is_due_again(libs: Session) -> None:
    times = policy_of(libs.fs).access_times
    assert times is not None
    kept, other = libs.kernel.inode("libs/file"), libs.kernel.inode("other/file")
    now = kept.atime + DAY_NS // 3
    assert times.due_at(kept, now) == kept.atime + DAY_NS
    assert times.due_at(other, now) == now + DAY_NS
    kept.atime = now + 9 * DAY_NS
    assert times.due_at(kept, now) == now + DAY_NS


def unused(session: Session, days: int, now: int) -> list[str]:
    session.kernel.sync()
    search = Search(session.store.namespace)
    query = parse([f"unused={days}d"], now)
    search.check(query)
    return [each.path.decode() for each in search.find(query)]


def test_what_is_unused_is_found_where_times_are_kept(libs: Session) -> None:
    now = time.time_ns()
    assert unused(libs, 90, now) == []
    assert unused(libs, 90, now + 91 * DAY_NS) == ["/libs/file"]
    clock = Clock()
    clock.now += 30 * DAY_NS
    with opening(libs, clock) as opener:
        open_file(libs, opener, "libs/file")
    assert unused(libs, 90, now + 91 * DAY_NS) == []
    assert unused(libs, 90, now + 121 * DAY_NS) == ["/libs/file"]


def test_what_came_with_an_old_time_is_used_since_it_came(libs: Session) -> None:
    now = time.time_ns()
    libs.kernel.utime("libs/file", 0, 0)
    assert unused(libs, 90, now) == []
    assert unused(libs, 90, now + 91 * DAY_NS) == ["/libs/file"]


def test_nothing_is_unused_for_longer_than_times_are_kept(libs: Session) -> None:
    now = time.time_ns()
    search = Search(libs.store.namespace)
    notes = search.notes_on_access_times(now - 90 * DAY_NS)
    assert notes == [
        "access times are kept in libs only: no other files are found",
        "libs: not for so long yet, and nothing is found there",
    ]
    assert search.notes_on_access_times(now + 90 * DAY_NS) == notes[:1]
    run_inline(verbs.change(libs.fs, b"libs", settings=Settings(rules={"access_times": "none"})))
    with pytest.raises(NothingFound, match=re.escape("no repository of this store keeps access times")):
        unused(libs, 1, now)
