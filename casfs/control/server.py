"""Answering commands, in the daemon that has the store mounted."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from casfs.control import asking
from casfs.control.messages import Operation
from casfs.control.protocol import (
    ALIVE_SECONDS,
    ANSWER_LIMIT,
    CREDENTIALS,
    LINE_LIMIT,
    LINES_LIMIT,
    SILENCE_SECONDS,
    SILENT_VERSION,
    VERSION,
    Answer,
    Request,
    answer_of,
    decode_request,
    encode,
    items_of,
    operation_of,
)
from casfs.errors import CasfsError, ExitCode, UsageError

log = logging.getLogger(__name__)

Handlers = dict[type[Operation[Any]], Callable[[Any], Awaitable[object]]]
"""What does each operation, and gives its result."""

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted; /proc/sys/net/core/somaxconn may allow less."""


class Server:
    """The control socket of one store. Runs on the event loop's thread."""

    def __init__(self, path: str, handlers: Handlers) -> None:
        self._place, self._name = os.path.split(path)
        self._handlers = {kind.op: (kind, handler) for kind, handler in handlers.items()}
        self._listener = socket.socket(socket.AF_UNIX)
        self._folder = -1

    def bind(self) -> None:
        """Begin to listen; what a dead daemon left is replaced. The store's lock is held.

        Only its user may connect from the first moment on, whatever the umask: the socket gets the mode of
        its descriptor (unix_bind_bsd, net/unix/af_unix.c). Raises OSError.
        """
        self._folder = os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        os.fchmod(self._listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        self._listener.bind(f"/proc/self/fd/{self._folder}/{self._name}")
        self._listener.listen(BACKLOG)

    async def serve(self) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(
            self._answer, [trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))]
        )

    def close(self) -> None:
        self._listener.close()
        if self._folder < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    async def _answer(self, stream: trio.SocketStream) -> None:
        """One connection. Whatever goes wrong ends this one only."""
        try:
            async with stream:
                line = encode(await self._perform(stream))
                if len(line) > ANSWER_LIMIT:
                    line = encode(Answer(ok=False, error="done, but the answer is too long to be sent"))
                with trio.fail_after(SILENCE_SECONDS):
                    await stream.send_all(line)
        except (trio.BrokenResourceError, trio.TooSlowError):
            log.info("a command went away before it had its answer")
        except Exception:
            log.exception("a command had no answer")

    async def _perform(self, stream: trio.SocketStream) -> Answer:
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        assert isinstance(credentials, bytes)
        uid = CREDENTIALS.unpack(credentials)[1]
        if uid not in (0, os.getuid()):
            return Answer(ok=False, error="only root and the owner of the mount may do this")
        asking.uid.set(uid)
        lines = _Lines(stream)
        try:
            request = decode_request(await lines.next())
            if not 0 <= request.lines <= LINES_LIMIT:
                raise ValueError(f"more than {LINES_LIMIT} lines")
        except ValueError as error:
            return _not_a_request(str(error))
        if request.version == SILENT_VERSION:
            return await self._call(request, lines)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_alive, stream)
            answer = await self._call(request, lines)
            nursery.cancel_scope.cancel()
        return answer

    async def _call(self, request: Request, lines: _Lines) -> Answer:
        if request.version not in (VERSION, SILENT_VERSION):
            return Answer(ok=False, error=f"the mount speaks version {VERSION} of the control protocol")
        known = self._handlers.get(request.op)
        if known is None:
            return Answer(ok=False, error=f"the mount knows no operation '{request.op}'")
        kind, handle = known
        try:
            items = await _items(kind, request, lines) if request.lines else None
            return answer_of(await handle(operation_of(kind, request, items)))
        except CasfsError as error:
            return Answer(ok=False, error=str(error), exit_code=error.exit_code)
        except OSError as error:
            return Answer(ok=False, error=error.strerror or str(error))
        except Exception as error:
            log.exception("control operation %s failed", request.op)
            return Answer(ok=False, error=f"internal error: {error}", exit_code=ExitCode.INTERNAL)


class _Lines:
    """What comes over a connection, line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def next(self) -> bytes:
        """Raises ValueError for none within SILENCE_SECONDS, or one that is too long."""
        received = self._received
        with trio.move_on_after(SILENCE_SECONDS):
            while (end := received.find(b"\n", 0, LINE_LIMIT)) < 0 and len(received) <= LINE_LIMIT:
                more = await self._stream.receive_some(LINE_LIMIT)
                if not more:
                    break
                received += more
        if end < 0:
            raise ValueError("no line, or one that is too long")
        line = bytes(received[: end + 1])
        del received[: end + 1]
        return line


async def _items(kind: type[Operation[Any]], request: Request, lines: _Lines) -> list[Any]:
    """What comes behind a request; others are served between the lines. Raises UsageError."""
    if not kind.listed:
        raise UsageError(f"bad arguments: '{request.op}' has no list")
    items: list[Any] = []
    try:
        for _ in range(request.lines):
            items += items_of(kind, await lines.next())
            await trio.lowlevel.checkpoint()
    except ValueError as error:
        raise UsageError(f"not a request: {error}") from None
    return items


def _not_a_request(reason: str) -> Answer:
    return Answer(ok=False, error=f"not a request: {reason}", exit_code=ExitCode.USAGE)


async def _keep_alive(stream: trio.SocketStream) -> None:
    """Say now and then that the answer is still being worked for. Who went away does not end the work."""
    try:
        while True:
            await trio.sleep(ALIVE_SECONDS)
            await stream.send_all(b"\n")
    except trio.BrokenResourceError:
        return
