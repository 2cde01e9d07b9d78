"""Asking the daemon of a store."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from casfs.control.protocol import VERSION, Request, decode_answer, encode
from casfs.errors import CasfsError, NotMounted, PermissionDenied, exit_code
from casfs.store import control_path

if TYPE_CHECKING:  # commands that only ask shall not wait for the whole file system to be loaded
    from casfs.maintenance.collect_mounted import Collected
    from casfs.namespace.collecting import Record


class DaemonError(CasfsError):
    """What the daemon answered instead of a result."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code(code)


class Client:
    """The daemon that has the store at `store` mounted."""

    def __init__(self, store: str) -> None:
        self._path = control_path(os.path.realpath(store))
        self._store = store

    def call(self, op: str, **args: Any) -> dict[str, Any]:
        """Ask and wait for the answer. Raises NotMounted, PermissionDenied, DaemonError."""
        try:
            directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            raise NotMounted(f"{self._store} is not mounted") from None
        except PermissionError:
            raise PermissionDenied(f"{self._store} belongs to another user") from None
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                # sun_path holds 108 bytes, unix(7): a long path goes through its directory's descriptor.
                connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(self._path)}")
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotMounted(f"{self._store} is not mounted") from None
            except PermissionError:
                raise PermissionDenied(f"{self._store} belongs to another user") from None
            finally:
                os.close(directory)
            try:
                connection.sendall(encode(Request(VERSION, op, args)))
                line = connection.makefile("rb").readline()
            except ConnectionError:
                line = b""
        if not line:
            raise NotMounted(f"the daemon of {self._store} ended before it answered")
        try:
            answer = decode_answer(line)
        except ValueError as error:
            raise NotMounted(f"the daemon of {self._store} gave no valid answer: {error}") from None
        if not answer.ok:
            raise DaemonError(answer.error, answer.exit_code)
        return answer.result


def tell_damaged(store: str, blobs: list[int]) -> None:
    """Let the daemon, if there is one, let go of blobs whose files were found to be bad and taken away.

    Raises PermissionDenied, DaemonError.
    """
    try:
        Client(store).call("damaged", blobs=blobs)
    except NotMounted:
        return


def collect_in_mount(
    store: str, ids: list[int], cutoff_ns: int, now_ns: int, record: Record
) -> Collected | None:
    """Let the daemon remove orphans (maintenance/collect_mounted.py); None when there is no daemon.

    Raises PermissionDenied, DaemonError.
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
