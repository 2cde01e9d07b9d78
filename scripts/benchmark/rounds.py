"""Interleaved rounds of trials, each in a process of its own.

Load on a machine comes and goes. Each round therefore runs every workload on all targets right after one
another, in an order that rotates, and rates are compared within a round.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from .trial import Trial, WorkloadError
from .workloads import Workload

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
SETTLE_SECONDS = (
    0.05  # for the FORGET requests of dropped inodes to reach a FUSE daemon before the clock starts
)
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    name: str
    path: str  # where the user sees it
    root: str  # the bench's own folder there
    daemon: int | None = None  # pid of the process that serves it, when known
    features: Mapping[str, str] = field(default_factory=dict)  # what the daemon says of itself
    contents_in: tuple[str, ...] = ()  # as in Trial
    collector: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One timed trial. CPU times are of user and system together, in seconds."""

    round: int
    amount: float
    seconds: float
    client_cpu: float
    daemon_cpu: float | None
    figures: Mapping[str, float] = field(default_factory=dict)  # what the workload measured besides

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


@dataclass
class Series:
    """The samples of one workload on one target."""

    samples: list[Sample] = field(default_factory=list)
    error: str | None = None


@dataclass
class Results:
    series: dict[str, dict[str, Series]]  # workload -> target -> series
    skipped: dict[str, str] = field(default_factory=dict)  # workload -> reason
    interrupted: bool = False
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])  # of the last minute


def can_drop_caches() -> bool:
    return os.geteuid() == 0 and os.access(DROP_CACHES, os.W_OK)


def settle(workload: Workload) -> None:
    """Brings what was prepared to disk, so that it is not paid for in the timed part, and drops caches."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # not every FUSE file system has fsync of directories
        os.fsync(folder)
    os.close(folder)
    if workload.at_rest:
        os.sync()
    if workload.drop:
        DROP_CACHES.write_text(f"{workload.drop:d}\n")
        time.sleep(SETTLE_SECONDS)


def client_cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def daemon_cpu(pid: int | None) -> float | None:
    """CPU seconds used so far by the process, from fields 14 and 15 of /proc/PID/stat (proc_pid_stat(5))."""
    if pid is None:
        return None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * CLOCK_TICK


def remove_folder(folder: str) -> None:
    """Removes a working directory; FUSE may hide an unlinked file there until its RELEASE is done."""
    for _ in range(50):
        try:
            shutil.rmtree(folder)
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        time.sleep(0.1)
    shutil.rmtree(folder)


def time_trial(workload: Workload, trial: Trial, daemon: int | None, round_number: int) -> Sample:
    """Prepares and times the workload in an empty working directory, and removes that directory."""
    # A name never used before: ext4 chooses a directory's block group by its name, and one where a trial has
    # just deleted thousands of files would slow this one down.
    folder = f"{trial.root}/{workload.name}-{os.urandom(6).hex()}"
    os.mkdir(folder)
    os.chdir(folder)
    try:
        steps = workload.steps(trial)
        next(steps)
        settle(workload)
        client_before, daemon_before = client_cpu(), daemon_cpu(daemon)
        start = time.perf_counter()
        amount = next(steps)
        seconds = time.perf_counter() - start
        client_after, daemon_after = client_cpu(), daemon_cpu(daemon)
        if not amount or next(steps, None) is not None:
            raise AssertionError(f"workload {workload.name} does not yield when ready and its amount")
    finally:
        os.chdir(trial.root)
        remove_folder(folder)
    served = daemon_after - daemon_before if daemon_after is not None and daemon_before is not None else None
    return Sample(round_number, amount, seconds, client_after - client_before, served, trial.figures)


def in_child(
    report: Connection, workload: Workload, trial: Trial, daemon: int | None, round_number: int
) -> None:
    """The body of a trial's process: sends a Sample, or a line that says what went wrong."""
    os.setpgid(0, 0)  # so that the trial can be ended with everything it started
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()
    try:
        report.send(time_trial(workload, trial, daemon, round_number))
    except (OSError, WorkloadError) as error:
        report.send(str(error))
    except Exception as error:  # a fault in the bench itself must not lose what other workloads measured
        report.send(f"{type(error).__name__}: {error}")


def run_trial(
    workload: Workload, target: Target, trial: Trial, round_number: int, timeout: float
) -> Sample | str:
    """The sample, or what went wrong in one line; `timeout` is in seconds and includes preparation."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=in_child, args=(sender, workload, trial, target.daemon, round_number))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            return f"not done within {timeout:g} s"
        outcome: Sample | str = receiver.recv()
        process.join(timeout)
        return outcome
    except EOFError:
        return "the trial's process died"
    finally:
        if process.is_alive():
            for kill in (
                os.killpg,
                os.kill,
            ):  # the group does not exist yet when the child has hardly started
                with contextlib.suppress(ProcessLookupError):
                    kill(process.pid or 0, signal.SIGKILL)
            process.join(10)
        receiver.close()


def run_rounds(
    targets: Sequence[Target],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    scale: float,
    scratch: str,
    timeout: float,
    progress: Callable[[str, str], None],
) -> Results:
    """Runs everything; Ctrl-C ends it early with what has been measured so far.

    A workload that failed on a target is not tried there again.
    """
    results = Results(
        {workload.name: {target.name: Series() for target in targets} for workload in workloads}
    )
    cold = can_drop_caches()
    run = os.urandom(8).hex()
    try:
        for round_number in range(1, rounds + 1):
            for position, workload in enumerate(workloads):
                if workload.drop and not cold:
                    results.skipped[workload.name] = "only root may drop the kernel's caches"
                    continue
                first = (round_number + position) % len(targets)
                for target in (*targets[first:], *targets[:first]):
                    series = results.series[workload.name][target.name]
                    if series.error is not None:
                        continue
                    progress(f"round {round_number}/{rounds}", f"{workload.name} on {target.name}")
                    seed = f"{run} {target.name} {workload.name} {round_number}"
                    keeps = target.contents_in, target.collector, target.repositories
                    trial = Trial(target.root, scratch, scale, seed, *keeps)
                    outcome = run_trial(workload, target, trial, round_number, timeout)
                    if isinstance(outcome, Sample):
                        series.samples.append(outcome)
                    else:
                        series.error = outcome
    except KeyboardInterrupt:
        results.interrupted = True
    return results
