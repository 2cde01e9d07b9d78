"""`casfs backup list`, `verify` and `mount`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_any, add_command, add_json, add_path, byte_rate
from casfs.cli.backup_progress import print_event, told
from casfs.cli.backup_run import add_destination
from casfs.cli.output import print_json, print_table, size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment, span
from casfs.errors import ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.backup.verify import VerifyReport
    from casfs.snapshots.manifest import Counts, Manifest

_VERIFY = """Read what backups refer to, and compare it with its digests.

Without NAME all of them; a content that several have is read once. What is
damaged is taken out of the way and noted: the next backup brings it anew, if
its source has it still.

Exit code 0: all is there; 5: something is not, whose files are named.
"""

_MOUNT = """Show the backups in DEST, read-only.

Each is a directory in MOUNTPOINT/.casfs/snapshots. 'casfs umount MOUNTPOINT'
ends it.
"""

PATHS_TOLD = 20


def add_list(actions: Commands) -> None:
    parser = add_command(actions, "list", _list, "Show the backups, oldest first.")
    add_destination(parser)
    add_json(parser)


def add_verify(actions: Commands) -> None:
    parser = add_command(actions, "verify", _verify, _VERIFY)
    add_destination(parser)
    add_any(parser, "names", "NAME", "as 'casfs backup list' shows it")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--all", action="store_true", help="read all; so it is without --sample")
    how.add_argument("--sample", metavar="N%", type=_percent, help="read so many of them, chosen by lot")
    parser.add_argument("--rate", metavar="RATE", type=byte_rate, help="read so much at the most")
    add_json(parser)


def add_mount(actions: Commands) -> None:
    parser = add_command(actions, "mount", _mount, _MOUNT)
    add_destination(parser)
    add_path(parser, "MOUNTPOINT", "an existing directory to mount it on")


def _percent(word: str) -> float:
    """An argument's type: `5%`, or `5`, as a share."""
    try:
        share = float(word.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"'{word}' is no share: write it as 5%")
    return share


def _list(args: argparse.Namespace) -> int:
    from casfs.maintenance.backup.listing import backups

    found = backups(store_of(args.dest))
    if args.json:
        print_json([_as_json(manifest, counts) for manifest, counts in found.snapshots])
    elif found.snapshots:
        headers = ("backup", "made", "source", "job", "files", "size", "new", "took", "result")
        print_table(headers, [_as_text(*each) for each in found.snapshots])
    elif not found.problems:
        print("there are no backups")
    for problem in found.problems:
        print(f"casfs: {printable(problem)}", file=sys.stderr)
    return ExitCode.PROBLEMS if found.problems else ExitCode.OK


def result_of(manifest: Manifest) -> str:
    if manifest.lacking:
        return f"{len(manifest.lacking)} contents are lacking"
    return "ok" if manifest.content else "names only"


def _as_text(manifest: Manifest, counts: Counts | None) -> tuple[str, ...]:
    return (
        manifest.name,
        moment(manifest.made_ns),
        printable(f"{manifest.host}:{manifest.source}"),
        printable(manifest.job) or "-",
        "?" if counts is None else str(counts.files),
        "?" if counts is None else size(counts.bytes),
        size(manifest.new_bytes),
        span(max(0, manifest.ended_ns - manifest.started_ns)),
        result_of(manifest),
    )


def _as_json(manifest: Manifest, counts: Counts | None) -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(manifest)
    facts["result"] = result_of(manifest)
    return facts | (msgspec.to_builtins(counts) if counts is not None else {})


def _verify(args: argparse.Namespace) -> int:
    from casfs.control.backups import BackupAccess
    from casfs.maintenance.backup.verify import verify
    from casfs.snapshots.manifest import check_name

    for name in args.names:
        check_name(name)
    with stop_on_signals() as stop, told(as_json=args.json) as progress:
        report = verify(
            store_of(args.dest),
            tuple(args.names),
            access=BackupAccess(),
            share=1.0 if args.sample is None else args.sample,
            rate=0 if args.rate is None else max(1, int(args.rate)),
            progress=progress,
            stop=stop,
        )
    if args.json:
        print_event("done", **_report_as_json(report))
    else:
        _print(report)
    if report.bad or report.problems:
        return ExitCode.PROBLEMS
    return ExitCode.OK if report.complete else ExitCode.INTERRUPTED


def _print(report: VerifyReport) -> None:
    from casfs.cli.scrub import print_paths

    for bad in report.bad[:PATHS_TOLD]:
        print(f"backup {bad.backup}: content {bad.digest.hex()} ({size(bad.size)}) {printable(bad.reason)}")
        print_paths(bad.paths)
    for problem in report.problems:
        print(printable(problem))
    read = f"{report.read} of {report.blobs} contents read, {size(report.read_bytes)}"
    end = "" if report.complete else "; interrupted"
    print(f"{len(report.backups)} backups: {read}; {report.bad_contents} are damaged or missing{end}")


def _report_as_json(report: VerifyReport) -> dict[str, Any]:
    import os

    return {
        "backups": report.backups,
        "blobs": report.blobs,
        "read": report.read,
        "read_bytes": report.read_bytes,
        "bad": [
            bad._asdict() | {"digest": bad.digest.hex(), "paths": [os.fsdecode(path) for path in bad.paths]}
            for bad in report.bad
        ],
        "bad_contents": report.bad_contents,
        "problems": report.problems,
        "complete": report.complete,
    }


def _mount(args: argparse.Namespace) -> int:
    from casfs.fuse.options import MountOptions
    from casfs.service.mountd import mount

    code = mount(args.dest, args.mountpoint, MountOptions.parse(["ro"]), False)
    if code == ExitCode.OK:
        print(f"the backups are in {args.mountpoint}/.casfs/snapshots")
    return code
