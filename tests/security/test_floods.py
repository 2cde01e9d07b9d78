"""One user floods, the other is served, the daemon keeps its size; `scripts/flood` does more of it."""

from __future__ import annotations

import os

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.sides import fallocate, outcome
from tests.security.attempts import folder
from tests.security.floods import FLOODS, measure
from tests.security.users import OWNER, as_user

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
