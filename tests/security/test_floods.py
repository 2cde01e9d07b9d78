"""One user floods, the other is served, the daemon keeps its size; `scripts/flood` does more of it."""

from __future__ import annotations

import contextlib
import os
import resource

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.sides import LARGE, fallocate, outcome
from tests.security.attempts import became, folder, opening, put
from tests.security.floods import FLOODS, measure
from tests.security.users import OTHER, OWNER, acting, apart, as_user

COUNT = 300

LONGEST_MS = 2000.0
"""Far more than on a machine with nothing else to do, and less than of what a flood could once take."""

MOST_MEMORY = 150
"""MiB of the daemon."""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_keeps_nobody_waiting_and_fills_no_memory(shared: Mount, name: str) -> None:
    wait = measure(shared, name, COUNT)
    assert wait.requests > 20
    assert wait.p99 < LONGEST_MS / 4
    assert wait.longest < LONGEST_MS
    assert wait.memory < MOST_MEMORY


def test_a_user_who_keeps_all_descriptors_had_commits_fail_and_others_not_read(shared: Mount) -> None:
    before = resource.prlimit(shared.pid, resource.RLIMIT_NOFILE)
    his = folder(shared.path / "files of his", OWNER, 0o755)
    other = put(folder(shared.path / "of another", OTHER, 0o755) / "large", OTHER, 0o600, LARGE)
    shared.usage()

    def others() -> list[str]:
        (other.parent / "small").write_bytes(b"small")
        fd = os.open(other.parent, os.O_RDONLY)
        return became(
            opening(other), other.read_bytes, lambda: os.fsync(fd), lambda: os.mkdir(his.parent / "x")
        )

    def floods() -> list[str]:
        held = []
        with acting(OWNER), contextlib.suppress(OSError):
            for number in range(400):
                held.append(os.open(his / f"{number}", os.O_CREAT | os.O_RDWR))
                os.pwrite(held[-1], bytes(300_000), 0)
        assert 100 < len(held) < 300
        with acting(OTHER):
            return others()

    resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, (300, before[1]))
    try:
        assert apart(floods) == ["ok", "ok", "ok", "EACCES"]
    finally:
        resource.prlimit(shared.pid, resource.RLIMIT_NOFILE, before)
    assert not shared.complaints()


def test_what_is_larger_than_a_disk_is_refused_at_once(shared: Mount) -> None:
    his = folder(shared.path / "his", OWNER, 0o755)

    def tries() -> list[object]:
        fd = os.open(his / "file", os.O_CREAT | os.O_RDWR)
        return [
            *(outcome(lambda size=size: os.ftruncate(fd, size)) for size in (1 << 62, 1 << 60)),
            outcome(lambda: os.pwrite(fd, b"x", 1 << 60)),
            outcome(lambda: fallocate(fd, 0, 0, 1 << 60)),
            os.fstat(fd).st_size,
        ]

    room = "EFBIG" if shared.mode == "native" else "ENOTSUP"
    assert as_user(OWNER, tries) == ["EFBIG", "EFBIG", "EFBIG", room, 0]
