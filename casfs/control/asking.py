"""Who asks for what is done: for the log, and for the trash."""

from __future__ import annotations

import os
from contextvars import ContextVar

uid: ContextVar[int | None] = ContextVar("uid", default=None)
"""The user at the other end of the control socket, by the kernel's word; of the task that answers him."""


def user() -> int:
    """His user id; without a daemon it is he who runs this process."""
    asking = uid.get()
    return os.getuid() if asking is None else asking
