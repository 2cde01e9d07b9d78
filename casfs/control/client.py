"""Asking the daemon of a store."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import struct
import time
from typing import NamedTuple

from casfs.control.messages import Operation, Result
from casfs.control.protocol import (
    ANSWER_LIMIT,
    CREDENTIALS,
    LINE_LIMIT,
    SILENCE_SECONDS,
    SILENT_VERSION,
    Answer,
    decode_answer,
    lines_of,
    result_of,
)
from casfs.errors import CasfsError, ExitCode, NotMounted, PermissionDenied, exit_code


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


class Peer(NamedTuple):
    """Who listens at a control socket, by the kernel's word. `pid`: 0 for a process not seen here."""

    pid: int
    uid: int


class Client:
    """The daemon that has the store at `store` mounted.

    `patience`: seconds without a sign of life (control/protocol.py) after which it is given up. `limit`:
    seconds after which it is given up in any case. `pid`: the process it has to be; None: any.
    `peer`: who was asked last, None before.
    """

    def __init__(
        self,
        store: str,
        patience: float = SILENCE_SECONDS,
        *,
        limit: float = math.inf,
        pid: int | None = None,
    ) -> None:
        self.store = store
        self.peer: Peer | None = None
        self._patience = patience
        self._limit = limit
        self._pid = pid

    def ask(self, operation: Operation[Result]) -> Result:
        """Ask and wait for the answer, however long it is worked for, if there is no `limit`.

        Raises NotMounted (Unanswered), NoAnswer, PermissionDenied, DaemonError, UsageError (longer than a
        request may be).
        """
        answer = self._send(lines_of(operation), self._patience)
        if not answer.ok and answer.error.startswith(f"the mount speaks version {SILENT_VERSION} "):
            # A daemon from before an update. It gives no signs of life, but has just answered.
            patience = 0.0 if math.isinf(self._limit) else self._limit
            answer = self._send(lines_of(operation, SILENT_VERSION), patience)
        if not answer.ok:
            raise DaemonError(answer.error, answer.exit_code)
        try:
            return result_of(operation, answer)
        except ValueError as error:
            message = f"done, but the daemon of {self.store} answered what this casfs cannot read: {error}"
            raise DaemonError(message, ExitCode.FAILED) from None

    def _send(self, lines: list[bytes], patience: float) -> Answer:
        """`patience`: as above; 0 = wait for ever."""
        with self._connected(patience) as connection:
            try:
                for line in lines:
                    connection.sendall(line)
                line = _receive_line(connection, time.monotonic() + self._limit)
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
            found = _open_socket(self.store)
        except (FileNotFoundError, NotADirectoryError):
            raise NotMounted(f"{self.store} is not mounted") from None
        except PermissionError:
            raise PermissionDenied(f"{self.store} belongs to another user") from None
        connection = socket.socket(socket.AF_UNIX)
        limit = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # the latter for connect(2), too: socket(7)
            connection.setsockopt(socket.SOL_SOCKET, option, limit)
        try:
            connection.connect(f"/proc/self/fd/{found}")
            self._look_at(connection)
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
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(found)
        return connection

    def _look_at(self, connection: socket.socket) -> None:
        """Raises NotMounted for another process than is wanted."""
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(packed)
        self.peer = Peer(pid, uid)
        if self._pid is not None and pid != self._pid:
            raise NotMounted(f"{self.store} is not mounted by process {self._pid} any more")

    def _silent(self) -> NoAnswer:
        message = f"the daemon of {self.store} has not answered for {self._patience:g} s"
        return NoAnswer(message, "it was stopped, or its disk hangs")


def _open_socket(store: str) -> int:
    """A descriptor of the store's control socket, O_PATH: what lies below STORE may be links to elsewhere.

    sun_path holds 108 bytes, unix(7); a descriptor's path is never longer. Raises OSError, FileNotFoundError
    for what is no socket, or one of another name too.
    """
    path = os.open(os.path.realpath(store), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, kind in (("run", os.O_DIRECTORY), ("control", 0)):
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=path)
            os.close(path)
            path = below
        if not _is_own_socket(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except BaseException:
        os.close(path)
        raise
    return path


def _is_own_socket(fd: int) -> bool:
    """Is it a socket with no other name? XFS does not say so of anything once its disk has failed, and the
    daemon answers all the same."""
    try:
        found = os.fstat(fd)
    except OSError as error:
        return error.errno == errno.EIO
    return stat.S_ISSOCK(found.st_mode) and found.st_nlink == 1


def _receive_line(connection: socket.socket, deadline: float) -> bytes:
    """The first line that is not empty; b"" when the daemon ends before.

    Raises BlockingIOError for silence, and past the `deadline` (monotonic). What is longer than an answer may
    be is cut off.
    """
    received = bytearray()
    while len(received) <= ANSWER_LIMIT:
        if time.monotonic() > deadline:
            raise BlockingIOError
        data = connection.recv(LINE_LIMIT)
        if not data:
            return b""
        received += data
        received = received.lstrip()
        line, newline, _ = received.partition(b"\n")
        if newline:
            return bytes(line)
    return bytes(received)
