"""The collector's daemon, as a program: by schedule, by signal, one at a time, ended cleanly."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from casfs.maintenance.collect import gc
from casfs.maintenance.collect.batch import transaction
from casfs.maintenance.digests.facts import run_facts
from casfs.maintenance.offline import opened
from casfs.namespace.collecting import Run
from casfs.service import gcd
from casfs.store import Store, create_store
from tests.maintenance.stores import make_file

NEVER = "0 0 29 2 *"
"""A schedule that is not due while a test runs, but on one day in four years."""


class Service:
    """`casfs gc daemon` and what it tells systemd."""

    def __init__(self, store: Path, schedule: str, program: tuple[str, ...] = ("-m", "casfs")) -> None:
        self.address = store.parent / "notify"
        self.address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.settimeout(60)
        words = ["gc", "daemon", str(store), "--schedule", schedule]
        self.process = subprocess.Popen(
            [sys.executable, *program, *words],
            env=os.environ | {"NOTIFY_SOCKET": str(self.address)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_state(self, wanted: str) -> None:
        """Read what it tells until it is something that begins so."""
        while not self._socket.recv(4096).decode().startswith(wanted):
            continue

    def end(self) -> str:
        """Wait for its end; what it has logged."""
        _, self.log = self.process.communicate(timeout=60)
        return self.log

    def clear(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        if self.process.stderr is not None and not self.process.stderr.closed:
            self.process.communicate()
        self._socket.close()


@pytest.fixture
def store(store_path: Path) -> Path:
    if not (store_path / "casfs.toml").exists():
        create_store(str(store_path))
    return store_path


@pytest.fixture
def service(store: Path) -> Iterator[Service]:
    """A daemon on a store that was collected just now."""
    with gc.opened(str(store)) as opened:
        gc.execute(opened, gc.plan(opened))
    service = Service(store, NEVER)
    service.await_state("READY=1")
    yield service
    service.clear()


def runs(store: Path) -> list[Run]:
    return gc.history(str(store), 10)


def run_casfs(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "casfs", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(service: Service, number: int) -> None:
    service.await_state("STATUS=the next collection")
    service.process.send_signal(number)
    service.await_state("STOPPING=1")
    log = service.end()
    assert service.process.returncode == 0
    assert "Traceback" not in log


def test_now_and_sigusr1_make_it_collect(service: Service, store: Path) -> None:
    service.await_state("STATUS=the next collection")
    done = run_casfs("gc", "now", str(store))
    assert (done.returncode, done.stdout) == (0, f"told process {service.process.pid} to collect\n")
    service.await_state("STATUS=collecting")
    service.await_state("STATUS=the next collection")
    assert len(runs(store)) == 2
    service.process.send_signal(signal.SIGUSR1)
    service.await_state("STATUS=collecting")
    service.await_state("STATUS=the next collection")
    assert [run.error for run in runs(store)] == [None] * 3


def test_a_second_one_is_refused(service: Service, store: Path) -> None:
    done = run_casfs("gc", "daemon", str(store))
    assert done.returncode == 4
    assert done.stderr.startswith(
        f"casfs: error: {store} has a collector already, process {service.process.pid} "
    )
    assert done.stderr.count("\n") == 1


def test_while_it_waits_others_may_collect(service: Service, store: Path) -> None:
    assert run_casfs("gc", "run", str(store)).returncode == 0
    assert service.process.poll() is None


def test_a_missed_run_is_caught_up_once(store: Path) -> None:
    assert runs(store) == []
    for states in (("STATUS=collecting", "STATUS=the next collection"), ("STATUS=the next collection",)):
        service = Service(store, NEVER)
        try:
            service.await_state("READY=1")
            for state in states:
                service.await_state(state)
            service.process.terminate()
            service.end()
        finally:
            service.clear()
        assert len(runs(store)) == 1


def test_now_without_a_daemon_is_one_line(store: Path) -> None:
    done = run_casfs("gc", "now", str(store))
    assert done.returncode == 1
    assert done.stderr == (
        f"casfs: error: no daemon collects {store}; casfs gc run {store} collects without one\n"
    )


def test_a_damaged_database_is_one_line(store: Path) -> None:
    (store / "casfs.db").write_bytes(b"x" * 5_000)
    done = run_casfs("gc", "daemon", str(store))
    create_again(store)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("casfs: error: ")
    assert "Traceback" not in done.stderr


def create_again(store: Path) -> None:
    """A store that is sound, as every test leaves one."""
    shutil.rmtree(store)
    create_store(str(store))


SIGNALLED = """
import os, signal, sys
from casfs.cli.main import main
from casfs.filestore.locks import Lock

acquire = Lock.acquire

def acquired(lock, **options):
    done = acquire(lock, **options)
    if done and lock._name.endswith("gcd.lock"):
        os.kill(os.getpid(), signal.SIGUSR1)
    return done

Lock.acquire = acquired
sys.exit(main(sys.argv[1:]))
"""


def test_told_to_collect_as_soon_as_it_can_be_found(store: Path) -> None:
    """The signal that comes before it waits for any neither ends it nor gets lost."""
    with gc.opened(str(store)) as opened:
        gc.execute(opened, gc.plan(opened))
    service = Service(store, NEVER, program=("-c", SIGNALLED))
    try:
        service.await_state("READY=1")
        service.await_state("STATUS=collecting")
        service.await_state("STATUS=the next collection")
        service.process.terminate()
        service.end()
    finally:
        service.clear()
    assert service.process.returncode == 0
    assert len(runs(store)) == 2


@pytest.mark.parametrize("why", ["asked", "due", "ending"])
def test_a_scrub_ends_when_there_is_something_to_collect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It may be days behind, after a machine was off."""
    create_store(str(tmp_path / "store"))
    daemon = gcd.Daemon(str(tmp_path / "store"), gcd.Settings())
    answers: list[bool] = []

    def scrub_slice(_store: Store, *, stop: Callable[[], bool], **_options: object) -> None:
        answers.append(stop())
        if why == "asked":
            daemon._schedule._wanted = True
        elif why == "ending":
            daemon._schedule._ending.set()
        else:
            monkeypatch.setattr(time, "time", lambda: ends)
        answers.append(stop())

    monkeypatch.setattr(gcd, "scrub_slice", scrub_slice)
    ends = time.time() + 3600
    daemon._read_blobs(ends)
    assert answers == [False, True]


def test_it_computes_digests_that_are_wanted_after_it_has_collected(service: Service, store: Path) -> None:
    contents = [b"content %d" % number for number in range(60)]
    with opened(str(store)) as fs:
        for number, content in enumerate(contents):
            make_file(fs, 1, b"%d" % number, content)
    service.await_state("STATUS=the next collection")
    done = run_casfs("digests", str(store), "--add", "sha256", "--background")
    assert done.stdout.splitlines() == [
        "every content gets beside BLAKE3: sha256",
        f"told process {service.process.pid} to collect and to compute what is lacking",
    ]
    service.await_state("STATUS=collecting")
    service.await_state("STATUS=computing digests")
    busy = run_casfs("digests", str(store), "--run")
    assert (busy.returncode, busy.stdout) == (4, "")
    status = run_casfs("digests", str(store), "--status").stdout  # it may have ended by now
    assert f"computed by process {service.process.pid} " in status or "lacking: nothing" in status
    service.await_state("STATUS=the next collection")
    service.process.terminate()
    assert "computed 60 digests of 60 blobs" in service.end()
    with closing(Store(str(store), readonly=True)) as read:
        for content in contents:
            value = sha256(content).digest()
            assert len(read.namespace.digests.find("sha256", value, value)) == 1


def test_it_ends_in_the_midst_of_them_and_goes_on(store: Path) -> None:
    with opened(str(store)) as fs:
        for number in range(1_000):
            make_file(fs, 1, b"%d" % number, b"%d" % number)
    with closing(Store(str(store))) as alone, transaction(alone):
        alone.namespace.digests.set_wanted(["md5"])
    for _ in range(2):
        service = Service(store, NEVER)
        try:
            service.await_state("STATUS=computing digests")
            time.sleep(0.5)
            service.process.terminate()
            assert "more after the next collection" in service.end()
            assert service.process.returncode == 0
        finally:
            service.clear()
        # A run of the collector is due at the start only if it was missed.
        with closing(sqlite3.connect(store / "casfs.db")) as database:
            database.execute("DELETE FROM collection")
            database.commit()
    state = run_facts(str(store))
    assert state.run is not None
    assert 0 < state.run.blobs < 1_000
    assert state.left == 1_000 - state.run.blobs
