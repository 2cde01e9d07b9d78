"""The storage summary against a count made by hand, and by another way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.errors import StoreNotFound
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.maintenance.offline import opened
from casfs.maintenance.repositories import Contents, contents
from casfs.maintenance.snapshots.create import create
from casfs.maintenance.snapshots.look import shown
from casfs.maintenance.usage import Usage, UsageRow, summarize, summarize_repositories
from casfs.namespace.collecting import Amount
from casfs.repositories import verbs
from casfs.repositories.filesystem import file_system
from casfs.repositories.registry import RepositoryKind
from casfs.repositories.rules import Settings
from casfs.store import Store, create_store
from tests.maintenance.stores import ONE, ORPHAN, TWO, Damaged, make_directory, make_file


def rows(usage: Usage) -> dict[bytes, tuple[int, int, int, int]]:
    return {row.name: (row.files, row.bytes, row.blobs, row.blob_bytes) for row in usage.rows}


def test_the_summary_of_a_small_store(store: Damaged) -> None:
    usage = summarize(str(store))
    one, two = len(ONE), len(TWO)
    assert rows(usage) == {
        b"a": (2, one + two, 2, one + two),
        b"b": (3, one + two, 2, one + two),  # a hard link, the content of a file in a/, an empty file
    }
    assert usage.total == UsageRow(b"", 5, 2 * (one + two), 2, one + two)
    assert (usage.orphans, usage.orphan_bytes) == (1, len(ORPHAN))
    assert (usage.staged, usage.staged_bytes) == (0, 0)


def test_an_empty_store(tmp_path: Path) -> None:
    create_store(str(tmp_path / "empty"))
    usage = summarize(str(tmp_path / "empty"))
    assert (usage.rows, usage.total, usage.orphans) == ((), UsageRow(b"", 0, 0, 0, 0), 0)


def test_what_snapshots_hold(store: Damaged) -> None:
    """Alone, and all together; the orphan of before is in none of them."""
    assert summarize(str(store)).snapshots == ()
    with opened(str(store)) as fs:
        make_file(fs, 1, b"both", b"in both of them")
        run_inline(create(fs, "a"))
        make_file(fs, 1, b"later", b"in the second one alone")
        run_inline(create(fs, "b"))
        for name in (b"both", b"later"):
            run_inline(fs.tree.unlink(1, name))
    usage = summarize(str(store))
    assert [(each.name, each.blobs, each.bytes) for each in usage.snapshots] == [("a", 0, 0), ("b", 1, 23)]
    assert (usage.held, usage.held_bytes) == (2, 15 + 23)
    assert all(each.database_bytes for each in usage.snapshots)
    assert usage.orphans == 3
    assert [shown(str(store), name)[2] for name in "ab"] == [Amount(0, 0), Amount(1, 23)]
    (store.path / "snapshots/a/casfs.db").write_bytes(b"nonsense")
    assert [(each.name, each.blobs) for each in summarize(str(store)).snapshots] == [("b", 2)]


def test_files_in_the_root_are_one_row(store: Damaged) -> None:
    with opened(str(store)) as fs:
        make_file(fs, 1, b"first", b"alike")
        make_file(fs, 1, b"second", b"alike")
    assert rows(summarize(str(store)))[b"/"] == (2, 10, 1, 5)
    assert rows(summarize(str(store)))[b"a"][0] == 2


def test_hard_links_in_one_directory_count_as_names_and_as_one_blob(store: Damaged) -> None:
    with opened(str(store)) as fs:
        run_inline(fs.tree.link(store.ino("/a/one"), store.ino("/a"), b"one too"))
    one, two = len(ONE), len(TWO)
    assert rows(summarize(str(store)))[b"a"] == (3, 2 * one + two, 2, one + two)


def test_names_are_bytes_and_rows_are_in_their_order(store: Damaged) -> None:
    with opened(str(store)) as fs:
        for name in (b"\xff\xfe", b"Z", b"\n"):
            make_directory(fs, 1, name)
    assert [row.name for row in summarize(str(store)).rows] == [b"\n", b"Z", b"a", b"b", b"\xff\xfe"]


def test_deep_and_wide_trees_add_up(scratch: Path) -> None:
    """Every file counts in the directory of the root it lies below, however deep."""
    path = str(scratch / "store")
    create_store(path, fan_out=1)
    expected: dict[bytes, list[bytes]] = {}
    with opened(path) as fs:
        for top in (b"x", b"y", b"z"):
            parent = make_directory(fs, 1, top)
            for depth in range(20):
                content = b"content %d" % (depth * len(expected) % 7)
                make_file(fs, parent, b"file", content)
                expected.setdefault(top, []).append(content)
                parent = make_directory(fs, parent, b"down")
    assert rows(summarize(path)) == {
        top: (len(all_), sum(map(len, all_)), len(set(all_)), sum(map(len, set(all_))))
        for top, all_ in expected.items()
    }
    everything = {content for all_ in expected.values() for content in all_}
    assert summarize(path).total.blobs == len(everything)


def test_a_staged_file_has_a_size_and_no_blob(store: Damaged) -> None:
    (store.path / "staging" / "00ff").write_bytes(bytes(10000))
    store.sql("UPDATE inode SET staged = '00ff', size = 10000 WHERE ino = ?", store.ino("/b/empty"))
    usage = summarize(str(store))
    assert rows(usage)[b"b"] == (3, len(ONE) + len(TWO) + 10000, 2, len(ONE) + len(TWO))
    assert usage.staged == 1
    assert usage.staged_bytes == os.stat(store.path / "staging" / "00ff").st_blocks * 512


def test_the_disk_and_the_database_are_told(store: Damaged) -> None:
    usage = summarize(str(store))
    disk = os.statvfs(store.path)
    assert usage.room.total == disk.f_blocks * disk.f_frsize
    assert 0 < usage.room.available <= usage.room.free <= usage.room.total
    assert usage.database_bytes >= os.stat(store.path / "casfs.db").st_size


def test_only_regular_files_count(store: Damaged) -> None:
    before = rows(summarize(str(store)))
    with opened(str(store)) as fs:
        for number, kind in enumerate((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR)):
            run_inline(fs.tree.make(store.ino("/a"), b"other %d" % number, kind | 0o600, 0, 0))
    assert rows(summarize(str(store))) == before


@pytest.fixture
def busy(store: Damaged) -> Iterator[FileSystem]:
    used = Store(str(store))
    fs = file_system(used, InlineScheduler())
    run_inline(fs.start())
    yield fs
    run_inline(fs.stop())
    used.close()


def test_a_store_in_use_is_shown_as_of_its_last_commit(store: Damaged, busy: FileSystem) -> None:
    before = rows(summarize(str(store)))
    make_file(busy, 1, b"new", b"not committed")
    assert rows(summarize(str(store))) == before
    run_inline(busy.group.durable())
    assert rows(summarize(str(store))) == before | {b"/": (1, 13, 1, 13)}


def test_a_blob_of_an_open_unlinked_file_is_in_use(store: Damaged, busy: FileSystem) -> None:
    inode = busy.inodes.get(make_file(busy, 1, b"gone", b"still read"))
    run_inline(busy.group.durable())
    handle = busy.files.open(inode, False, 0)
    run_inline(busy.tree.unlink(1, b"gone"))
    run_inline(busy.group.durable())
    usage = summarize(str(store))
    assert (usage.total.files, usage.total.blobs, usage.orphans) == (5, 3, 1)
    run_inline(busy.files.release(handle))
    run_inline(busy.tree.forget([inode.ino]))


def test_a_tree_with_a_loop_comes_to_an_end(store: Damaged) -> None:
    store.add_name("/a/deep", b"again", store.ino("/a"), 4)
    assert rows(summarize(str(store)))[b"a"][0] == 2


def test_nothing_is_changed_and_nothing_is_locked(store: Damaged) -> None:
    (store.path / "run").rename(store.path / "elsewhere")
    summarize(str(store))
    assert not (store.path / "run").exists()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        summarize(str(tmp_path))


def test_repositories_are_described_with_what_they_hold(store: Damaged) -> None:
    settings = Settings(layout="simple-default", rules={"quota_bytes": 100})
    with opened(str(store)) as fs:
        run_inline(verbs.create(fs, b"libs", RepositoryKind.LOCAL, settings=settings))
        module = make_directory(fs, make_directory(fs, store_ino(fs, b"libs"), b"acme"), b"app")
        make_file(fs, module, b"app-1.0.jar", b"jar")
        make_file(fs, module, b"notes", b"no artifact")
        layout = Settings(layout="ivy-default")
        run_inline(verbs.create(fs, b"view", RepositoryKind.VIEW, members=[b"libs"], settings=layout))
        run_inline(verbs.create(fs, b"all", RepositoryKind.VIRTUAL, members=[b"libs"]))
    assert [row.name for row in summarize_repositories(str(store))] == [b"all", b"libs", b"view"]
    found = {row.name: row.repository for row in summarize(str(store)).rows}
    said = {
        name: (each.kind, each.layout, each.artifacts, each.plain) for name, each in found.items() if each
    }
    assert said == {
        b"a": ("local", None, 0, True),
        b"all": ("virtual", None, 1, False),
        b"b": ("local", None, 0, True),
        b"libs": ("local", "simple-default", 1, False),
        b"view": ("view", "ivy-default", 1, False),
    }
    held = {each.name: contents(str(store), each) for each in found.values() if each}
    assert held[b"libs"] == Contents(2, 14, 0, 0)
    assert held[b"view"] == Contents(1, 0, 0, 1)
    assert held[b"all"] == Contents(2, 0, 0, 0)


def store_ino(fs: FileSystem, name: bytes) -> int:
    ino = fs.store.namespace.dentries.find(1, name)
    assert ino is not None
    return ino
