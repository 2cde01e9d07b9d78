"""Asking the daemon of a store."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from casfs.control.protocol import (
    LINE_LIMIT,
    SILENCE_SECONDS,
    SILENT_VERSION,
    VERSION,
    Answer,
    Request,
    decode_answer,
    encode,
)
from casfs.errors import CasfsError, ExitCode, NotMounted, PermissionDenied, exit_code
from casfs.store import control_path

if TYPE_CHECKING:  # commands that only ask shall not wait for the whole file system to be loaded
    from casfs.maintenance.collect_mounted import Collected
    from casfs.namespace.collecting import Record


class DaemonError(CasfsError):
    """What the daemon answered instead of a result."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code(code)


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
        self._store = store
        self._patience = patience

    def call(self, op: str, **args: Any) -> dict[str, Any]:
        """Ask and wait for the answer, however long it is worked for.

        Raises NotMounted, NoAnswer, PermissionDenied, DaemonError.
        """
        answer = self._ask(Request(VERSION, op, args))
        if not answer.ok and answer.error.startswith(f"the mount speaks version {SILENT_VERSION} "):
            # A daemon from before an update. It gives no signs of life, but has just answered.
            self._patience = 0.0
            answer = self._ask(Request(SILENT_VERSION, op, args))
        if not answer.ok:
            raise DaemonError(answer.error, answer.exit_code)
        return answer.result

    def _ask(self, request: Request) -> Answer:
        with self._connected() as connection:
            try:
                connection.sendall(encode(request))
                line = _receive_line(connection)
            except ConnectionError:
                line = b""
            except BlockingIOError:
                raise self._silent() from None
        if not line:
            raise NotMounted(f"the daemon of {self._store} ended before it answered")
        try:
            return decode_answer(line)
        except ValueError as error:
            raise NotMounted(f"the daemon of {self._store} gave no valid answer: {error}") from None

    def _connected(self) -> socket.socket:
        try:
            directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotMounted(f"{self._store} is not mounted") from None
        except PermissionError:
            raise PermissionDenied(f"{self._store} belongs to another user") from None
        connection = socket.socket(socket.AF_UNIX)
        limit = struct.pack("ll", int(self._patience), int(self._patience % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # the latter for connect(2), too: socket(7)
            connection.setsockopt(socket.SOL_SOCKET, option, limit)
        try:
            # sun_path holds 108 bytes, unix(7): a long path goes through its directory's descriptor.
            connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(self._path)}")
        except OSError as error:
            connection.close()
            match error:
                case FileNotFoundError() | ConnectionRefusedError():
                    raise NotMounted(f"{self._store} is not mounted") from None
                case PermissionError():
                    raise PermissionDenied(f"{self._store} belongs to another user") from None
                case BlockingIOError():
                    raise self._silent() from None
            raise
        finally:
            os.close(directory)
        return connection

    def _silent(self) -> NoAnswer:
        message = f"the daemon of {self._store} has not answered for {self._patience:g} s"
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


def tell_damaged(store: str, blobs: list[int]) -> None:
    """Let the daemon, if there is one, let go of blobs whose files were found to be bad and taken away.

    Raises PermissionDenied, DaemonError, NoAnswer.
    """
    try:
        Client(store).call("damaged", blobs=blobs)
    except NotMounted:
        return


def collect_in_mount(
    store: str, ids: list[int], cutoff_ns: int, now_ns: int, record: Record
) -> Collected | None:
    """Let the daemon remove orphans (maintenance/collect_mounted.py); None when there is no daemon.

    Raises PermissionDenied, DaemonError, NoAnswer.
    """
    from casfs.maintenance.collect_mounted import Collected
    from casfs.namespace.collecting import Amount

    try:
        answer = Client(store).call("collect", ids=ids, cutoff_ns=cutoff_ns, now_ns=now_ns, record=record)
    except NotMounted:
        return None
    failures = [(bytes.fromhex(digest), size, reason) for digest, size, reason in answer["failures"]]
    gone = Amount(answer["blobs"], answer["bytes"])
    return Collected(gone, failures, answer["untried"], answer["gave_up"], answer["busy"])
