"""Read every blob and compare it with its digest.

Finds flipped bytes, truncated, oversized and missing blobs, while the store is
mounted or not, and names every path that is affected. A bad file goes to
STORE/quarantine: reading its content then gives an I/O error, not wrong bytes,
until the same content is written again or 'casfs heal' puts it back.

Further digests ('casfs help digests') are compared in the same read; a wrong
one gets the value of the bytes.

A run that was cut off is continued by the next one.

Exit code 0: every blob that was read is whole, and none is known to be damaged;
5: there are damaged ones; 1: it ended early by an error.

More: casfs help bit-rot
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import Commands, add_command, add_json, add_store, byte_rate, duration
from casfs.cli.output import print_json, progress_bar, size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.errors import ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.scrub.scrub import BadBlob, ScrubReport

PATHS = 20
"""Paths that are printed of one blob."""


def add(commands: Commands) -> None:
    parser = add_command(commands, "scrub", run, __doc__)
    add_store(parser)
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--rate", metavar="RATE", type=byte_rate, help="read so much at the most")
    speed.add_argument("--period", metavar="DURATION", type=duration, help="take about so long for all blobs")
    parser.add_argument("--restart", action="store_true", help="begin with the first blob again")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.maintenance.scrub.scrub import scrub
    from casfs.store import Store

    if args.period == 0:
        raise UsageError("a scrub takes more than no time", "--period 30d, as an example")
    store = Store(store_of(args.store), shared=True)
    try:
        with progress_bar() as progress, stop_on_signals() as stop:
            report = scrub(
                store,
                rate=args.rate,
                period=args.period,
                restart=args.restart,
                progress=progress,
                damaged=StoreAccess(store.path).damaged,
                stop=stop,
            )
    finally:
        store.close()
    if args.json:
        print_json(_as_json(report))
    else:
        _print(report)
    if report.error:
        return ExitCode.FAILED
    if report.known:
        return ExitCode.PROBLEMS
    return ExitCode.OK if report.complete else ExitCode.INTERRUPTED


def _as_json(report: ScrubReport) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(report)


def _print(report: ScrubReport) -> None:
    for bad in report.bad:
        print_bad(bad)
    how = f"{report.blobs} blobs, {size(report.bytes)} in {report.seconds:.1f} s"
    words = [f"{len(report.bad)} damaged" if report.bad else "all whole"]
    if report.cleared:
        words.append(f"{report.cleared} whole again")
    if report.digests:
        words.append(f"{report.digests} further digests were wrong, and are right now")
    if report.resumed:
        words.append("went on with a run that was cut off")
    if not report.complete:
        words.append("stopped: the next run goes on here")
    print(f"{printable(report.store)}: read {how}: {', '.join(words)}")
    if report.known > len(report.bad):
        print(f"{report.known} blobs are known to be damaged or missing")
    if report.known:
        print("'casfs heal --from DIR|STORE' puts them back from a copy")
    if report.error:
        print(f"ended early: {printable(report.error)}")


def print_bad(bad: BadBlob) -> None:
    """A damaged blob with the paths that cannot be read any more."""
    known = ", known" if bad.known else ""
    print(f"{bad.kind} {bad.digest} ({size(bad.size)}){known}: {printable(bad.reason)}")
    print_paths(bad.paths)
    if bad.quarantined is not None:
        print(f"  file: {printable(bad.quarantined)}")


def print_paths(paths: Sequence[bytes]) -> None:
    for path in paths[:PATHS]:
        print(f"  {printable(path)}")
    if len(paths) > PATHS:
        print(f"  and {len(paths) - PATHS} more, which --json tells")
