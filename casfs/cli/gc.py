"""Remove the blobs that no file has any more.

A content whose last file was removed or overwritten is an orphan; it goes when
it has been one for the grace period. That happens beside everything else: a
mounted store stays in use. A mount that has no 'casfs gc daemon' collects by
itself.

More: casfs help collecting
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from casfs.cli.arguments import (
    Commands,
    Parser,
    add_actions,
    add_command,
    add_config,
    add_json,
    add_store,
    byte_rate,
    count,
    duration,
)
from casfs.cli.output import print_json, print_table, progress_bar, size
from casfs.cli.places import store_of
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment, span
from casfs.errors import CasfsError, ExitCode
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.collect.gc import Limits, Outcome, Plan
    from casfs.namespace.collecting import Run

_RUN = """Collect once, and end when that is done. Snapshots that have expired go first.

A full run also compares the files in the store with the database, removes old
files that it does not know, and names those that are missing.

Exit code 0: done; 1: files could not be removed; 5: a full run has found blobs
that are missing or counted wrongly (casfs fsck tells more).
"""

_DAEMON = """Stay in the foreground, and collect by a schedule.

The schedule is as crontab(5), in local time. It also collects at once when told
so by 'casfs gc now' or SIGUSR1, and when it starts if a run was missed
meanwhile. After each collection it reads some blobs to see whether they are
whole, and computes digests that are wanted and lacking (casfs digests), at the
pace that leaves the machine to others. SIGTERM and Ctrl-C end it.

With the store's configuration it makes snapshots too, by the schedule of its
section [snapshots], and drops those that are kept no longer.

More: casfs help configuration
"""

HISTORY = 20
"""Runs that 'casfs gc history' shows."""


class Rate(NamedTuple):
    """Blobs, or bytes of them, each second at the most; 0 = no limit."""

    blobs: int
    bytes: int


def add(commands: Commands) -> None:
    actions = add_actions(commands, "gc", __doc__)

    collect = add_command(actions, "run", _collect, _RUN)
    add_store(collect)
    how = collect.add_mutually_exclusive_group()
    how.add_argument("-n", "--dry-run", action="store_true", help="say what would be removed, and end")
    _add_rate(how)
    collect.add_argument("--full", action="store_true", help="compare files and database too")
    _add_grace(collect)
    add_json(collect)

    history = add_command(actions, "history", _history, f"Show the last {HISTORY} runs.")
    add_store(history)
    add_json(history)

    daemon = add_command(actions, "daemon", _daemon, _DAEMON)
    add_store(daemon)
    daemon.add_argument("--schedule", metavar="CRON", help="five fields; without it '0 */4 * * *'")
    daemon.add_argument(
        "--full-every", metavar="N", type=count, help="every Nth run is full; 0: none is; without it 42"
    )
    daemon.add_argument(
        "--scrub",
        metavar="DURATION",
        type=duration,
        help="read every blob once in so long; 0: never; without it 30d",
    )
    _add_grace(daemon)
    _add_rate(daemon)
    add_config(daemon)

    add_store(add_command(actions, "now", _now, "Let the daemon of 'casfs gc daemon' collect at once."))


def _add_grace(parser: Parser) -> None:
    parser.add_argument(
        "--grace", metavar="DURATION", type=duration, help="let younger orphans be; without it 1h"
    )


def _add_rate(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--rate", metavar="RATE", type=rate, help="remove so much at the most; a number alone is of blobs"
    )


def rate(word: str) -> Rate:
    """An argument's type: `500` blobs, or with a unit `50M` bytes."""
    if not (word.isascii() and word.isdecimal()):
        return Rate(0, math.ceil(byte_rate(word)))
    number = count(word)
    if not number:
        raise argparse.ArgumentTypeError("a rate of 0 would never end")
    return Rate(number, 0)


def _grace_ns(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect.gc import GRACE_NS

    return GRACE_NS if args.grace is None else int(args.grace) * 10**9


def _limits(args: argparse.Namespace) -> Limits:
    from casfs.maintenance.collect.gc import NO_LIMITS, Limits

    return NO_LIMITS if args.rate is None else Limits(args.rate.blobs, args.rate.bytes)


def _daemon(args: argparse.Namespace) -> int:
    from casfs.config import Config, load
    from casfs.maintenance.scrub.scrub import PERIOD
    from casfs.service.gcd import FULL_EVERY, SCHEDULE, Settings, serve

    full_every = FULL_EVERY if args.full_every is None else args.full_every
    schedule = SCHEDULE if args.schedule is None else args.schedule
    period = PERIOD if args.scrub is None else args.scrub
    config = Config() if args.config is None else load(args.config)
    settings = Settings(schedule, full_every, _grace_ns(args), _limits(args), period, config.snapshots)
    serve(store_of(args.store), settings)
    return ExitCode.OK


def _now(args: argparse.Namespace) -> int:
    from casfs.store import collector_daemon_lock, read_config

    store = store_of(args.store)
    read_config(store)
    pid = collector_daemon_lock(store).signal(signal.SIGUSR1)
    if not pid:
        raise CasfsError(f"no daemon collects {store}", f"casfs gc run {store} collects without one")
    print(f"told process {pid} to collect")
    return ExitCode.OK


def _dry_run(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect import gc
    from casfs.service.snapshots import expired

    store = store_of(args.store)
    plan = gc.look(store, grace_ns=_grace_ns(args), full=args.full)
    gone = expired(store)
    if args.json:
        print_json(_plan_as_json(plan) | {"expired_snapshots": gone})
        return ExitCode.OK
    for name in gone:
        print(f"would drop snapshot {name}, which has expired")
    kept = plan.orphans.blobs - plan.due.blobs
    print(f"would remove {plan.due.blobs} blobs, {size(plan.due.bytes)}; {kept} are younger, or pinned")
    if plan.strays is not None:
        print(f"would remove {plan.strays.blobs} files the database does not know, {size(plan.strays.bytes)}")
    return ExitCode.OK


def _collect(args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.maintenance.collect import gc
    from casfs.service.snapshots import drop_expired
    from casfs.store import read_config

    if args.dry_run:
        return _dry_run(args)
    store = store_of(args.store)
    read_config(store)
    for problem in drop_expired(store):
        print(f"casfs: {printable(problem)}", file=sys.stderr)
    with stop_on_signals() as stop, progress_bar() as progress, gc.opened(store, stop=stop) as opened:
        plan = gc.plan(opened, grace_ns=_grace_ns(args), full=args.full)
        mount = StoreAccess(store).collect
        outcome = gc.execute(opened, plan, limits=_limits(args), stop=stop, progress=progress, mount=mount)
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
        print(f"{outcome.failures} files are left; 'casfs gc run --full' tries them again")
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


def _history(args: argparse.Namespace) -> int:
    from casfs.maintenance.collect import gc

    runs = gc.history(store_of(args.store), HISTORY)
    if args.json:
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
