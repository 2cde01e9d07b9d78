"""The log of the daemon in the background: STORE/run/mount.log, and the one before it, mount.log.1."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, TextIO

from casfs.errors import FormatError
from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.locks import FOLDER

if TYPE_CHECKING:
    StreamHandler = logging.StreamHandler[TextIO]
else:
    StreamHandler = logging.StreamHandler

NAME = f"{FOLDER}/mount.log"

LOG_BYTES = 1 << 20
"""Size at which the log is put aside; one old one is kept."""


class LogFile(StreamHandler):
    """Used by the process that has the store's lock. What lies there and is no file of its own is not written
    to: it may lead anywhere (I9)."""

    def __init__(self, directory: StoreDirectory) -> None:
        """Raises FormatError, OSError."""
        self._directory = directory
        super().__init__(self._open())

    def _open(self) -> TextIO:
        try:
            fd = self._directory.open_own(NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in NO_FILE and not self._directory.exists(NAME):
                raise
            raise FormatError(
                f"{self._directory.path}/{NAME} cannot be written: {error.strerror}", hint="remove it"
            ) from None
        os.fchmod(fd, 0o600)  # whatever a copy of the store has made of it
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            if os.fstat(self.stream.fileno()).st_size >= LOG_BYTES:
                self._put_aside()
        super().emit(record)

    def _put_aside(self) -> None:
        self._directory.rename(NAME, f"{NAME}.1")
        with contextlib.suppress(FormatError):
            fresh = self._open()
            old, self.stream = self.stream, fresh
            old.close()
