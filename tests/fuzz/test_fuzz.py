"""A minute of the fuzzer; `scripts/fuzz SECONDS` goes on for as long as one likes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.calls import directory
from tests.fuzz.dice import Dice
from tests.fuzz.duel import Difference, Duel
from tests.fuzz.fuzz import Fuzz
from tests.fuzz.shrink import shrunk
from tests.mounted.mounts import MODES

SEED = 20261128
LIVES = (("duel", "crowd", "duel"), ("crowd", "duel", "duel"))
"""The rounds of each daemon."""


@pytest.fixture(params=MODES)
def fuzz(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fuzz]:
    """On a disk: what is passed through is the file below."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    run = Fuzz(tmp_path / "folder", tmp_path / "model", request.param, SEED)
    try:
        yield run
    finally:
        run.clear()


@pytest.mark.mounted
@pytest.mark.alone
def test_random_requests_are_answered_as_on_the_disk_and_leave_everything_whole(fuzz: Fuzz) -> None:
    for rounds in LIVES:
        fuzz.life(time.monotonic() + 600, rounds)
    assert fuzz.counts["steps"] >= 1_000
    assert fuzz.counts["requests"] >= 100


@pytest.mark.mounted
def test_a_difference_is_found_and_made_short(fuzz: Fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount does what it should; the disk is made to err."""
    dice = Dice(SEED)
    steps = [dice.step() for _ in range(300)]
    fuzz.start()
    real = Duel.both

    def both(duel: Duel, step: object) -> None:
        place = duel.model.root / "a"
        if place.is_file():
            place.chmod(0o123)
        real(duel, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Duel, "both", both)
    with pytest.raises(Difference) as found:
        fuzz.fight(steps, fuzz.place(), fuzz.model / "first")
    fewest = fuzz.shrink(found.value, 60)
    assert 1 <= len(fewest.steps) <= 3
    assert fewest.kind == found.value.kind
    fuzz.unmount()


def test_a_list_is_made_as_short_as_can_be() -> None:
    asked: list[int] = []

    def fails(steps: list[int]) -> list[int] | None:
        asked.append(len(steps))
        if not {3, 77} <= set(steps):
            return None
        return list(steps[: max(steps.index(3), steps.index(77)) + 1])

    assert shrunk(list(range(100)), fails) == [3, 77]  # type: ignore[arg-type]
    assert len(asked) < 60


def test_the_same_seed_gives_the_same_steps() -> None:
    first, second, other = Dice(1), Dice(1), Dice(2)
    steps = [first.step() for _ in range(200)]
    assert steps == [second.step() for _ in range(200)]
    assert steps != [other.step() for _ in range(200)]


def test_directories_are_read_from_any_position(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"file{number}").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    entries = list(directory(fd, 300))
    assert sorted(name for name, _ in entries) == sorted([".", "..", *os.listdir(tmp_path)])
    os.lseek(fd, entries[20][1], os.SEEK_SET)
    assert [name for name, _ in directory(fd, 300)] == [name for name, _ in entries[21:]]
    os.close(fd)
