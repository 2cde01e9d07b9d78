"""Answering commands, in the daemon that has the store mounted."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from casfs.control.messages import Operation
from casfs.control.protocol import (
    ALIVE_SECONDS,
    LINE_LIMIT,
    SILENT_VERSION,
    VERSION,
    Answer,
    Request,
    answer_of,
    decode_request,
    encode,
    operation_of,
)
from casfs.errors import CasfsError, ExitCode

log = logging.getLogger(__name__)

Handlers = dict[type[Operation[Any]], Callable[[Any], Awaitable[object]]]
"""What does each operation, and gives its result."""

_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""


class Server:
    """The control socket of one store. Runs on the event loop's thread."""

    def __init__(self, path: str, handlers: Handlers) -> None:
        self._path = path
        self._handlers = {kind.op: (kind, handler) for kind, handler in handlers.items()}
        self._listener = socket.socket(socket.AF_UNIX)

    def bind(self) -> None:
        """Begin to listen; what a dead daemon left is replaced. The store's lock is held."""
        directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY)
        try:
            name = f"/proc/self/fd/{directory}/{os.path.basename(self._path)}"
            if os.path.lexists(name):
                os.unlink(name)
            self._listener.bind(name)
            os.chmod(name, 0o600)
        finally:
            os.close(directory)
        self._listener.listen()

    async def serve(self) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(
            self._answer, [trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))]
        )

    def close(self) -> None:
        self._listener.close()
        if os.path.lexists(self._path):
            os.unlink(self._path)

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                answer = await self._perform(stream)
                await stream.send_all(encode(answer))
        except trio.BrokenResourceError:
            log.info("a command went away before it had its answer")
        except Exception:
            log.exception("a command had no answer")

    async def _perform(self, stream: trio.SocketStream) -> Answer:
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        assert isinstance(credentials, bytes)
        uid = _CREDENTIALS.unpack(credentials)[1]
        if uid not in (0, os.getuid()):
            return Answer(ok=False, error="only root and the owner of the mount may do this")
        line = bytearray()
        while not line.endswith(b"\n"):
            received = await stream.receive_some(LINE_LIMIT)
            line += received
            if not received or len(line) > LINE_LIMIT:
                return Answer(ok=False, error="not a request")
        try:
            request = decode_request(bytes(line))
        except ValueError as error:
            return Answer(ok=False, error=f"not a request: {error}")
        if request.version == SILENT_VERSION:
            return await self._call(request)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_alive, stream)
            answer = await self._call(request)
            nursery.cancel_scope.cancel()
        return answer

    async def _call(self, request: Request) -> Answer:
        if request.version not in (VERSION, SILENT_VERSION):
            return Answer(ok=False, error=f"the mount speaks version {VERSION} of the control protocol")
        known = self._handlers.get(request.op)
        if known is None:
            return Answer(ok=False, error=f"the mount knows no operation '{request.op}'")
        kind, handle = known
        try:
            return answer_of(await handle(operation_of(kind, request)))
        except CasfsError as error:
            return Answer(ok=False, error=str(error), exit_code=error.exit_code)
        except OSError as error:
            return Answer(ok=False, error=error.strerror or str(error))
        except Exception as error:
            log.exception("control operation %s failed", request.op)
            return Answer(ok=False, error=f"internal error: {error}", exit_code=ExitCode.INTERNAL)


async def _keep_alive(stream: trio.SocketStream) -> None:
    """Say now and then that the answer is still being worked for. Who went away does not end the work."""
    try:
        while True:
            await trio.sleep(ALIVE_SECONDS)
            await stream.send_all(b"\n")
    except trio.BrokenResourceError:
        return
