"""What a rule refuses: an error for the program, and a line of the log for who has set the rule."""

from __future__ import annotations

import errno
import logging
import os
from typing import NoReturn

from casfs.errors import FsError

log = logging.getLogger(__name__)


def refuse(number: int, repository: bytes, path: bytes, rule: str, hint: str = "") -> NoReturn:
    """`path`: in the repository. `hint`: what a person may do about it. Raises FsError `number`."""
    log.warning(
        "repository %s: %s is refused, %s: %s",
        os.fsdecode(repository),
        os.fsdecode(path) or ".",
        errno.errorcode[number],
        rule,
    )
    where = os.fsdecode(repository + b"/" + path if path else repository)
    raise FsError(number, f"{where}: {rule}; {hint}" if hint else f"{where}: {rule}")
