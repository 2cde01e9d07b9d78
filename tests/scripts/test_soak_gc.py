"""`scripts/soak-gc` lets writers and the collector race, and says what came of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounted.mounts import ENVIRONMENT, MODES

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "soak-gc"


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SOAK), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


@pytest.mark.mounted
@pytest.mark.alone
def test_it_races_and_counts(scratch: Path) -> None:
    done = soak(4, "--round", 4, "--mode", MODES[0], "--folder", scratch, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.endswith("0 dangling, 0 lost, 0 wrong bytes; fsck clean")
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (operations|removed|reborn)", last)}
    assert all(counts.values()), last
    assert list(scratch.iterdir()) == []


def test_wrong_usage_is_one_clear_line() -> None:
    done = soak(0)
    assert done.returncode == 2
    assert "have to be above 0" in done.stderr.splitlines()[-1]
