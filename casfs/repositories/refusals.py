"""What a rule refuses: an error for the program, and a line of the log for who has set the rule."""

from __future__ import annotations

import errno
import logging
import os
from typing import NoReturn

from casfs.errors import FsError

log = logging.getLogger(__name__)


def refuse(number: int, repository: bytes, path: bytes, rule: str) -> NoReturn:
    """`path`: in the repository. Raises FsError `number`."""
    log.warning(
        "repository %s: %s is refused, %s: %s",
        os.fsdecode(repository),
        os.fsdecode(path) or ".",
        errno.errorcode[number],
        rule,
    )
    raise FsError(number)
