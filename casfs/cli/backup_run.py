"""`casfs backup run`."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import (
    Commands,
    Parser,
    add_command,
    add_json,
    add_path,
    add_store,
    byte_rate,
    duration,
    text,
)
from casfs.cli.backup_progress import print_event, told
from casfs.cli.output import size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import span
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.backup.healing import Lost
    from casfs.maintenance.backup.run import BackupResult

_RUN = """Back up a store, in use or not, into another store.

DEST is made if there is nothing. Where there has been one before, that is
refused: its disk may not be mounted. What DEST has already is not copied. A
backup that is interrupted is not listed; the next one goes on with what was
copied.

PATTERN: as in fnmatch(3), of the names in the root.

Exit code 0: done; 5: done, but some contents could not be read, whose files are
named; 130: interrupted.
"""

PATHS_TOLD = 20
"""Files that are named on the terminal; --json has more."""


def add_run(actions: Commands) -> None:
    parser = add_command(actions, "run", _run, _RUN)
    add_store(parser)
    add_destination(parser)
    parser.add_argument(
        "--include", metavar="PATTERN", action="append", default=[], help="only what is called so"
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="not what is called so"
    )
    parser.add_argument("--no-content", action="store_true", help="names, attributes and digests only")
    parser.add_argument("--rate", metavar="RATE", type=byte_rate, help="copy so much at the most")
    parser.add_argument("--reason", default="", type=text, help="a line for those who wonder")
    parser.add_argument(
        "--job", metavar="NAME", default="", type=text, help="the schedule that it belongs to"
    )
    parser.add_argument("--expires", metavar="DURATION", type=duration, help="it may go after so long")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--require-existing", action="store_true", help="never make DEST")
    where.add_argument("--init", action="store_true", help="make DEST anew, even where there has been one")
    add_json(parser)


def add_destination(parser: Parser) -> None:
    add_path(parser, "DEST", "the store that has the backups")


def _run(args: argparse.Namespace) -> int:
    from casfs.control.backups import BackupAccess
    from casfs.maintenance.backup.options import BackupOptions
    from casfs.maintenance.backup.run import run_backup
    from casfs.snapshots.manifest import check_name

    if args.expires == 0:
        raise UsageError("a backup that expires at once is none", "--expires 90d, as an example")
    if args.job:
        check_name(args.job)
    options = BackupOptions(
        job=args.job,
        reason=args.reason,
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        content=not args.no_content,
        rate=0 if args.rate is None else max(1, int(args.rate)),
        expires_ns=None if args.expires is None else time.time_ns() + args.expires * 10**9,
    )
    store = store_of(args.store)
    _check_destination(store, args.dest)
    with stop_on_signals() as stop, told(as_json=args.json) as progress:
        result = run_backup(
            store,
            args.dest,
            options,
            access=BackupAccess(),
            progress=progress,
            stop=stop,
            existing=args.require_existing,
            new=args.init,
        )
    if args.json:
        _print_event(result)
    else:
        _print(result)
    if result.manifest is None:
        return ExitCode.INTERRUPTED
    return ExitCode.PROBLEMS if result.lost else ExitCode.OK


def _check_destination(store: str, destination: str) -> None:
    """A store in its own mount would back up itself."""
    import os

    from casfs.errors import NotMounted
    from casfs.service.mounts import find_mount

    place = os.path.realpath(destination)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    try:
        mount, _ = find_mount(place)
    except NotMounted:
        return
    if mount.store == os.path.realpath(store):
        raise UsageError(f"{destination} lies in the mount of {store}", "back up to another file system")


def _print(result: BackupResult) -> None:
    manifest = result.manifest
    if manifest is None:
        copied = f"{result.copied_blobs} contents, {size(result.copied_bytes)}"
        print(f"interrupted; {copied}, have been copied, which the next backup goes on with")
        return
    assert result.counts is not None
    files = f"{result.counts.files} files, {size(result.counts.bytes)}"
    new = f"{manifest.new_blobs} contents, {size(manifest.new_bytes)}, are new"
    print(f"backup {manifest.name}: {files}; {new}; in {span(manifest.ended_ns - manifest.started_ns)}")
    if manifest.left_out:
        print(f"left out: {', '.join(map(printable, manifest.left_out))}")
    if result.healed:
        print(f"healed {result.healed} contents of the store, which was damaged")
    for lost in result.lost[:PATHS_TOLD]:
        _print_lost(lost)
    if result.lost:
        print(f"{len(result.lost)} contents could not be read, and are lacking")


def _print_lost(lost: Lost) -> None:
    from casfs.cli.scrub import print_paths

    print(f"lost: content {lost.digest.hex()} ({size(lost.size)}) {printable(lost.reason)}")
    print_paths(lost.paths)


def _print_event(result: BackupResult) -> None:
    import os

    import msgspec

    facts: dict[str, Any] = {
        "copied_blobs": result.copied_blobs,
        "copied_bytes": result.copied_bytes,
        "seconds": round(result.seconds, 3),
        "healed": result.healed,
    }
    for lost in result.lost:
        print_event(
            "lost",
            digest=lost.digest.hex(),
            size=lost.size,
            reason=lost.reason,
            paths=[os.fsdecode(path) for path in lost.paths],
        )
    if result.manifest is None:
        print_event("interrupted", **facts)
        return
    facts |= msgspec.to_builtins(result.manifest)
    facts["counts"] = msgspec.to_builtins(result.counts)
    print_event("done", **facts)
