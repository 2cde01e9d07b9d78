"""`casfs gc` and `casfs pin` on a store that is there: what they take, what they print, how they end."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import pytest

from casfs.cli.gc import Rate, rate
from casfs.errors import ExitCode
from casfs.filestore.durable import Durable
from casfs.maintenance.offline import opened
from casfs.store import create_store
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, fill


@pytest.fixture
def store(scratch: Path) -> Damaged:
    """With the contents of /a/one (= /b/link) and /a/deep/two (= /b/two again), and an orphan."""
    create_store(str(scratch / "store"), fan_out=1)
    with opened(str(scratch / "store")) as fs:
        fill(fs)
    return Damaged(scratch / "store")


def blobs(store: Damaged) -> int:
    return sum(1 for _ in (store.path / "blobs").glob("*/*"))


# What is refused


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["history", "--full"], "unknown option '--full'"),
        (["now", "--full"], "unknown option '--full'"),
        (["now", "--json"], "unknown option '--json'"),
        (["now", "--grace", "1h"], "unknown option '--grace'"),
        (["history", "--rate", "5"], "unknown option '--rate'"),
        (["run", "--dry-run", "--rate", "5"], "argument --rate: not allowed with argument -n/--dry-run"),
        (["run", "--schedule", "* * * * *"], "unknown option '--schedule'"),
        (["run", "--full-every", "0"], "unknown option '--full-every'"),
        (["run", "--scrub", "0"], "unknown option '--scrub'"),
        (["daemon", "--full"], "unknown option '--full'"),
        (["daemon", "--json"], "unknown option '--json'"),
        (["daemon", "--schedule", "never"], "'never' is no cron expression that ever comes"),
        (["daemon", "--full-every", "-1"], "argument --full-every: '-1' is no whole number"),
    ],
)
def test_what_an_action_does_not_take(casfs, store: Damaged, words: list[str], complaint: str) -> None:
    action, *options = words
    outcome = casfs("gc", action, str(store), *options)
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert outcome.complaint.startswith(complaint)
    assert blobs(store) == 3


@pytest.mark.parametrize("word", ["", "1", "-1h", "h", "1.5h", "1y", "1 h", "٣h", "99999999999d", "1H"])
def test_what_is_no_duration(casfs, store: Damaged, word: str) -> None:
    for words in (
        ["gc", "run", str(store), f"--grace={word}"],
        ["pin", "add", str(store), "/", f"--expires={word}"],
    ):
        outcome = casfs(*words)
        assert outcome.code == ExitCode.USAGE
        assert "is no duration" in outcome.complaint or "is too long" in outcome.complaint
    assert blobs(store) == 3


@pytest.mark.parametrize("word", ["", "0", "0M", "K", "-5", "x", "5X", "٣", "1MM"])
def test_what_is_no_rate(casfs, store: Damaged, word: str) -> None:
    outcome = casfs("gc", "run", str(store), f"--rate={word}")
    assert outcome.code == ExitCode.USAGE
    assert outcome.complaint.startswith("argument --rate: ")
    assert blobs(store) == 3


def test_rates() -> None:
    assert rate("500") == Rate(500, 0)
    assert rate("50M") == rate("50m") == Rate(0, 50 << 20)
    with pytest.raises(argparse.ArgumentTypeError, match="is no rate"):
        rate("0G")


@pytest.mark.parametrize("options", [[], ["--grace", "0"], ["--full"], ["--daemon"], ["--history", "--json"]])
def test_without_an_action_nothing_is_collected(casfs, store: Damaged, options: list[str]) -> None:
    for words in ([str(store), *options], [*options, str(store)]):
        outcome = casfs("gc", *words)
        assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
        assert outcome.complaint.endswith("; it is: casfs gc run|history|daemon|now STORE")
    assert blobs(store) == 3


@pytest.mark.parametrize("words", [["run"], ["run", "--dry-run"], ["history"], ["now"], ["daemon"]])
def test_there_is_no_such_store(casfs, scratch: Path, words: list[str]) -> None:
    action, *options = words
    outcome = casfs("gc", action, str(scratch / "none"), *options)
    assert outcome.code == ExitCode.STORE
    assert f"{scratch}/none does not exist" in outcome.complaint


# Collecting


def test_a_dry_run_removes_nothing(casfs, store: Damaged) -> None:
    outcome = casfs("gc", "run", str(store), "--dry-run", "--grace", "0")
    assert outcome == (ExitCode.OK, "would remove 1 blobs, 13 B; 0 are younger, or pinned\n", "")
    outcome = casfs("gc", "run", str(store), "-n", "--full")
    assert outcome.out.splitlines() == [
        "would remove 0 blobs, 0 B; 1 are younger, or pinned",
        "would remove 0 files the database does not know, 0 B",
    ]
    outcome = casfs("gc", "run", str(store), "-n", "--grace=0", "--json")
    assert json.loads(outcome.out) == {
        "full": False,
        "blobs": 1,
        "bytes": len(ORPHAN),
        "orphans": 1,
        "orphan_bytes": len(ORPHAN),
        "strays": None,
        "stray_bytes": None,
        "expired_snapshots": [],
    }
    assert blobs(store) == 3
    assert casfs("gc", "history", str(store)).out == "nothing was collected yet\n"


def test_it_removes_the_orphan_after_its_grace(casfs, store: Damaged) -> None:
    assert casfs("gc", "run", str(store)).out.startswith("removed 0 blobs, 0 B, in ")
    assert blobs(store) == 3
    outcome = casfs("gc", "run", str(store), "--grace", "0")
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    assert re.fullmatch(r"removed 1 blobs, 13 B, in \d+\.\d\d s\n", outcome.out)
    assert blobs(store) == 2


def test_as_json(casfs, store: Damaged) -> None:
    outcome = casfs("gc", "run", str(store), "--grace", "0", "--full", "--json")
    assert outcome.code == ExitCode.OK
    done = json.loads(outcome.out)
    assert (done["full"], done["blobs"], done["bytes"], done["error"]) == (True, 1, len(ORPHAN), "")
    assert (done["missing"], done["miscounted"], done["failures"]) == (0, 0, 0)


def test_history_empty_and_not(casfs, store: Damaged) -> None:
    assert casfs("gc", "history", str(store)) == (ExitCode.OK, "nothing was collected yet\n", "")
    assert json.loads(casfs("gc", "history", str(store), "--json").out) == []
    casfs("gc", "run", str(store), "--grace", "0")
    casfs("gc", "run", str(store), "--full")
    table = casfs("gc", "history", str(store)).out.splitlines()
    assert " ".join(table[0].split()) == "started kind blobs size strays failures took ended early"
    assert [line.split()[2] for line in table[1:]] == ["full", "regular"]
    newest, oldest = json.loads(casfs("gc", "history", str(store), "--json").out)
    assert (newest["kind"], oldest["blobs"], oldest["bytes"]) == ("full", 1, len(ORPHAN))


def test_history_tells_of_one_that_was_killed(casfs, store: Damaged) -> None:
    store.sql("INSERT INTO collection VALUES (1, 'regular', 1, NULL, 5, 6, 0, 0, NULL)")
    assert casfs("gc", "history", str(store)).out.splitlines()[1].endswith("it runs, or was killed")
    assert casfs("df", str(store)).out.count("5 blobs, 6 B, not ended") == 1


def test_what_a_run_complains_of_is_one_printable_line(casfs, store: Damaged) -> None:
    """Paths of the store may be in it."""
    store.sql("INSERT INTO collection VALUES (1, 'regular', 1, 2, 0, 0, 0, 0, ?)", "a\nb\x1b[31m")
    for words in (["gc", "history", str(store)], ["df", str(store)]):
        out = casfs(*words).out
        assert "\x1b" not in out
        assert "a\nb" not in out


def test_a_full_run_that_finds_problems(casfs, store: Damaged) -> None:
    store.blob(TWO).unlink()
    store.set_blob(ONE, "refs", 7)
    outcome = casfs("gc", "run", str(store), "--full")
    assert outcome.code == ExitCode.PROBLEMS
    assert outcome.out.splitlines()[1:] == [
        f"missing: {store.blob(TWO)}",
        "1 blobs are missing, 1 counted wrongly; see casfs fsck",
    ]


def test_files_that_stay_are_a_failure(casfs, store: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Durable, path: str, **_: object) -> None:
        raise PermissionError(1, os.strerror(1), path)

    monkeypatch.setattr(Durable, "unlink", refuse)
    outcome = casfs("gc", "run", str(store), "--grace", "0")
    assert (outcome.code, outcome.err) == (ExitCode.FAILED, "")
    assert outcome.out.splitlines()[1:] == [
        f"could not remove {store.blob(ORPHAN)}: Operation not permitted",
        "1 files are left; 'casfs gc run --full' tries them again",
    ]
    monkeypatch.undo()
    casfs("gc", "run", str(store), "--grace", "0", "--full")
    assert blobs(store) == 2


# Pins


def test_a_pin_of_a_file_and_of_a_directory(casfs, store: Damaged) -> None:
    outcome = casfs("pin", "add", str(store), "/a/one", "--reason", "because")
    assert outcome == (ExitCode.OK, f"pin 1 holds 1 blobs, {len(ONE) / 1024:.2f} KiB\n", "")
    assert casfs("pin", "add", str(store), "/a", "--expires", "14d").out.startswith("pin 2 holds 2 blobs, ")
    assert casfs("pin", "add", str(store), "--everything").out == "pin 3 holds everything\n"
    table = casfs("pin", "list", str(store)).out.splitlines()
    assert table[0].split() == ["pin", "holds", "since", "until", "reason"]
    assert [line.split()[0] for line in table[1:]] == ["1", "2", "3"]
    assert table[1].endswith("-  because")
    first, second, third = json.loads(casfs("pin", "list", str(store), "--json").out)
    assert (first["blobs"], first["bytes"], first["expires_ns"]) == (1, len(ONE), None)
    assert second["expires_ns"] - second["created_ns"] == 14 * 86_400 * 10**9
    assert third["everything"]
    assert casfs("gc", "run", str(store), "--grace", "0").out.startswith("removed 0 blobs")


def test_a_pin_of_nothing_that_is_sealed_says_so(casfs, store: Damaged) -> None:
    for path in ("/b/empty", "/b/fifo", "/b/symlink"):
        assert casfs("pin", "add", str(store), path).out.endswith("holds 0 blobs, 0 B\n")


@pytest.mark.parametrize("path", ["/none", "/a/none", "/a/one/below", "/a/deep/../none"])
def test_a_pin_of_what_is_not_there(casfs, store: Damaged, path: str) -> None:
    outcome = casfs("pin", "add", str(store), "/a", path)
    assert outcome.code == ExitCode.FAILED
    assert outcome.complaint.endswith(" is not in the store")
    assert casfs("pin", "list", str(store)).out == "nothing is pinned\n", "all its paths, or none"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name the paths to pin, or --everything"),
        (["/a", "--everything"], "name the paths to pin, or --everything"),
        (["a/one"], "'a/one' lies in no mount of "),
        ([""], "argument PATH: a path cannot be empty"),
        (["/a", "--reason", "two\nlines"], "argument --reason: one line of printable text is wanted"),
        (["/a", "--reason", "\udcff"], "argument --reason: one line of printable text is wanted"),
    ],
)
def test_a_pin_that_nobody_understands(casfs, store: Damaged, words: list[str], complaint: str) -> None:
    outcome = casfs("pin", "add", str(store), *words)
    assert outcome.code == ExitCode.USAGE
    assert outcome.complaint.startswith(complaint)


def test_a_pin_is_removed_once(casfs, store: Damaged) -> None:
    assert json.loads(casfs("pin", "add", str(store), "/a", "--json").out)["id"] == 1
    assert casfs("pin", "rm", str(store), "1") == (ExitCode.OK, "", "")
    outcome = casfs("pin", "rm", str(store), "1")
    assert outcome.code == ExitCode.FAILED
    assert outcome.complaint == f"there is no pin 1; casfs pin list {store} shows them"
    assert casfs("pin", "rm", str(store), "x").code == ExitCode.USAGE
    assert json.loads(casfs("pin", "list", str(store), "--json").out) == []


def test_the_grace_is_over_but_the_pin_is_not(casfs, store: Damaged) -> None:
    store.sql("INSERT INTO pinned SELECT id, 1 FROM blob WHERE refs = 0")
    store.sql("INSERT INTO pin VALUES (1, '', 0, 1, ?)", 1 << 62)
    assert casfs("gc", "run", str(store), "-n", "--grace=0").out.startswith(
        "would remove 0 blobs, 0 B; 1 are "
    )
    assert casfs("gc", "run", str(store), "--grace", "0").out.startswith("removed 0 blobs")
    store.sql("UPDATE pin SET expires_ns = 1")
    assert casfs("gc", "run", str(store), "--grace", "0").out.startswith("removed 1 blobs")
    assert json.loads(casfs("pin", "list", str(store), "--json").out) == []
