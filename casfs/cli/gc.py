"""Remove the blobs that no file has any more.

A content whose last file was removed or overwritten is an orphan; it goes when
it has been one for the grace period. That happens beside everything else: a
mounted store stays in use. A full run also compares the files in the store with
the database, removes old files that it does not know, and names those that are
missing. What was done is kept, see --history.

With --daemon it stays, in the foreground, and collects by a schedule (as
crontab(5), in local time), at once when told so by --now or SIGUSR1, and when it
starts if a run was missed meanwhile. A mount without such a daemon collects by
itself.

Exit code 0: done; 1: files could not be removed; 5: a full run has found blobs
that are missing or counted wrongly (casfs fsck tells more).

More: casfs help collecting
"""

from __future__ import annotations

import argparse
import math
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from casfs.cli.arguments import Commands, add_command, add_json, add_path, byte_rate, count, duration
from casfs.cli.output import print_json, print_table, printable, progress, size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment, span
from casfs.errors import CasfsError, ExitCode, UsageError

if TYPE_CHECKING:
    from casfs.maintenance.collect.gc import Limits, Outcome, Plan
    from casfs.namespace.collecting import Run

HISTORY = 20
"""Runs that --history shows."""


class Rate(NamedTuple):
    """So many blobs, or bytes of them, each second; 0 = any."""

    blobs: int
    bytes: int


def add(commands: Commands) -> None:
    parser = add_command(commands, "gc", run, __doc__)
    add_path(parser, "STORE", "a store, or a path in the mount of one")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be removed, and end")
    parser.add_argument("--full", action="store_true", help="compare files and database too")
    parser.add_argument(
        "--grace",
        metavar="TIME",
        type=duration,
        help="let younger orphans be: 0, 10m, 14d; without it 1h",
    )
    parser.add_argument("--rate", type=rate, help="each second at most 500 blobs, or 50M bytes of them")
    parser.add_argument("--history", action="store_true", help=f"show the last {HISTORY} runs")
    parser.add_argument("--daemon", action="store_true", help="stay and collect by --schedule")
    parser.add_argument("--schedule", metavar="CRON", help="five fields; without it '0 */4 * * *'")
    parser.add_argument(
        "--full-every", metavar="N", type=count, help="every Nth run is full; 0: none is; without it 42"
    )
    parser.add_argument(
        "--scrub",
        metavar="TIME",
        type=duration,
        help="read every blob once in so long; 0: never; without it 30d",
    )
    parser.add_argument("--now", action="store_true", help="let the daemon collect at once")
    add_json(parser)


def rate(word: str) -> Rate:
    """An argument's type: `500` blobs, or with a unit `50M` bytes."""
    if not (word.isascii() and word.isdecimal()):
        return Rate(0, math.ceil(byte_rate(word)))
    number = count(word)
    if not number:
        raise argparse.ArgumentTypeError("a rate of 0 would never end")
    return Rate(number, 0)


def run(args: argparse.Namespace) -> int:
    _check(args)
    store = store_of(args.store)
    if args.history:
        return _history(store, as_json=args.json)
    if args.now:
        return _now(store)
    if args.daemon:
        return _daemon(store, args)
    return _dry_run(store, args) if args.dry_run else _collect(store, args)


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError for options that do not go together."""
    modes = {"--dry-run": args.dry_run, "--history": args.history, "--daemon": args.daemon, "--now": args.now}
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} do not go together")
    given = {
        "--full": args.full,
        "--grace": args.grace is not None,
        "--rate": args.rate is not None,
        "--json": args.json,
        "--schedule": args.schedule is not None,
        "--full-every": args.full_every is not None,
        "--scrub": args.scrub is not None,
    }
    mode = chosen[0] if chosen else ""
    for name, is_given in given.items():
        if is_given and name not in _OPTIONS[mode]:
            raise UsageError(f"{name} is not for {mode}" if mode else f"{name} is for --daemon")


_OPTIONS = {
    "": ("--full", "--grace", "--rate", "--json"),
    "--dry-run": ("--full", "--grace", "--json"),
    "--history": ("--json",),
    "--daemon": ("--grace", "--rate", "--schedule", "--full-every", "--scrub"),
    "--now": (),
}
"""Options that each mode takes."""


def _grace_ns(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.gc import GRACE_NS

    return GRACE_NS if args.grace is None else int(args.grace) * 10**9


def _limits(args: argparse.Namespace) -> Limits:
    from casfs.maintenance.collect.gc import NO_LIMITS, Limits

    return NO_LIMITS if args.rate is None else Limits(args.rate.blobs, args.rate.bytes)


def _daemon(store: str, args: argparse.Namespace) -> int:
    from casfs.maintenance.scrub.scrub import PERIOD
    from casfs.service.gcd import FULL_EVERY, SCHEDULE, Settings, serve

    full_every = FULL_EVERY if args.full_every is None else args.full_every
    schedule = SCHEDULE if args.schedule is None else args.schedule
    period = PERIOD if args.scrub is None else args.scrub
    serve(store, Settings(schedule, full_every, _grace_ns(args), _limits(args), period))
    return ExitCode.OK


def _now(store: str) -> int:
    from casfs.store import collector_daemon_lock, read_config

    read_config(store)
    pid = collector_daemon_lock(store).signal(signal.SIGUSR1)
    if not pid:
        raise CasfsError(f"no daemon collects {store}", f"casfs gc {store} collects without one")
    print(f"told process {pid} to collect")
    return ExitCode.OK


def _dry_run(store: str, args: argparse.Namespace) -> int:
    from casfs.maintenance.collect import gc

    plan = gc.look(store, grace_ns=_grace_ns(args), full=args.full)
    if args.json:
        print_json(_plan_as_json(plan))
        return ExitCode.OK
    kept = plan.orphans.blobs - plan.due.blobs
    print(f"would remove {plan.due.blobs} blobs, {size(plan.due.bytes)}; {kept} are younger, or pinned")
    if plan.strays is not None:
        print(f"would remove {plan.strays.blobs} files the database does not know, {size(plan.strays.bytes)}")
    return ExitCode.OK


def _collect(store: str, args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.maintenance.collect import gc

    with stop_on_signals() as stop, progress() as tell, gc.opened(store, stop=stop) as opened:
        plan = gc.plan(opened, grace_ns=_grace_ns(args), full=args.full)
        ask = StoreAccess(store).collect
        outcome = gc.execute(opened, plan, limits=_limits(args), stop=stop, tell=tell, ask=ask)
    if args.json:
        print_json(_outcome_as_json(outcome))
    else:
        _print(outcome)
    if stop():
        return ExitCode.INTERRUPTED
    if outcome.failures or outcome.error:
        return ExitCode.FAILED
    return ExitCode.PROBLEMS if outcome.missing or outcome.miscounted else ExitCode.OK


def _print(outcome: Outcome) -> None:
    line = f"removed {outcome.blobs} blobs, {size(outcome.bytes)}"
    if outcome.full:
        line += f", and {outcome.strays} files the database does not know, {size(outcome.stray_bytes)}"
    print(f"{line}, in {span(outcome.ended_ns - outcome.started_ns)}")
    for path in outcome.first_failures:
        print(f"could not remove {printable(path)}")
    if outcome.failures:
        print(f"{outcome.failures} files are left; 'casfs gc --full' tries them again")
    for path in outcome.first_missing:
        print(f"missing: {printable(path)}")
    if outcome.missing or outcome.miscounted:
        print(f"{outcome.missing} blobs are missing, {outcome.miscounted} counted wrongly; see casfs fsck")
    if outcome.error:
        print(f"ended early: {printable(outcome.error)}")


def _plan_as_json(plan: Plan) -> dict[str, Any]:
    return {
        "full": plan.full,
        "blobs": plan.due.blobs,
        "bytes": plan.due.bytes,
        "orphans": plan.orphans.blobs,
        "orphan_bytes": plan.orphans.bytes,
        "strays": None if plan.strays is None else plan.strays.blobs,
        "stray_bytes": None if plan.strays is None else plan.strays.bytes,
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)


def _history(store: str, *, as_json: bool) -> int:
    from casfs.maintenance.collect import gc

    runs = gc.history(store, HISTORY)
    if as_json:
        print_json([run._asdict() for run in runs])
    elif runs:
        headers = ("started", "kind", "blobs", "size", "strays", "failures", "took", "ended early")
        print_table(headers, [_as_text(run) for run in runs])
    else:
        print("nothing was collected yet")
    return ExitCode.OK


def _as_text(run: Run) -> tuple[str, ...]:
    took = "-" if run.ended_ns is None else span(run.ended_ns - run.started_ns)
    error = "it runs, or was killed" if run.ended_ns is None else run.error or ""
    counts = (str(run.blobs), size(run.bytes), str(run.strays), str(run.failures))
    return (moment(run.started_ns), run.kind, *counts, took, printable(error))
