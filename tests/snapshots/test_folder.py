"""STORE/snapshots: names, serials, and what is left by those who died in the middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec
import pytest

from casfs.errors import CasfsError, FormatError, FormatTooNew, StoreLocked, UsageError
from casfs.filestore.directory import StoreDirectory
from casfs.snapshots import folder as module
from casfs.snapshots.folder import LEFT_NS, USELESS_NS, Building, SnapshotFolder
from casfs.snapshots.manifest import SERIALS, Counts, Manifest, check_name


def manifest(name: str, serial: int, made_ns: int = 1) -> Manifest:
    return Manifest(
        name=name, serial=serial, made_ns=made_ns, uuid="u", source="/s", host="h", version="0", schema=5
    )


@pytest.fixture
def folder(scratch: Path) -> Iterator[SnapshotFolder]:
    (scratch / "store").mkdir()
    with closing(StoreDirectory(str(scratch / "store"))) as directory:
        yield SnapshotFolder(directory)


def make(folder: SnapshotFolder, name: str, made_ns: int = 1) -> None:
    with folder.building(name) as building:
        os.close(building.create_part())
        building.database_is_whole()
        building.finish(manifest(name, folder.next_serial(), made_ns))


def path_of(folder: SnapshotFolder) -> Path:
    return Path(folder.directory.path) / "snapshots"


def test_a_store_without_any(folder: SnapshotFolder) -> None:
    assert folder.names() == folder.unfinished() == folder.all() == []
    assert not folder.exists("a")
    with pytest.raises(CasfsError, match="no snapshot a"):
        folder.find("a")
    assert not path_of(folder).exists()


def test_one_is_there_when_it_is_finished(folder: SnapshotFolder) -> None:
    with folder.building("a") as building:
        assert (folder.names(), folder.unfinished()) == ([], ["a"])
        assert folder.is_being_made("a")
        assert folder.unfinished_database("a") is None
        os.close(building.create_part())
        building.database_is_whole()
        assert folder.unfinished_database("a") is not None
        building.finish(manifest("a", folder.next_serial()), Counts(1, 2, 3, 4, 5))
    assert (folder.names(), folder.unfinished()) == (["a"], [])
    assert folder.find("a").serial == 1
    assert folder.counts("a") == Counts(1, 2, 3, 4, 5)
    assert os.path.isfile(folder.database("a"))
    assert {path.name for path in (path_of(folder) / "a").iterdir()} == {
        "casfs.db",
        "manifest.json",
        "counts.json",
    }


def test_they_are_told_in_the_order_of_their_times(folder: SnapshotFolder) -> None:
    for name, made_ns in (("b", 2), ("a", 3), ("c", 1)):
        make(folder, name, made_ns)
    assert [each.name for each in folder.all()] == ["c", "b", "a"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".new-a", "a/b", "-a", "a b", "a\n", "ä", "a" * 101, "a.db\0", "../a"]
)
def test_names_that_none_may_have(folder: SnapshotFolder, name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)
    with pytest.raises(UsageError), folder.building(name):
        pass
    assert not folder.exists(name)


def test_a_name_that_is_taken(folder: SnapshotFolder) -> None:
    make(folder, "a")
    with pytest.raises(CasfsError, match="already"), folder.building("a"):
        pass
    assert folder.unfinished() == []


def test_two_do_not_make_the_same_one(folder: SnapshotFolder) -> None:
    with folder.building("a"), pytest.raises(StoreLocked), folder.building("a"):
        pass


def test_what_a_dead_maker_has_left_is_gone_on_with(folder: SnapshotFolder) -> None:
    with folder.building("a") as building:
        os.close(building.create_part())
        building.database_is_whole()
    assert not folder.is_being_made("a")
    with folder.building("a") as building:
        assert building.has_database
        building.finish(manifest("a", folder.next_serial()))
    assert folder.names() == ["a"]


def test_what_is_left_goes_when_it_is_old(folder: SnapshotFolder) -> None:
    with folder.building("old"):
        pass
    with folder.building("made"):
        folder.remove_leftovers(time.time_ns() + LEFT_NS + 10**9)
        assert folder.unfinished() == ["made"]
    (path_of(folder) / ".gone-a-1234").mkdir()
    folder.remove_leftovers(time.time_ns())
    assert folder.unfinished() == ["made"]
    assert not (path_of(folder) / ".gone-a-1234").exists()


def test_what_has_no_database_goes_soon_and_what_has_stays(folder: SnapshotFolder) -> None:
    for name in ("whole", "part", "alive"):
        with suppress(KeyboardInterrupt), folder.building(name) as building:
            os.close(building.create_part())
            if name == "whole":
                building.database_is_whole()
            if name == "alive":
                folder.remove_leftovers(time.time_ns() + USELESS_NS + 10**9)
            raise KeyboardInterrupt
    assert sorted(folder.unfinished()) == ["alive", "whole"]


def test_two_had_the_lock_of_one_name_when_its_maker_gave_it_up(
    folder: SnapshotFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = module._lock

    def slow(fd: int, *, shared: bool = False) -> bool:
        """Its maker abandons it, and another one begins it anew, before who waits has the lock."""
        monkeypatch.undo()
        Building(folder, "a", "snapshots/.new-a").abandon()
        stack.enter_context(folder.building("a"))
        return lock(fd, shared=shared)

    with ExitStack() as stack:
        monkeypatch.setattr(module, "_lock", slow)
        with pytest.raises(StoreLocked), folder.building("a"):
            pytest.fail("there are two")
        assert folder.is_being_made("a")


def test_one_that_a_backup_or_a_restore_reads_was_removed_under_it(folder: SnapshotFolder) -> None:
    make(folder, "a")
    with folder.using("a"), folder.using("a"):
        with pytest.raises(StoreLocked, match="in use"):
            folder.remove("a")
        assert folder.names() == ["a"]
    folder.remove("a")
    with pytest.raises(CasfsError, match="any more"), folder.using("a"):
        pytest.fail("it is gone")


def test_serials_are_given_once(folder: SnapshotFolder) -> None:
    for name in "abc":
        make(folder, name)
    folder.remove("c")
    make(folder, "d")
    assert [each.serial for each in folder.all()] == [1, 2, 4]


def test_serials_begin_anew_when_all_were_given(folder: SnapshotFolder) -> None:
    make(folder, "a")
    (path_of(folder) / ".serial").write_text(f"{SERIALS - 1}\n")
    assert folder.next_serial() == 2


def test_a_serial_that_is_damaged_gives_none_twice(folder: SnapshotFolder) -> None:
    make(folder, "a")
    (path_of(folder) / ".serial").write_text("nonsense")
    assert folder.next_serial() == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": "x"}',
        b"\xff",
        msgspec.json.encode(msgspec.to_builtins(manifest("other", 1))),
        msgspec.json.encode({**msgspec.to_builtins(manifest("a", 1)), "serial": 1 << 20}),
    ],
)
def test_a_damaged_manifest_is_said_in_one_line(folder: SnapshotFolder, data: bytes) -> None:
    make(folder, "a")
    make(folder, "b")
    (path_of(folder) / "a" / "manifest.json").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        folder.find("a")
    assert "\n" not in str(caught.value)
    found, problems = folder.survey()
    assert ([each.name for each in found], len(problems)) == (["b"], 1)
    folder.remove("a")
    assert folder.names() == ["b"]


def test_a_manifest_of_a_newer_casfs(folder: SnapshotFolder) -> None:
    make(folder, "a")
    (path_of(folder) / "a" / "manifest.json").write_bytes(b'{"format": 2, "what": []}')
    with pytest.raises(FormatTooNew):
        folder.find("a")


def test_a_database_that_lies_elsewhere_is_not_opened(folder: SnapshotFolder, scratch: Path) -> None:
    make(folder, "a")
    database = path_of(folder) / "a" / "casfs.db"
    os.link(database, scratch / "another")
    with pytest.raises(FormatError, match="of its own"):
        folder.database("a")
    database.unlink()
    database.symlink_to(scratch / "another")
    with pytest.raises(FormatError, match="no regular file"):
        folder.database("a")
    database.unlink()
    with pytest.raises(FormatError, match="no database"):
        folder.database("a")


def test_what_is_no_folder_is_no_snapshot(folder: SnapshotFolder) -> None:
    """It kept the collector from collecting, and `list` from showing the others."""
    make(folder, "a")
    (path_of(folder) / "notes").write_text("x")
    (path_of(folder) / "link").symlink_to("a")
    assert folder.names() == ["a"]
    assert [each.name for each in folder.all()] == ["a"]


def test_counts_that_are_damaged_are_none(folder: SnapshotFolder) -> None:
    make(folder, "a")
    assert folder.counts("a") is None
    folder.note_counts("a", Counts(1, 2, 3, 4, 5))
    assert folder.counts("a") == Counts(1, 2, 3, 4, 5)
    (path_of(folder) / "a" / "counts.json").write_text("{}")
    assert folder.counts("a") is None


def test_a_snapshot_with_long_paths_in_its_manifest_could_not_be_read(folder: SnapshotFolder) -> None:
    long = msgspec.structs.replace(
        manifest("a", 1), unsteady=("x" * 100_000,) * 100, lacking=("0" * 64,) * 10
    )
    with folder.building("a") as building:
        building.finish(long)
    found = folder.find("a")
    assert 0 < len(found.unsteady) < 100
    assert msgspec.structs.replace(found, unsteady=(), lacking=()) == manifest("a", 1)
