"""Writers, a collector without grace, SIGKILL of both: nothing dangles, nothing is lost, no byte is wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.mounted.mounts import Mount
from tests.mounted.race import Race

ROUNDS = 6
ROUND_SECONDS = 5.0  # of two modes together: a minute

SEED = int(os.environ.get("CASFS_SEED", time.time_ns() % 1_000_000))
"""Of the random times; every complaint names it."""


def test_nothing_is_lost_while_few_contents_die_and_are_reborn(mount: Mount, scratch: Path) -> None:
    mount.stop()
    race = Race(mount, scratch, SEED)
    for number in range(ROUNDS):
        race.round(ROUND_SECONDS, kill=number % 2 == 0)
        assert not race.problems, f"seed {SEED}: {race.problems[:10]}"
    totals = race.finish()
    assert not race.problems, f"seed {SEED}: {race.problems[:10]}"
    for what in ("operations", "hot", "reads", "collections", "reborn", "kills"):
        assert totals[what] > 0, f"seed {SEED}, no {what}: {totals.line()}"
