"""The protocol of hot files, wherever it can come to; and that a step done wrong is seen."""

from __future__ import annotations

import pytest

from tests.model.explorer import explore
from tests.model.staged import FAULTS, START, Protocol, problem


def test_no_interleaving_and_no_crash_loses_what_a_row_names_or_writes_to_a_blob() -> None:
    explored = explore(START, Protocol().moves, problem)
    assert explored.problem == "", "\n".join(explored.way)
    assert explored.states > 100_000


@pytest.mark.parametrize(("fault", "invariant"), FAULTS.items())
def test_a_step_done_wrong_breaks_an_invariant(fault: str, invariant: str) -> None:
    explored = explore(START, Protocol(fault).moves, problem)
    assert explored.problem.startswith(f"{invariant}: "), f"{explored.states} states, and nothing is wrong"
