"""`casfs scrub` and `casfs heal` on a store that is there: what they print, and how they end."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.cli import gc
from casfs.cli.arguments import byte_rate
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
        (("scrub", "{store}", "--period", "0d"), ExitCode.USAGE, "more than no time"),
        (("scrub", "{store}", "--period", "soon"), ExitCode.USAGE, "'soon' is no duration"),
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


def test_a_signal_ends_it_and_the_next_goes_on(casfs, store: Damaged, monkeypatch) -> None:
    from casfs.maintenance.scrub import scrub as scrubbing

    monkeypatch.setattr(scrubbing, "BATCH_BLOBS", 1)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    real, read = os.readv, list[int]()

    def readv(fd: int, buffers: list[memoryview]) -> int:
        read.append(real(fd, buffers))
        if len(read) == 3:  # of the second blob; the first took two to its end
            signal.raise_signal(signal.SIGTERM)
        return read[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", readv)
        outcome = casfs("scrub", str(store), "--rate", "1G", "--json")
    assert outcome.code == ExitCode.INTERRUPTED
    first = json.loads(outcome.out)
    assert not first["complete"]
    assert 0 < first["blobs"] < 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    outcome = casfs("scrub", str(store))
    assert (outcome.code, f"read {3 - first['blobs']} blobs" in outcome.out) == (ExitCode.OK, True)
    assert "went on with a run that was cut off" in outcome.out


@pytest.mark.parametrize(
    ("word", "expected"),
    [("1", 1), ("500K", 500 << 10), ("20MiB/s", 20 << 20), ("1.5gb", 3 << 29), ("7 kib", 7 << 10), ("9B", 9)],
)
def test_a_rate(word: str, expected: int) -> None:
    assert byte_rate(word) == expected


@pytest.mark.parametrize(
    "word", ["", "0", "0M", "-1", "M", "1X", "1 2", "1e3", "nan", "inf", "٣M", "1M/h", "9" * 400]
)
def test_what_is_no_rate(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no rate"):
        byte_rate(word)


def test_a_rate_of_gc_may_be_of_blobs() -> None:
    assert [gc.rate(word) for word in ("500", "50M", "1.5KiB/s")] == [(500, 0), (0, 50 << 20), (0, 1536)]
    with pytest.raises(argparse.ArgumentTypeError, match="would never end"):
        gc.rate("0")
