"""The locks of a store, files in STORE/run/: flock(2), which ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal

from casfs.errors import FormatError
from casfs.filestore.directory import READ, WRITE, StoreDirectory

FOLDER = "run"

NAMES = ("lock", "turnstile", "gc.lock", "gcd.lock", "scrub", "digests", "backupd.lock")
"""Those that a store has."""

CREATE = WRITE | os.O_CREAT


class Lock:
    """The one of that name in the store at that path."""

    def __init__(self, store: str, name: str) -> None:
        self._store = store
        self._name = f"{FOLDER}/{name}"
        self._fd = -1

    def _open(self, flags: int) -> int:
        with contextlib.closing(StoreDirectory(self._store)) as directory:
            return directory.open_own(self._name, flags, 0o600 if flags & os.O_CREAT else 0)

    def acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free and write down who has it; False when it is not. Raises OSError."""
        fd = self._open(CREATE)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        if not shared:
            # Cut off only then: the block stays, on a disk that has no other.
            text = f"{os.getpid()} {_command_line()}\n".encode(errors="replace")
            os.ftruncate(fd, os.pwrite(fd, text, 0))
        return True

    def held_by(self) -> str:
        """Who holds the lock; "" when nobody does, or that cannot be seen. Nothing is made or changed."""
        try:
            fd = self._open(READ)
        except OSError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self.holder()
        finally:
            os.close(fd)
        return ""

    def holder(self) -> str:
        """Who wrote itself down last, as `process 123 (casfs mount …)`."""
        try:
            pid, _, command = self._text().strip().partition(" ")
        except OSError:
            return "another process"
        return f"process {pid} ({command})" if pid else "another process"

    def _text(self) -> str:
        fd = self._open(READ)
        try:
            return os.pread(fd, 4096, 0).decode(errors="replace")
        finally:
            os.close(fd)

    def is_held_by_killed(self) -> bool:
        """Is its holder a process that was killed, and does not end since the kernel keeps one of its
        threads? The first one is a zombie then, proc_pid_stat(5). Raises OSError."""
        try:
            pid, _, _ = self._text().partition(" ")
        except FileNotFoundError:
            return False
        if not (pid.isascii() and pid.isdecimal() and self._is_held_by(int(pid))):
            return False
        try:
            with open(f"/proc/{int(pid)}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] == b"Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def signal(self, number: int) -> int:
        """Send a signal to the process that holds the lock. Gives its id; 0 when nobody holds it.

        Through a pidfd that was opened while it held it: an id may be that of another process by now.
        Raises OSError.
        """
        try:
            pid, _, _ = self._text().partition(" ")
        except FileNotFoundError:
            return 0
        if not (pid.isascii() and pid.isdecimal() and self._is_held_by(int(pid))):
            return 0
        pidfd = os.pidfd_open(int(pid))
        try:
            if not self._is_held_by(int(pid)):
                return 0
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
        return int(pid)

    def _is_held_by(self, pid: int) -> bool:
        """Has that process taken it? So says the kernel, proc_locks(5): in the file anything may be written.
        Raises OSError."""
        fd = self._open(READ)
        try:
            number = os.fstat(fd).st_ino
        finally:
            os.close(fd)
        with open("/proc/locks", "rb") as file:
            locks = [line.split() for line in file]
        return any(
            words[1] == b"FLOCK" and words[4] == b"%d" % pid and words[5].endswith(b":%d" % number)
            for words in locks
        )

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Turnstile:
    """Who wants to BEGIN a write transaction passes here first, so that everybody gets a turn.

    The mount daemon writes one group of operations after the other and would leave SQLite's lock free
    for microseconds only. A process that waits for the lock holds the turnstile meanwhile; the daemon
    cannot start its next group before it was let in.
    """

    def __init__(self, directory: StoreDirectory) -> None:
        self._fd = directory.open_own(f"{FOLDER}/turnstile", CREATE, 0o600)

    def try_enter(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def enter(self) -> None:
        """Wait for the turn. Blocks."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def make_run_folder(directory: StoreDirectory) -> None:
    """Make STORE/run/ if there is none. Raises FormatError when something else is in its place, OSError."""
    with contextlib.suppress(FileExistsError):
        directory.make_folder(FOLDER)
    if not directory.is_folder(FOLDER):
        raise FormatError(
            f"{directory.path}/{FOLDER} is no directory", hint="remove it when nothing uses the store"
        )


def _command_line() -> str:
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError as error:
        return f"unknown command, errno {error.errno or errno.EIO}"
    return " ".join(
        os.fsdecode(os.path.basename(word) if i < 2 else word) for i, word in enumerate(words) if word
    )
