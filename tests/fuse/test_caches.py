"""Which request may wait until the kernel has been told of names."""

from __future__ import annotations

import pytest

from casfs.fs.scheduler import InlineScheduler
from casfs.fuse.caches import Telling, may_wait


def telling(held: set[int], wanted: set[int]) -> Telling:
    names = [(directory, b"name") for directory in wanted]
    return Telling(frozenset(held), names, 0.0, InlineScheduler().event())


@pytest.mark.parametrize(
    ("directory", "held", "others", "may"),
    [
        (1, {2}, [], True),
        (1, {1}, [], False),
        (1, set(), [({1}, {2})], True),
        (1, {2}, [({1}, {3})], True),
        (1, {2}, [({1}, {2})], False),
        (1, {2}, [({1}, {3, 2})], False),
        (1, {2}, [({3}, {2}), ({1}, {3})], False),
        (1, {2}, [({3}, {2}), ({1}, {4})], True),
        (1, {2, 5}, [({1}, {3}), ({3}, {1}), ({4}, {5})], True),
    ],
)
def test_nobody_waits_for_who_waits_for_him(
    directory: int, held: set[int], others: list[tuple[set[int], set[int]]], may: bool
) -> None:
    waiting = [telling(*each) for each in others]
    assert may_wait(directory, frozenset(held), waiting) is may
    assert may_wait(directory, frozenset(held), waiting[::-1]) is may
