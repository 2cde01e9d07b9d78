"""Every state that can be reached, breadth first, so that the way to a bad one is among the shortest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Explored(Generic[S]):
    """What was found: how much there is, and the way to the first bad state, if there is one."""

    states: int
    steps: int
    labels: frozenset[str]
    problem: str = ""
    way: tuple[str, ...] = ()


def explore(
    start: S, moves: Callable[[S], Iterator[tuple[str, S]]], problem: Callable[[S], str]
) -> Explored[S]:
    """Go every way from `start`. `moves`: (what happens, the state then); `problem`: what is wrong, or ""."""
    came: dict[S, tuple[S, str] | None] = {start: None}
    todo = [start]
    steps = 0
    labels: set[str] = set()
    for state in todo:
        for label, after in moves(state):
            steps += 1
            if after in came:
                continue
            came[after] = (state, label)
            labels.add(label)
            wrong = problem(after)
            if wrong:
                return Explored(len(came), steps, frozenset(labels), wrong, _way(came, after))
            todo.append(after)
    return Explored(len(came), steps, frozenset(labels))


def _way(came: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    way = []
    before = came[state]
    while before is not None:
        state, label = before
        way.append(label)
        before = came[state]
    return tuple(reversed(way))
