"""Show what a store holds and what deduplication saves.

One row per top-level directory, which is a repository, with its kind, layout,
artifacts (files that the layout knows) and quota where there are any; one for
the files in the root itself (/), and TOTAL: the files and their size, the
distinct contents (blobs) they have and the size of those, and how much less that
is. A file with several names counts for each of them; a blob that several
directories share counts in each, in TOTAL once. Below: the trash and the blobs
only it has (neither counts above), orphans (blobs no file has any more), of them
those that snapshots hold, the last collection, files being written, the database,
and the room on the file system that holds the store; and what each snapshot holds
that nothing else does. A mounted store is shown as of its last commit.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_store
from casfs.cli.output import print_facts, print_json, print_table, quota, size
from casfs.cli.places import store_of
from casfs.cli.times import moment, span
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.repositories import RepositoryFacts
    from casfs.maintenance.usage import Usage, UsageRow
    from casfs.namespace.collecting import Run
    from casfs.types import Room


def add(commands: Commands) -> None:
    parser = add_command(commands, "df", run, __doc__)
    add_store(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.gc import history
    from casfs.maintenance.usage import summarize

    store = store_of(args.store)
    usage = summarize(store)
    runs = history(store, 1)
    if args.json:
        print_json(_as_json(usage) | {"last_collection": runs[0]._asdict() if runs else None})
        return 0
    headers: tuple[str, ...] = ("directory", "files", "size", "blobs", "size", "saved")
    rows = [_as_text(printable(row.name), row) for row in usage.rows]
    rows.append(_as_text("TOTAL", usage.total))
    if any(row.repository is not None and not row.repository.plain for row in usage.rows):
        headers = (headers[0], "kind", "layout", "artifacts", *headers[1:], "quota")
        facts = [_of_repository(row.repository) for row in (*usage.rows, usage.total)]
        rows = [
            (name, *fact[:3], *figures, fact[3]) for (name, *figures), fact in zip(rows, facts, strict=True)
        ]
    print_table(headers, rows, total=True)
    print()
    print_facts(
        {
            "trash": _trash(usage),
            "orphans": f"{usage.orphans} blobs, {size(usage.orphan_bytes)}",
            **({"snapshots": _held(usage)} if usage.snapshots else {}),
            "last collection": _collection(runs[0]) if runs else "none yet",
            "staging": f"{usage.staged} files, {size(usage.staged_bytes)}",
            "database": size(usage.database_bytes),
            "file system": _room(usage.room),
        }
    )
    if usage.snapshots:
        print()
        print_table(
            ("snapshot", "blobs only it holds", "size", "names"),
            [
                (each.name, str(each.blobs), size(each.bytes), size(each.database_bytes))
                for each in usage.snapshots
            ],
        )
    return 0


def _held(usage: Usage) -> str:
    names = sum(each.database_bytes for each in usage.snapshots)
    return (
        f"{len(usage.snapshots)}, which hold {usage.held} blobs, {size(usage.held_bytes)}, and {size(names)}"
    )


def _collection(run: Run) -> str:
    text = f"{moment(run.started_ns)}, {run.kind}, {run.blobs} blobs, {size(run.bytes)}"
    if run.ended_ns is None:
        return f"{text}, not ended"
    text += f" in {span(run.ended_ns - run.started_ns)}"
    return f"{text}, ended early: {printable(run.error)}" if run.error else text


def _trash(usage: Usage) -> str:
    freed = f"; emptying it frees {size(usage.trash_blob_bytes)}" if usage.trash_files else ""
    return f"{usage.trash_files} files, {size(usage.trash_bytes)}{freed}"


def _room(room: Room) -> str:
    return f"{size(room.total)}, {size(room.total - room.free)} used, {size(room.available)} available"


def saved_percent(row: UsageRow) -> float:
    """How much smaller the blobs are than the files that show them."""
    return 100 * (1 - row.blob_bytes / row.bytes) if row.bytes else 0.0


def _as_text(name: str, row: UsageRow) -> tuple[str, ...]:
    if row.repository is not None and row.repository.kind != "local":
        return (name, "-", "-", "-", "-", "-")
    counts = (str(row.files), size(row.bytes), str(row.blobs), size(row.blob_bytes))
    return (name, *counts, f"{saved_percent(row):.1f} %")


def _of_repository(repository: RepositoryFacts | None) -> tuple[str, str, str, str]:
    """Kind, layout, artifacts, quota."""
    if repository is None:
        return "", "", "", ""
    return repository.kind, repository.layout or "-", str(repository.artifacts), quota(repository.rules)


def _as_json(usage: Usage) -> dict[str, Any]:
    from dataclasses import asdict

    def with_saving(row: UsageRow) -> dict[str, Any]:
        facts = asdict(row)
        del facts["repository"]
        return facts | {"saved_percent": round(saved_percent(row), 2)} | repository_facts(row.repository)

    return asdict(usage) | {
        "rows": [with_saving(row) for row in usage.rows],
        "total": with_saving(usage.total),
    }


def repository_facts(repository: RepositoryFacts | None) -> dict[str, Any]:
    """For a program."""
    if repository is None:
        return {}
    return {
        "kind": repository.kind,
        "layout": repository.layout,
        "artifacts": repository.artifacts,
        "quota_bytes": repository.rules.quota_bytes,
        "quota_files": repository.rules.quota_files,
    }
