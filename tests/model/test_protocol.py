"""The protocol, wherever it can come to; and that the explorer sees it when a step is done wrong."""

from __future__ import annotations

import pytest

from tests.model.explorer import explore
from tests.model.faults import FAULTS
from tests.model.protocol import Protocol
from tests.model.state import START, problem


def test_no_interleaving_and_no_crash_leaves_a_dangling_row_or_loses_what_was_synced() -> None:
    explored = explore(START, Protocol().moves, problem)
    assert explored.problem == "", "\n".join(explored.way)
    assert explored.states == 410_560, "casfs/help/testing.txt and this say how many there are"
    assert {
        *("daemon: Blobs.insert", "daemon: FileStore.has", "daemon: FileStore.has, no"),
        *("daemon: FileStore.accept", "daemon: FileStore.publish_staged", "daemon: Durable.unlink"),
        *("daemon: FileStore.spare", "asked: _take", "asked: Durable.unlink", "asked: collect, ended"),
        *("asked: FileStore.remove_condemned, spared", "asked: FileStore.remove_condemned, failed"),
        *("gc: recheck", "gc: recheck, none", "gc: Durable.unlink"),
        *(
            "gc: recheck_strays",
            "gc: recheck_strays, none",
            "daemon: recover",
            "commit: GroupCommit._drop_unused",
        ),
        *("SIGKILL of the daemon", "SIGKILL of the collector", "SIGKILL of both"),
        *("power loss", "the file is lost"),
        *("snapshot: _take", "snapshot: Building.database_is_whole", "snapshot: SnapshotFolder.remove"),
    } <= explored.labels


@pytest.mark.parametrize(("fault", "invariant"), FAULTS.items())
def test_a_step_done_wrong_breaks_an_invariant(fault: str, invariant: str) -> None:
    explored = explore(START, Protocol(fault).moves, problem)
    assert explored.problem.startswith(f"{invariant}: "), f"{explored.states} states, and nothing is wrong"
    assert explored.way
