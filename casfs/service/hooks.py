"""Programs that an administrator has named, run before and after something."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio

from casfs.service.commands import COMMAND_PATH

PATIENCE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL, and how long the latter is waited for."""

LONGEST_VALUE = 4096
"""Characters of a value in a hook's environment."""


async def run_hook(
    command: Sequence[str], variables: Mapping[str, str], seconds: float, stop: trio.Event | None = None
) -> str:
    """Run a program to its end; "" when its exit status is 0, else what is wrong.

    Without a shell, in /, as leader of a session of its own, with nothing to read; what it writes goes to
    standard error, so to the journal. Its environment is the variables and a PATH, none of the daemon's: what
    is right for one who starts it by hand is so for systemd. After so many seconds it and its process group
    get SIGTERM, and SIGKILL if need be; as soon as `stop` is set, too.
    """
    environment = {"PATH": COMMAND_PATH, "LANG": "C.UTF-8"}
    environment |= {name: _value(text) for name, text in variables.items()}
    try:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]} cannot be run: {error.strerror}"
    stopped = False
    async with trio.open_nursery() as nursery:

        async def watch(event: trio.Event) -> None:
            nonlocal stopped
            await event.wait()
            stopped = True
            nursery.cancel_scope.cancel()

        if stop is not None:
            nursery.start_soon(watch, stop)
        with trio.move_on_after(seconds):
            await process.wait()
        nursery.cancel_scope.cancel()
    if process.returncode is None:
        await _end(process)
        return f"{command[0]} was stopped" if stopped else f"{command[0]} has not ended for {seconds:g} s"
    if process.returncode < 0:
        return f"{command[0]} was killed by signal {-process.returncode}"
    return f"{command[0]} failed with exit status {process.returncode}" if process.returncode else ""


async def _end(process: trio.Process) -> None:
    """Have the processes of its group end. One that waits for a dead disk is left behind."""
    with trio.CancelScope(shield=True):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            with trio.move_on_after(PATIENCE_SECONDS):
                await process.wait()


def _value(text: str) -> str:
    return text.replace("\0", " ")[:LONGEST_VALUE]
