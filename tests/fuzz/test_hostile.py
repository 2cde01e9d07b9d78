"""A minute of hostile stores, the same each time; `scripts/fuzz-store SECONDS` also changes them while they
are used, and goes on for as long as one likes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.hostile import Failure, Watched

SEED, STORES = 20261128, 90
FUZZ = Path(__file__).resolve().parents[2] / "scripts" / "fuzz-store"


@pytest.mark.alone
@pytest.mark.mounted
def test_no_store_makes_root_touch_anything_else_or_ends_a_command_unawares() -> None:
    words = [sys.executable, FUZZ, "600", f"--seed={SEED}", f"--stores={STORES}", "--no-races"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) stores .* (\d+) mounts, 0 failures", done.stdout)
    assert found is not None
    assert int(found[1]) == STORES
    assert int(found[2]) >= STORES // 2


@pytest.mark.parametrize("how", ["read", "written", "removed", "made", "listed", "written by another name"])
def test_what_is_touched_outside_is_seen(scratch: Path, how: str) -> None:
    outside = Watched(scratch / "outside")
    (scratch / "link").symlink_to(outside.path / "folder")
    os.link(outside.path / "file", scratch / "second")
    outside.watch()
    match how:
        case "read":
            (scratch / "link" / "file").read_bytes()
        case "written":
            (scratch / "link" / "file").write_bytes(b"")
        case "removed":
            (scratch / "link" / "file").unlink()
        case "made":
            (scratch / "link" / "new").touch()
        case "listed":
            os.listdir(scratch / "link")
        case _:
            (scratch / "second").write_bytes(b"ours")
    with pytest.raises(Failure, match="outside was"):
        outside.check()


def test_nothing_is_seen_where_nothing_is_touched(scratch: Path) -> None:
    outside = Watched(scratch / "outside")
    os.link(outside.path / "file", scratch / "second")
    outside.watch()
    (scratch / "second").read_bytes()
    (scratch / "second").unlink()
    outside.check()
