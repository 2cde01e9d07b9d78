"""Logs of a store: STORE/run/mount.log of the daemon in the background, STORE/run/digests.log of who computes
digests, and the one before each, mount.log.1 and digests.log.1."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from casfs.errors import FormatError
from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.locks import FOLDER
from casfs.maintenance.digests import migration
from casfs.text import LineFormatter

if TYPE_CHECKING:
    StreamHandler = logging.StreamHandler[TextIO]
else:
    StreamHandler = logging.StreamHandler

MOUNT = f"{FOLDER}/mount.log"
DIGESTS = f"{FOLDER}/digests.log"

LOG_BYTES = 1 << 20
"""Size at which the log is put aside; one old one is kept."""


class LogFile(StreamHandler):
    """Used by the process that has the store's lock, or that of what it logs. What lies there and is no file
    of its own is not written to: it may lead anywhere (I9)."""

    def __init__(self, directory: StoreDirectory, name: str = MOUNT) -> None:
        """Raises FormatError, OSError."""
        self._directory = directory
        self._place = name
        super().__init__(self._open())

    def _open(self) -> TextIO:
        try:
            fd = self._directory.open_own(
                self._place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            if error.errno not in NO_FILE and not self._directory.exists(self._place):
                raise
            raise FormatError(
                f"{self._directory.path}/{self._place} cannot be written: {error.strerror}", hint="remove it"
            ) from None
        os.fchmod(fd, 0o600)  # whatever a copy of the store has made of it
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(self.stream.fileno()).st_size >= LOG_BYTES:
                self._put_aside()
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """What does not fit on a full disk is not logged."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _put_aside(self) -> None:
        self._directory.rename(self._place, f"{self._place}.1")
        with contextlib.suppress(FormatError):
            fresh = self._open()
            old, self.stream = self.stream, fresh
            old.close()


@contextlib.contextmanager
def digests_logged(directory: StoreDirectory) -> Iterator[None]:
    """What who computes digests has to say goes to a log of its own too. Raises FormatError, OSError."""
    handler = LogFile(directory, DIGESTS)
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger(migration.__name__)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        with contextlib.suppress(OSError):  # a disk that was full
            handler.stream.close()
