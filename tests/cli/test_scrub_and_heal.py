"""`casfs scrub` and `casfs heal` on a store that is there: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import ExitCode
from casfs.maintenance.offline import opened
from casfs.store import create_store
from tests.maintenance.stores import ONE, Damaged, fill


@pytest.fixture
def store(tmp_path) -> Damaged:
    create_store(str(tmp_path / "store"), fan_out=1)
    with opened(str(tmp_path / "store")) as fs:
        fill(fs)
    return Damaged(tmp_path / "store")


def test_a_sound_store(casfs, store: Damaged) -> None:
    outcome = casfs("scrub", str(store))
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    assert outcome.out.startswith(f"{store}: read 3 blobs, 4.41 KiB in 0.")
    assert outcome.out.endswith(" s: all whole\n")


def test_damage_is_told_with_its_paths_and_healed(casfs, store: Damaged, tmp_path: Path) -> None:
    store.overwrite(store.blob(ONE), ONE[:-1] + b"!")
    digest = blake3(ONE).hexdigest()
    outcome = casfs("scrub", str(store))
    assert outcome.code == ExitCode.PROBLEMS
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"corrupt-blob {digest} (2.93 KiB): its bytes have the digest ")
    assert sorted(lines[1:3]) == ["  /a/one", "  /b/link"]
    assert lines[3] == f"  file: quarantine/{digest}"
    assert ": 1 damaged" in lines[4]
    assert "casfs heal --from" in lines[5]

    source = tmp_path / "source"
    source.mkdir()
    outcome = casfs("heal", str(store), "--from", str(source))
    assert outcome.code == ExitCode.PROBLEMS
    assert f"missing-blob {digest} (2.93 KiB), known: is missing" in outcome.out
    (source / "copy").write_bytes(ONE)
    outcome = casfs("heal", str(store), "--from", str(source))
    assert outcome.code == ExitCode.OK
    assert outcome.out.startswith(f"healed {digest} (2.93 KiB)\n  /")
    assert outcome.out.endswith(f"{store}: 1 healed, 0 still damaged\n")
    assert casfs("scrub", str(store)).code == ExitCode.OK


def test_as_json(casfs, store: Damaged, tmp_path: Path) -> None:
    store.blob(ONE).unlink()
    outcome = casfs("scrub", str(store), "--json", "--rate", "100M", "--restart")
    assert outcome.code == ExitCode.PROBLEMS
    report = json.loads(outcome.out)
    (bad,) = report["bad"]
    assert (bad["kind"], bad["quarantined"], sorted(bad["paths"])) == (
        "missing-blob",
        None,
        ["/a/one", "/b/link"],
    )
    assert (report["complete"], report["blobs"], report["cleared"]) == (True, 3, 0)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "x").write_bytes(ONE)
    outcome = casfs("heal", str(store), "--from", str(tmp_path / "copy"), "--json")
    report = json.loads(outcome.out)
    assert [healed["digest"] for healed in report["healed"]] == [blake3(ONE).hexdigest()]
    assert (outcome.code, report["left"], report["unreadable"]) == (ExitCode.OK, [], [])


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("scrub", "{store}", "--rate", "fast"), ExitCode.USAGE, "'fast' is no rate"),
        (("scrub", "{store}", "--period", "0d"), ExitCode.USAGE, "'0d' is no duration"),
        (("scrub", "{store}", "--rate", "1M", "--period", "1d"), ExitCode.USAGE, "not allowed with"),
        (("scrub", "{store}/nowhere"), ExitCode.STORE, "does not exist"),
        (("heal", "{store}"), ExitCode.USAGE, "--from"),
        (("heal", "{store}", "--from", "{store}"), ExitCode.STORE, "name a copy of it"),
        (("heal", "{store}", "--from", "{store}/nowhere"), ExitCode.STORE, "is no folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(casfs, store: Damaged, words, code, complaint) -> None:
    outcome = casfs(*(word.format(store=store) for word in words))
    assert outcome.code == code
    assert complaint in outcome.complaint
