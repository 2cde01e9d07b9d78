"""Show and change which digests contents have, and compute those that are lacking.

Every content has a BLAKE3 digest, under which it is kept. It can have others
beside it, computed once and found by 'casfs find': sha256, sha1, md5, sha512,
crc32c. --add has every new content get one, and computes it of all that is
there, each read once, in short steps beside a mount in use; --remove ends that,
and keeps what was computed. --run computes what is lacking and changes nothing
else: it goes on with what was cut off, as the same --add does.

The run leaves the machine to others. --fast uses all of it; what else sets its
pace says so below. It collects garbage first, which is not worth the reading.
A blob that is found damaged gets no digest: it is taken out of the way as by
'casfs scrub'. What was done is in STORE/run/digests.log.

  $ casfs digests store --add sha256
  $ casfs digests store --status

Exit code 0: nothing lacks a digest; 130: stopped, --run goes on; 4: another
process is at it; 5: blobs are damaged; 1: it ended early by an error.

More: casfs help digests
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Any

from casfs.cli.arguments import (
    Commands,
    add_command,
    add_json,
    add_store,
    byte_rate,
    duration,
    positive,
    words,
)
from casfs.cli.output import print_json, print_table, progress_bar, size
from casfs.cli.places import store_of
from casfs.cli.scrub import print_bad
from casfs.cli.signals import stop_on_signals
from casfs.cli.times import moment, span
from casfs.errors import CasfsError, ExitCode, StoreLocked, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.maintenance.digests.facts import RunFacts
    from casfs.maintenance.digests.migration import DigestReport, Pace
    from casfs.maintenance.progress import Progress

_PACE = ("workers", "batch", "sleep", "query_limit", "rate")


def add(commands: Commands) -> None:
    parser = add_command(commands, "digests", run, __doc__)
    add_store(parser)
    parser.add_argument("--add", metavar="ALG[,ALG]", type=words, default=(), help="every content gets it")
    parser.add_argument("--remove", metavar="ALG[,ALG]", type=words, default=(), help="no new content does")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", action="store_true", dest="runs", help="compute what is lacking")
    what.add_argument(
        "--background", action="store_true", help="leave it to 'casfs gc daemon', which begins at once"
    )
    what.add_argument("--status", action="store_true", help="how far the run is, without a look at all blobs")
    pace = parser.add_argument_group("pace of a run")
    pace.add_argument("--fast", action="store_true", help="use the whole machine")
    pace.add_argument(
        "--workers", metavar="N", type=positive, help="threads that read and hash; without it 2"
    )
    pace.add_argument("--batch", metavar="N", type=positive, help="blobs written in one go; without it 100")
    pace.add_argument("--sleep", metavar="DURATION", type=duration, help="between two; without it 1s")
    pace.add_argument(
        "--query-limit", metavar="N", type=positive, help="looked up at a time; without it 1000"
    )
    pace.add_argument(
        "--rate", metavar="RATE", type=byte_rate, help="read so much at the most; without it 32M"
    )
    pace.add_argument("--no-gc", action="store_true", help="do not collect garbage first")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    store = store_of(args.store)
    runs = args.runs or (args.add and not args.background)
    given = {name: getattr(args, name) for name in (*_PACE, "fast", "no_gc")}
    paced = [name for name, value in given.items() if value is not None and value is not False]
    if paced and not runs:
        raise UsageError(f"--{paced[0].replace('_', '-')} is for a run", "give --add or --run too")
    if args.status and (args.add or args.remove):
        raise UsageError("--status changes nothing", "leave --add and --remove away")
    if both := set(args.add) & set(args.remove):
        raise UsageError(f"{min(both)} cannot be both added and removed")
    if args.background:
        _find_daemon(store)
    changes = args.add or args.remove
    if changes:
        _change(store, args, tells=not args.json or not (runs or args.background))
    if args.background:
        return _leave_to_daemon(store)
    if runs:
        return _run(store, args)
    return ExitCode.OK if changes else _show(store, args)


def _change(store: str, args: argparse.Namespace, *, tells: bool) -> None:
    from casfs.control.access import StoreAccess
    from casfs.control.messages import SetDigests
    from casfs.filestore.hashing import ALGORITHMS

    for name in (*args.add, *args.remove):
        if name not in ALGORITHMS:
            raise UsageError.unknown("algorithm", name, ALGORITHMS)
    wanted = StoreAccess(store).perform(SetDigests(list(args.add), list(args.remove))).digests
    if tells and args.json:
        print_json({"wanted": wanted})
    elif tells:
        print(f"every content gets beside BLAKE3: {printable(', '.join(wanted)) or 'nothing'}")


# A run


def _pace(args: argparse.Namespace) -> Pace:
    from dataclasses import replace

    from casfs.maintenance.digests.migration import BESIDE_OTHERS, FAST

    given = {name: value for name in _PACE if (value := getattr(args, name)) is not None}
    if "query_limit" in given:
        given["step"] = given.pop("query_limit")
    return replace(FAST if args.fast else BESIDE_OTHERS, **given)


def _run(path: str, args: argparse.Namespace) -> int:
    from casfs.control.access import StoreAccess
    from casfs.maintenance.digests.migration import add_digests, digests_lock
    from casfs.service.logfile import digests_logged
    from casfs.store import Store, make_run, read_config

    read_config(path)
    make_run(path)
    lock = digests_lock(path)
    try:
        with progress_bar() as progress, stop_on_signals() as stop:
            if not args.no_gc:
                _collect(path, progress, stop, quiet=args.json)
            store = Store(path, shared=True)
            access = StoreAccess(store.path)
            try:
                with digests_logged(store.directory):
                    report = add_digests(
                        store,
                        pace=_pace(args),
                        progress=progress,
                        damaged=access.damaged,
                        mount=access.add_digests,
                        stop=stop,
                    )
            finally:
                store.close()
    finally:
        lock.release()
    if args.json:
        from dataclasses import asdict

        print_json(asdict(report))
    else:
        _print(report)
    if report.error:
        return ExitCode.FAILED
    if not report.complete:
        return ExitCode.INTERRUPTED
    return ExitCode.PROBLEMS if report.known or report.bad else ExitCode.OK


def _collect(store: str, progress: Progress, stop: Any, *, quiet: bool) -> None:
    """What cannot be collected now is read for nothing; that is no reason to end."""
    from casfs.control.access import StoreAccess
    from casfs.maintenance.collect import gc

    try:
        with gc.opened(store, stop=stop) as opened:
            plan = gc.plan(opened)
            mount = StoreAccess(store).collect
            outcome = gc.execute(opened, plan, stop=stop, progress=progress, mount=mount)
    except StoreLocked as error:
        print(f"casfs: nothing is collected: {printable(str(error))}", file=sys.stderr)
        return
    if not quiet and outcome.blobs:
        print(f"removed {outcome.blobs} blobs, {size(outcome.bytes)}, that nothing refers to")


def _print(report: DigestReport) -> None:
    for bad in report.bad:
        print_bad(bad)
    amount = f"{report.digests} digests of {report.blobs} blobs, {size(report.bytes)}"
    parts = [f"{amount} in {report.seconds:.1f} s"]
    if report.bad:
        parts.append(f"{len(report.bad)} damaged")
    if report.resumed:
        parts.append("went on with a run that was cut off")
    if not report.complete:
        parts.append("stopped: 'casfs digests --run' goes on here")
    print(f"{printable(report.store)}: computed {', '.join(parts)}")
    if report.known:
        print(f"{report.known} blobs are known to be damaged or missing; 'casfs heal' puts them back")
    if report.error:
        print(f"ended early: {printable(report.error)}")


# The collector's daemon


def _find_daemon(store: str) -> None:
    from casfs.store import collector_daemon_lock, read_config

    read_config(store)
    if not collector_daemon_lock(store).held_by():
        raise CasfsError(f"no daemon collects {store}", f"casfs gc daemon {store} is one; --run needs none")


def _leave_to_daemon(store: str) -> int:
    from casfs.store import collector_daemon_lock

    pid = collector_daemon_lock(store).signal(signal.SIGUSR1)
    if not pid:
        raise CasfsError(f"the daemon that collects {store} has ended", f"casfs gc daemon {store}")
    print(f"told process {pid} to collect and to compute what is lacking")
    return ExitCode.OK


# What there is


def _show(store: str, args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from casfs.maintenance.digests.facts import digest_facts, run_facts

    if args.status:
        state = run_facts(store)
        if args.json:
            print_json(asdict(state) | {"run": _run_as_json(state)})
        else:
            _print_state(state)
        return ExitCode.OK
    facts = digest_facts(store)
    if args.json:
        print_json(asdict(facts) | {"state": asdict(facts.state) | {"run": _run_as_json(facts.state)}})
        return ExitCode.OK
    rows = [("blake3", "yes", str(facts.blobs), size(facts.bytes), "0", size(0))]
    for one in facts.algorithms:
        amounts = (str(one.blobs), size(one.bytes), str(one.lacking), size(one.lacking_bytes))
        rows.append((one.name, "yes" if one.wanted else "some" if one.asked else "no", *amounts))
    print_table(("digest", "new ones", "blobs", "size", "lacking", "size"), rows)
    _print_state(facts.state)
    return ExitCode.OK


def _run_as_json(state: RunFacts) -> dict[str, Any] | None:
    return None if state.run is None else state.run._asdict()


def _print_state(state: RunFacts) -> None:
    run = state.run
    if state.by:
        print(f"computed by {printable(state.by)}")
    if run is not None:
        amount = f"{run.blobs} blobs, {size(run.bytes)}"
        if run.damaged:
            amount += f", {run.damaged} damaged"
        if run.ended_ns:
            took = span(run.ended_ns - run.started_ns)
            print(f"last run: begun {moment(run.started_ns)}, done after {took}: {amount}")
        elif state.by:
            print(f"run: begun {moment(run.started_ns)}, until now {amount}")
        else:
            print(f"run: begun {moment(run.started_ns)}, cut off after {amount}")
    if state.left:
        hint = "" if state.by else "; 'casfs digests --run' computes them"
        print(f"lacking: {state.left} blobs, {size(state.left_bytes)}{hint}")
    elif wanted := (*state.wanted, *state.asked):
        print(f"lacking: nothing that is wanted ({', '.join(wanted)})")
    if state.known:
        print(f"{state.known} blobs are known to be damaged or missing, and get none")
