"""Several processes that do whatever they like in one directory of a mount, some of them as other users.

    python -m tests.fuzz.crowd FOLDER LOG SEED SECONDS USER WORDS WITHOUT

Each step is in LOG before it is performed. Ends with 1, and a line that begins with "bad", when a request
ends as none may; with 0 when the file system has lost its daemon.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.actor import Actor
from tests.fuzz.dice import Dice
from tests.fuzz.grounds import SHOW_OTHERS, WORDS, Place
from tests.mounted.mounts import ENVIRONMENT
from tests.mounted.race import is_served

BAD = {
    errno.errorcode[number]
    for number in (
        *(errno.EIO, errno.ENOSYS, errno.EPROTO, errno.ENOTCONN, errno.ECONNABORTED, errno.EROFS),
        *(errno.ENOSPC, errno.EUCLEAN, errno.EREMOTEIO, errno.ESTALE, errno.ENOMEM, errno.EOVERFLOW),
        *(errno.EINTR, errno.EDEADLK, errno.EMFILE, errno.ENFILE),
    )
}
"""How no legal request may end on a file system that has room."""

LAST_SHOWN = 12


class Worker:
    """One of the processes, from outside."""

    def __init__(self, place: Place, log: Path, seed: str, seconds: float, user: int, without: str):
        self.log = log
        words = [str(place.path), str(log), seed, str(seconds), str(user), place.words, without]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.crowd", *words],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            cwd="/",
            text=True,
        )
        self._size, self._grown = 0, time.monotonic()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stuck_for(self) -> float:
        """Seconds for which it has done nothing."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size != self._size:
            self._size, self._grown = size, time.monotonic()
        return time.monotonic() - self._grown

    def where(self) -> str:
        """What it waits for in the kernel."""
        try:
            return Path(f"/proc/{self._process.pid}/stack").read_text()
        except OSError as error:
            return str(error)

    def last(self) -> str:
        lines = self.log.read_text().splitlines()[-LAST_SHOWN:] if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines)

    def end(self, timeout: float = 60) -> str:
        """Wait for its end; what it complained about."""
        complaint = self._process.communicate(timeout=timeout)[1]
        code = self._process.returncode
        return f"a process ended with {code}: {complaint}\n{self.last()}" if code else ""

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def work(folder: Path, log: Path, seed: str, seconds: float, user: int, words: str, without: str) -> int:
    record = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.umask(0)
    dice = Dice(seed)
    dice.users = not user and os.getuid() == 0
    dice.words, dice.without = WORDS[words], without
    actor = Actor(folder)
    actor.alone = False
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        step = dice.step()
        os.write(record, f"{step!r}\n".encode("utf-8", "surrogateescape"))
        found = actor.perform(step if not user else step._replace(user=user))
        if isinstance(found, str) and found in BAD and is_bad(folder, step.name, found):
            if not is_served(folder):
                return 0
            sys.stderr.write(f"bad: {step!r}: {found}\n")
            return 1
    try:
        actor.end()
    except OSError:
        if is_served(folder):
            raise
    return 0


def is_bad(folder: Path, name: str, found: str) -> bool:
    """A file's handle may be that of a file that is gone, and what a virtual repository shows may lie in one
    that is not written to."""
    if found == "EROFS":
        return not folder.name.endswith(SHOW_OTHERS)
    return not (found == "ESTALE" and name == "open_handle")


def main() -> int:
    folder, log, seed, seconds, user, words, without = sys.argv[1:]
    return work(Path(folder), Path(log), seed, float(seconds), int(user), words, without)


if __name__ == "__main__":
    sys.exit(main())
