"""Asking the daemon of a store."""

from __future__ import annotations

import errno
import os
import socket
import struct

from casfs.control.messages import Operation, Result
from casfs.control.protocol import (
    LINE_LIMIT,
    SILENCE_SECONDS,
    SILENT_VERSION,
    Answer,
    Request,
    decode_answer,
    encode,
    request_of,
    result_of,
)
from casfs.errors import CasfsError, ExitCode, NotMounted, PermissionDenied, exit_code
from casfs.store import control_path


class DaemonError(CasfsError):
    """What the daemon answered instead of a result."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code(code)


class Unanswered(NotMounted):
    """The daemon ended after it was asked, or talked nonsense: what it was asked for may have been done."""


class NoAnswer(CasfsError):
    """There is a daemon, and it does not say anything: it was stopped, or its disk hangs."""

    errno = errno.ETIMEDOUT
    exit_code = ExitCode.NOT_MOUNTED


class Client:
    """The daemon that has the store at `store` mounted.

    `patience`: seconds without a sign of life (control/protocol.py) after which it is given up.
    """

    def __init__(self, store: str, patience: float = SILENCE_SECONDS) -> None:
        self._path = control_path(os.path.realpath(store))
        self.store = store
        self._patience = patience

    def ask(self, operation: Operation[Result]) -> Result:
        """Ask and wait for the answer, however long it is worked for.

        Raises NotMounted (Unanswered), NoAnswer, PermissionDenied, DaemonError.
        """
        answer = self._send(request_of(operation), self._patience)
        if not answer.ok and answer.error.startswith(f"the mount speaks version {SILENT_VERSION} "):
            # A daemon from before an update. It gives no signs of life, but has just answered.
            answer = self._send(request_of(operation, SILENT_VERSION), patience=0.0)
        if not answer.ok:
            raise DaemonError(answer.error, answer.exit_code)
        try:
            return result_of(operation, answer)
        except ValueError as error:
            message = f"done, but the daemon of {self.store} answered what this casfs cannot read: {error}"
            raise DaemonError(message, ExitCode.FAILED) from None

    def _send(self, request: Request, patience: float) -> Answer:
        """`patience`: as above; 0 = wait for ever."""
        with self._connected(patience) as connection:
            try:
                connection.sendall(encode(request))
                line = _receive_line(connection)
            except ConnectionError:
                line = b""
            except BlockingIOError:
                raise self._silent() from None
        if not line:
            raise Unanswered(f"the daemon of {self.store} ended before it answered")
        try:
            return decode_answer(line)
        except ValueError as error:
            raise Unanswered(f"the daemon of {self.store} gave no valid answer: {error}") from None

    def _connected(self, patience: float) -> socket.socket:
        try:
            directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotMounted(f"{self.store} is not mounted") from None
        except PermissionError:
            raise PermissionDenied(f"{self.store} belongs to another user") from None
        connection = socket.socket(socket.AF_UNIX)
        limit = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # the latter for connect(2), too: socket(7)
            connection.setsockopt(socket.SOL_SOCKET, option, limit)
        try:
            # sun_path holds 108 bytes, unix(7): a long path goes through its directory's descriptor.
            connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(self._path)}")
        except OSError as error:
            connection.close()
            match error:
                case FileNotFoundError() | ConnectionRefusedError():
                    raise NotMounted(f"{self.store} is not mounted") from None
                case PermissionError():
                    raise PermissionDenied(f"{self.store} belongs to another user") from None
                case BlockingIOError():
                    raise self._silent() from None
            raise
        finally:
            os.close(directory)
        return connection

    def _silent(self) -> NoAnswer:
        message = f"the daemon of {self.store} has not answered for {self._patience:g} s"
        return NoAnswer(message, "it was stopped, or its disk hangs")


def _receive_line(connection: socket.socket) -> bytes:
    """The first line that is not empty; b"" when the daemon ends before. Raises BlockingIOError (silence)."""
    received = bytearray()
    while not received.endswith(b"\n") or not received.strip():
        data = connection.recv(LINE_LIMIT)
        if not data:
            return b""
        received += data
    return bytes(received).strip()
