"""`scripts/soak-digests` kills who computes digests, and compares them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounted.mounts import ENVIRONMENT, MODES

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "soak-digests"


def soak(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SOAK), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


@pytest.mark.mounted
@pytest.mark.alone
def test_it_kills_and_compares(scratch: Path) -> None:
    done = soak(2_000, "--kills", 3, "--mode", MODES[0], "--folder", scratch, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == "3 times killed; every digest is what sha256sum says; fsck clean"
    assert list(scratch.iterdir()) == []


def test_wrong_usage_is_one_clear_line() -> None:
    done = soak(0)
    assert done.returncode == 2
    assert "has to be above 0" in done.stderr.splitlines()[-1]
