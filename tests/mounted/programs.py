"""Programs of other users, told step by step what to do: open, map, close, store, and end.

    python -m tests.mounted.programs FOLDER USER

reads steps (tests/fuzz/actor.py) from its standard input, as JSON, and answers each with its outcome.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.fuzz.actor import Actor, Step
from tests.fuzz.calls import be_dumpable, process_vm_writev
from tests.mounted.mounts import ENVIRONMENT
from tests.mounted.sides import PAGE, pattern
from tests.mounted.uring import Ring


class Outliving(Actor):
    """Knows more ways to keep a file without a descriptor of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ring: Ring | None = None

    def do_ring_keep(self, place: int) -> None:
        """An io_uring holds the file from now on; the descriptor is closed."""
        self._ring = Ring()
        self._ring.register_file(self.fds[place])
        os.close(self.fds.pop(place))

    def do_ring_write(self, offset: int, seed: int, size: int) -> int:
        assert self._ring is not None
        return self._ring.write(offset, pattern(seed, size))

    def do_ring_end(self) -> None:
        assert self._ring is not None
        self._ring.close()

    def do_open_mapped(self, place: int, source: int, flags: str) -> None:
        """The file that a mapping has, by its name in /proc/self/map_files."""
        mapping = self.maps[source]
        end = mapping.address + -(-mapping.length // PAGE) * PAGE
        self._put(place, os.open(f"/proc/self/map_files/{mapping.address:x}-{end:x}", self._flags(flags)))

    def do_poke_child(self, place: int, offset: int, seed: int, size: int) -> int:
        """Store into the mapping that a forked child has, whether or not there is still one here."""
        return process_vm_writev(self._children[-1], self._addresses[place] + offset, pattern(seed, size))

    def do_leave_to_child(self, place: int) -> None:
        self._addresses = {place: self.maps[place].address}
        self.do_unmap(place)

    def do_read_into(self, place: int, offset: int, size: int, path: str) -> None:
        """Begin to read(2) a file into a mapping, and do not wait for it."""
        mapping = self.maps[place]
        buffer = memoryview((ctypes.c_char * size).from_address(mapping.address + offset))
        fd = os.open(path, os.O_RDONLY)
        self._reading = threading.Thread(target=os.readv, args=(fd, [buffer]))
        self._reading.start()

    def do_await_read(self) -> None:
        self._reading.join()


class Program:
    """A process of `user`, whose files and mappings live until it closes and unmaps them, or ends."""

    def __init__(self, folder: Path, user: int = 0) -> None:
        self._user = user
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mounted.programs", str(folder), str(user)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self.pid = self._process.pid

    def __call__(self, name: str, *args: object) -> Any:
        """Perform one step; its outcome."""
        self.begin(name, *args)
        return self.answer()

    def begin(self, name: str, *args: object) -> None:
        """As a call, but do not wait: `answer` does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, args]).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program of user {self._user} has ended"
        return json.loads(line)

    def end(self) -> None:
        """Without letting go of anything itself."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def main() -> None:
    folder, user = Path(sys.argv[1]), int(sys.argv[2])
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        be_dumpable()  # or the kernel keeps it from its own children
    actor = Outliving(folder)
    for line in sys.stdin:
        name, args = json.loads(line)
        try:
            found = actor.perform(Step(user, name, tuple(args)))
        except AssertionError as error:
            found = str(error)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
