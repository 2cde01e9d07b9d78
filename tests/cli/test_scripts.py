"""scripts/run before it sets anything up: its own command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "scripts" / "run"


def test_run_has_help():
    done = subprocess.run([RUN, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: scripts/run [MOUNTPOINT] [--store STORE]\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--stor", "x"], "unknown option '--stor'"),
        (["--store"], "--store needs a directory"),
        (["--store", ""], "--store needs a directory"),
        (["a", "b"], "unexpected argument 'b'"),
        ([""], "a mount point cannot be empty"),
    ],
)
def test_run_says_what_is_wrong_with_its_arguments(words, complaint):
    done = subprocess.run([RUN, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"run: error: {complaint}; see 'scripts/run --help'\n"
