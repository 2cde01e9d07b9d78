"""The storage summary: what a store holds, what deduplication saves.

A store in use is read as its last commit left it; the figures of several directories may be of two
commits in a row.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

from casfs.namespace.usage import Figures, TopDirectory, UsageReader
from casfs.store import Store, database_path
from casfs.types import Room

MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What regular files below one directory hold.

    `files` counts names: a file with two hard links counts twice, in `bytes` (apparent sizes) too.
    `blobs` and `blob_bytes` count each distinct content once in the row, whoever else has it.
    """

    name: bytes
    files: int
    bytes: int
    blobs: int
    blob_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """`rows`: the top-level directories by name, then the files in the root itself as `/` if there are any.

    `total` has the sums of `files` and `bytes`, and every blob in use once: contents that several rows
    share, and those of unlinked files that are still open. `staged` counts the files being written that
    take room on disk already; `orphans` the blobs no file has any more.
    """

    rows: tuple[UsageRow, ...]
    total: UsageRow
    orphans: int
    orphan_bytes: int
    staged: int
    staged_bytes: int
    database_bytes: int
    room: Room


class _Task(NamedTuple):
    """A share of a top-level directory: every `parts`-th blob."""

    top: TopDirectory
    part: int
    parts: int


def summarize(path: str) -> Usage:
    """Raises StoreNotFound, FormatError, FormatTooNew, OSError."""
    store = Store(path, readonly=True)
    try:
        with closing(UsageReader(database_path(store.path))) as reader:
            rows = _rows(reader)
            blobs, blob_bytes, orphans, orphan_bytes = reader.blob_totals()
            database_bytes = reader.database_bytes()
        staged, staged_bytes = store.filestore.staging.usage()
        files, shown = sum(row.files for row in rows), sum(row.bytes for row in rows)
        total = UsageRow(b"", files, shown, blobs, blob_bytes)
        room = store.filestore.room()
    finally:
        store.close()
    return Usage(rows, total, orphans, orphan_bytes, staged, staged_bytes, database_bytes, room)


def _rows(reader: UsageReader) -> tuple[UsageRow, ...]:
    tops = reader.tops()
    figures = _measure(reader, tops)
    rows = [UsageRow(top.name, *figures[top]) for top in tops]
    in_root = reader.in_root()
    if in_root.files:
        rows.append(UsageRow(b"/", *in_root))
    return tuple(rows)


def _measure(reader: UsageReader, tops: list[TopDirectory]) -> dict[TopDirectory, Figures]:
    """The figures of each directory, by several threads with a connection each."""
    threads = max(1, min(MAX_THREADS, os.cpu_count() or 1))
    tasks = _share(tops, threads)
    figures = dict.fromkeys(tops, Figures(0, 0, 0, 0))
    with ExitStack() as stack:
        readers: SimpleQueue[UsageReader] = SimpleQueue()
        for _ in range(min(threads, len(tasks))):
            readers.put(stack.enter_context(closing(UsageReader(reader.path))))

        def run(task: _Task) -> Figures:
            mine = readers.get()
            try:
                return mine.below(task.top.ino, task.part, task.parts)
            finally:
                readers.put(mine)

        with ThreadPoolExecutor(threads) as pool:
            for task, result in zip(tasks, pool.map(run, tasks), strict=True):
                figures[task.top] = figures[task.top].plus(result)
    return figures


def _share(tops: list[TopDirectory], threads: int) -> list[_Task]:
    """The work, largest first. A directory with most of everything is shared, each part walking all of it."""
    everything = sum(top.directories for top in tops)
    tasks = []
    for top in sorted(tops, key=lambda top: top.directories, reverse=True):
        parts = threads if 2 * top.directories > everything else 1
        tasks += [_Task(top, part, parts) for part in range(parts)]
    return tasks
