"""A store that is mounted as its users mount it: by the `casfs` command, served by a daemon of its own."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from blake3 import blake3

from casfs.cli.main import main
from casfs.errors import ExitCode
from tests.invariants import assert_clean

CHECKOUT = Path(__file__).resolve().parents[2]
CASFS = [sys.executable, "-m", "casfs"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8"}
ROOT_OPTIONS = "allow_other,suid,dev" if os.getuid() == 0 else "suid,dev"

ACCELERATED = True
"""Is there a native accelerator? Then every mounted test runs with it and without it."""

MODES = ("native", "no-native") if ACCELERATED else ("no-native",)

PATIENCE_SECONDS = 5.0
"""For a daemon that was killed."""

_COMPLAINT = re.compile(r"\S+ \S+ (WARNING|ERROR|CRITICAL) ")


def casfs(*words: str | Path, code: int = 0) -> str:
    """Run a command, which has to end with `code`; what it prints, or its one line of complaint."""
    done = subprocess.run([*CASFS, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"casfs {words}: exit code {done.returncode}, {done.stderr}{done.stdout}"
    if code == 0:
        return done.stdout
    assert done.stderr.count("\n") == 1, f"not one line: {done.stderr}"
    assert done.stderr.startswith("casfs: error: "), done.stderr
    return done.stderr


def asked(*words: str | Path) -> str:
    """As `casfs`, which has to succeed, in this process: to start a Python takes longer than most commands.

    For what a test needs on its way; what it is about it runs as a program.
    """
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as complaint, _at_most(300):
        code = main(list(map(str, words)))
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    assert code == 0, f"casfs {words}: exit code {code}, {complaint.getvalue()}{out.getvalue()}"
    return out.getvalue()


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """What hangs for longer ends with TimeoutError."""

    def end(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_sound(store: Path, *, crashed: bool = False) -> None:
    """The store, which nobody uses, is consistent, by the tests' own opinion and by casfs'.

    `crashed`: it was cut off, so blob files without a row are no problem (I3).
    """
    assert_clean(store, strays=crashed)


def is_mounted(place: Path) -> bool:
    """Is anything mounted there, alive or dead?"""
    with open("/proc/self/mountinfo") as file:
        return any(line.split(" ")[4] == str(place) for line in file)


def sync_directory(place: Path) -> None:
    """fsync(2), after which its names are durable."""
    fd = os.open(place, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unmount_by_force(place: Path) -> None:
    """Take a mount away whatever state it is in."""
    command = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-uz"]
    while is_mounted(place):
        subprocess.run([*command, place], check=True)


class Mount:
    """One store and its mount point; `path` is a directory inside, or the mount point itself.

    `mode`, of `MODES`: with the native accelerator, or without.
    """

    def __init__(
        self, store: Path, mountpoint: Path, options: str = ROOT_OPTIONS, mode: str = MODES[-1]
    ) -> None:
        self.store = store
        self.path = mountpoint
        self.options = options
        self.mode = mode
        self.crashed = False
        self._expected: list[str] = []
        self._whole: dict[str, tuple[int, int, int]] = {}
        if not store.exists():
            asked("init", store)
        mountpoint.mkdir(exist_ok=True)

    # The daemon

    def start(self, options: str | None = None) -> Mount:
        """Mount it, with `options` from now on."""
        self.options = self.options if options is None else options
        switch = ",no_native" if ACCELERATED and self.mode == "no-native" else ""
        casfs("mount", self.store, self.path, "-o", self.options + switch)
        return self

    def assert_mode(self) -> None:
        """What is mounted is what the test is about: an accelerator that stays off makes it fail."""
        native = self.status["features"].get("native", "off: not there")
        wanted = native == "on" if self.mode == "native" else native.startswith("off")
        assert wanted, f"mode {self.mode}, and the daemon says native {native}"

    def stop(self) -> None:
        asked("umount", self.path)

    def remount(self, options: str | None = None) -> None:
        self.stop()
        self.start(options)

    def kill(self) -> None:
        """SIGKILL of the daemon; the dead mount is taken away."""
        self.crashed = True
        daemon = os.pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        if not has_exited(daemon, PATIENCE_SECONDS) and os.getuid() == 0:
            # It waits in the kernel for a directory that a request holds which nobody answers any more.
            subprocess.run(["umount", "-f", self.path], check=False, capture_output=True)
        await_exit(daemon)
        unmount_by_force(self.path)

    @property
    def status(self) -> dict[str, Any]:
        (status,) = json.loads(asked("status", "--json", self.store))["mounts"]
        assert isinstance(status, dict)
        return status

    @property
    def pid(self) -> int:
        """By the store's lock file, which is there even when the daemon does not answer."""
        return int((self.store / "run" / "lock").read_text().split()[0])

    @property
    def descriptors(self) -> int:
        """How many the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def usage(self) -> dict[str, Any]:
        """What `casfs df` says, of everything that was done until now."""
        fd = os.open(self.path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        usage = json.loads(asked("df", "--json", self.store))
        assert isinstance(usage, dict)
        return usage

    def assert_blobs_whole(self) -> None:
        """Every blob file has the bytes its name says, also while the store is in use (I2).

        One that was whole is looked at again when it is another file or was written to.
        """
        for file in (self.store / "blobs").glob("*/*"):
            status = file.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._whole.get(file.name) != version:
                found = blake3(file.read_bytes()).hexdigest()
                assert found == file.name, f"blob {file.name} has the bytes of {found}"
                self._whole[file.name] = version

    # The end

    def expect(self, *patterns: str) -> None:
        """Log lines that a test provokes on purpose, as regular expressions."""
        self._expected += patterns

    def complaints(self) -> list[str]:
        """What the daemons of this store have logged that nobody expects."""
        lines: list[str] = []
        for name in ("mount.log.1", "mount.log"):
            log = self.store / "run" / name
            lines += log.read_text().splitlines() if log.exists() else []
        return [
            line
            for number, line in enumerate(lines)
            if (_COMPLAINT.match(line) and not any(re.search(each, line) for each in self._expected))
            or (line.startswith("Traceback") and not self._is_expected(lines[number - 1]))
        ]

    def _is_expected(self, line: str) -> bool:
        return any(re.search(each, line) for each in self._expected)

    def finish(self) -> None:
        """Unmount, and find everything in order."""
        if is_mounted(self.path):
            self.stop()
        assert not is_mounted(self.path)
        assert not self.complaints()
        assert_sound(self.store, crashed=self.crashed)

    def clear(self) -> None:
        """After a failed test: no mount and no daemon may be left."""
        if is_mounted(self.path):
            unmount_by_force(self.path)
            try:
                daemon = os.pidfd_open(self.pid)
                os.kill(self.pid, signal.SIGKILL)
                await_exit(daemon)
            except (OSError, ValueError, IndexError) as error:
                sys.stderr.write(f"no daemon to end: {error}\n")


def has_exited(pidfd: int, seconds: float) -> bool:
    """Has a process ended within that time?"""
    import select

    return bool(select.select([pidfd], [], [], seconds)[0])


def await_exit(pidfd: int) -> None:
    """Wait until a process, which need not be a child, has ended."""
    import select

    select.select([pidfd], [], [])
    os.close(pidfd)


def is_gone(error: OSError) -> bool:
    """Is this how a system call ends whose file system has lost its daemon?"""
    return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
