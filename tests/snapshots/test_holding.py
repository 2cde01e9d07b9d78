"""What snapshots hold back from collection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FormatError
from casfs.fs.scheduler import run_inline
from casfs.maintenance.snapshots.create import create
from casfs.namespace import copies
from casfs.snapshots import holding as module
from casfs.snapshots.folder import SnapshotFolder
from casfs.snapshots.holding import Holds
from tests.session import Session

OLD, NEW, OTHER = b"old " * 10, b"new " * 20, b"other " * 30
DIGESTS = [blake3(content).digest() for content in (OLD, NEW, OTHER)]


@pytest.fixture
def holds(session: Session) -> Iterator[Holds]:
    with closing(Holds(session.store.directory)) as holds:
        yield holds


def take(session: Session, name: str) -> None:
    run_inline(create(session.fs, name))


def test_nothing_is_held_without_any(session: Session, holds: Holds) -> None:
    assert holds.nothing
    assert holds.held(DIGESTS) == set()


def test_each_holds_what_it_refers_to(session: Session, holds: Holds) -> None:
    kernel = session.kernel
    kernel.write_file("file", OLD)
    take(session, "a")
    kernel.unlink("file")
    kernel.write_file("file", NEW)
    take(session, "b")
    assert not holds.nothing
    assert holds.held(DIGESTS) == set(DIGESTS[:2])
    first = holds.asked
    SnapshotFolder(session.store.directory).remove("a")
    assert holds.held(DIGESTS) == {DIGESTS[1]}
    assert len(first) == 2
    assert holds.held(DIGESTS, holds.asked) == set()


def test_one_that_is_being_made_holds_everything_until_it_is_known(session: Session, holds: Holds) -> None:
    kernel = session.kernel
    kernel.write_file("file", OLD)
    take(session, "a")
    folder = SnapshotFolder(session.store.directory)
    with folder.building("b") as building:
        assert holds.held(DIGESTS) == set(DIGESTS)
        os.close(building.create_part())
        assert holds.held(DIGESTS) == set(DIGESTS)
        Path(building.part).write_bytes(Path(folder.database("a")).read_bytes())
        building.database_is_whole()
        folder.remove("a")
        assert holds.held(DIGESTS) == {DIGESTS[0]}
    assert holds.held(DIGESTS) == {DIGESTS[0]}  # its maker died: for some days somebody may go on with it
    folder.abandon("b")
    assert holds.nothing


def test_what_a_dead_maker_has_begun_holds_nothing(session: Session, holds: Holds) -> None:
    with SnapshotFolder(session.store.directory).building("a"):
        pass
    assert holds.held(DIGESTS) == set()
    SnapshotFolder(session.store.directory).abandon("a")


def test_where_one_cannot_be_asked_nothing_may_go(session: Session, holds: Holds) -> None:
    session.kernel.write_file("file", OLD)
    take(session, "a")
    database = Path(SnapshotFolder(session.store.directory).database("a"))
    data = database.read_bytes()
    database.write_bytes(b"nonsense")
    with pytest.raises(FormatError):
        holds.held(DIGESTS)
    database.write_bytes(data)


def test_hundreds_of_snapshots_took_all_descriptors_and_much_memory(
    session: Session, holds: Holds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_LIMIT", 2)
    opened: list[int] = []
    connect = copies.Namespace

    def watched(path: str, *, readonly: bool, frozen: bool, cache_kib: int) -> copies.Namespace:
        opened.append(cache_kib)
        return connect(path, readonly=readonly, frozen=frozen, cache_kib=cache_kib)

    for number, content in enumerate((OLD, NEW, OTHER)):
        session.kernel.write_file("file", content)
        take(session, f"{number}")
    monkeypatch.setattr(copies, "Namespace", watched)
    for _ in range(2):
        assert holds.held(DIGESTS) == set(DIGESTS)
        assert len(holds.asked) == 2
    assert len(opened) == 4
    assert max(opened) <= 1_000
    held_by_the_third = set(DIGESTS) - set().union(*(each.held(DIGESTS) for each in holds._asked.values()))
    assert holds.held(DIGESTS, holds.asked) == held_by_the_third
    assert len(held_by_the_third) == 1
