"""Going to the background: the command returns when the daemon says that it is ready, or why it is not."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import NoReturn

from casfs.errors import CasfsError, ExitCode, exit_code

log = logging.getLogger(__name__)

Ready = Callable[[], None]


class StartFailed(CasfsError):
    """The daemon ended before it was ready; the text is its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code(code)


def start(serve: Callable[[Ready], None]) -> None:
    """Run `serve` in a new process and return once it calls what it is given. Raises StartFailed.

    Called before threads, event loops and stores are there: fork(2) would take only half of them along.
    """
    receiving, sending = os.pipe()
    if os.fork() == 0:
        os.close(receiving)
        _child(serve, sending)
    os.close(sending)
    with open(receiving, "rb") as pipe:
        text = pipe.read()
    if not text:
        raise StartFailed("the daemon died while it started", ExitCode.MOUNT)
    answer = json.loads(text)
    if answer["code"]:
        raise StartFailed(answer["error"], answer["code"])


def _child(serve: Callable[[Ready], None], sending: int) -> NoReturn:
    state = {"sent": False}

    def answer(code: int, error: str = "") -> None:
        if not state["sent"]:
            state["sent"] = True
            os.write(sending, json.dumps({"code": code, "error": error}).encode())
            os.close(sending)

    def ready() -> None:
        """Leave the session only now: a mount helper that leaves systemd's process group early deadlocks."""
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        answer(0)

    code = 0
    try:
        serve(ready)
    except (CasfsError, OSError) as error:
        code = getattr(error, "exit_code", ExitCode.FAILED)
        if state["sent"]:
            log.critical("ended, and what was not synced before is lost: %s", error)
        answer(code, str(error))
    except BaseException as error:
        code = ExitCode.INTERNAL
        log.critical("internal error", exc_info=error)
        answer(code, f"internal error: {type(error).__name__}: {error}")
    logging.shutdown()
    os._exit(code)
