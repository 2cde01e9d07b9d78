"""Writers, a collector without grace, SIGKILL of both: nothing dangles, nothing is lost, no byte is wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.mounted import hot
from tests.mounted.mounts import Mount
from tests.mounted.race import Race

ROUNDS = 6
ROUND_SECONDS = 5.0  # of two modes together: a minute

SEED = int(os.environ.get("CASFS_SEED", time.time_ns() % 1_000_000))
"""Of the random times; every complaint names it."""


@pytest.mark.alone
def test_nothing_is_lost_while_few_contents_die_and_are_reborn(mount: Mount, scratch: Path) -> None:
    mount.stop()
    race = Race(mount, scratch, SEED)
    for number in range(ROUNDS):
        race.round(ROUND_SECONDS, kill=number % 2 == 0)
        assert not race.problems, f"seed {SEED}: {race.problems[:10]}"
    totals = race.finish()
    assert not race.problems, f"seed {SEED}: {race.problems[:10]}"
    for what in ("operations", "hot", "reads", "in snapshots", "collections", "reborn", "kills"):
        assert totals[what] > 0, f"seed {SEED}, no {what}: {totals.line()}"


def test_the_look_at_hot_files_finds_what_is_old_short_or_rubbish(tmp_path: Path) -> None:
    record = b"store hot0 0 3 0\nsynced hot0 \nstore hot0 1 1 4\nfloor log0 8192\n"
    blocks = [hot.block_of(0, 0), hot.block_of(1, 0)[:2000] + hot.block_of(1, 4)[2000:], hot.block_of(2, 0)]
    (tmp_path / "hot0").write_bytes(b"".join(blocks))
    (tmp_path / "log0").write_bytes(hot.log_of(0)[:8192])
    assert hot.broken(tmp_path, record) == []
    (tmp_path / "log0").write_bytes(hot.log_of(0)[:8191])
    assert len(hot.broken(tmp_path, record)) == 1
    assert len(hot.broken(tmp_path, record + b"synced hot0 \n")) == 2
    (tmp_path / "hot0").write_bytes(bytes(3 * hot.BLOCK))
    assert len(hot.broken(tmp_path, record)) == 2
