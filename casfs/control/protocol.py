"""The control protocol: one JSON line to ask, one to answer, over STORE/run/control.

    {"version": 2, "op": "cp", "args": {"src": "/a", "dst": "/b", "recursive": false}}
    {"ok": true, "result": {…}}
    {"ok": false, "error": "…", "exit_code": 1}

What has a list that may be long (Operation.listed) says in `lines` how many lines come behind the request,
each a JSON list of some of it.

In version 2 the daemon sends an empty line every `ALIVE_SECONDS` until it has the answer: so a long operation
is told from a daemon that hangs, which is given up after `SILENCE_SECONDS`, as is who connects and does not
ask. Who asks in version 1 gets the answer alone.

What may be asked for is in control/messages.py. The lone surrogate that stands for a byte of a path (PEP 383)
is `\\udcNN` in JSON. The daemon serves root and its own user only (SO_PEERCRED, unix(7)).

Neither side trusts the other: lines have a longest length, values a greatest depth, and NaN is no number.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import msgspec

from casfs.control.messages import Operation, Result
from casfs.errors import UsageError

VERSION = 2
SILENT_VERSION = 1
"""The version that is spoken, and the one without signs of life, which is still understood."""

ALIVE_SECONDS = 1.0
SILENCE_SECONDS = 10.0
"""How often a daemon that works says so, and after how long a silence it is given up: a loop that waits for a
busy disk is late, too."""

LINE_LIMIT = 64 << 10
"""Bytes of a request: twice the longest path, quoted, and some."""

LINES_LIMIT = 1 << 10
"""Lines of a list behind a request."""

ANSWER_LIMIT = 1 << 20
"""Bytes of an answer: `Collected` names files that could not be removed, and why."""

DEPTH_LIMIT = 16
"""How deep values may be nested: many times what any message is."""

CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7), SO_PEERCRED: process, user, group."""

Asked = TypeVar("Asked", bound=Operation[Any])
Message = TypeVar("Message")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    op: str
    args: dict[str, Any] = {}
    lines: int = 0


class Answer(msgspec.Struct, frozen=True):
    ok: bool
    result: dict[str, Any] = {}
    error: str = ""
    exit_code: int = 1


def encode(message: Request | Answer) -> bytes:
    fields = msgspec.to_builtins(message)
    if not fields.get("lines", True):  # which daemons of before do not know
        del fields["lines"]
    return json.dumps(fields, ensure_ascii=True).encode() + b"\n"


def lines_of(operation: Operation[Any], version: int = VERSION) -> list[bytes]:
    """What asks for an operation, as it is sent. Raises UsageError for what is longer than may be."""
    request, lines = request_of(operation, version), []
    if operation.listed and request.args[operation.listed]:
        items = request.args.pop(operation.listed)
        lines = list(_listed(items))
        request = Request(request.version, request.op, request.args, len(lines))
    lines.insert(0, encode(request))
    if len(lines) > LINES_LIMIT + 1 or any(len(line) > LINE_LIMIT for line in lines):
        raise UsageError(f"what is asked for is longer than {LINE_LIMIT} bytes")
    return lines


def _listed(items: list[Any]) -> Iterator[bytes]:
    """As many in a line as fit into one."""
    texts: list[str] = []
    room = LINE_LIMIT
    for item in items:
        text = json.dumps(item)
        room -= len(text) + 1
        if texts and room < len("[]\n"):
            yield f"[{','.join(texts)}]\n".encode()
            texts, room = [], LINE_LIMIT - len(text) - 1
        texts.append(text)
    if texts:
        yield f"[{','.join(texts)}]\n".encode()


def items_of(kind: type[Operation[Any]], line: bytes) -> list[Any]:
    """What one line has of a list. Raises UsageError."""
    try:
        return _decode(line, list[kind.item])  # type: ignore[name-defined]
    except ValueError as error:
        raise UsageError(f"bad arguments: {error}") from None


def decode_request(line: bytes) -> Request:
    """Raises ValueError for what is no request."""
    return _decode(line, Request)


def request_of(operation: Operation[Any], version: int = VERSION) -> Request:
    """What asks for an operation."""
    return Request(version, operation.op, msgspec.to_builtins(operation))


def operation_of(kind: type[Asked], request: Request, items: list[Any] | None = None) -> Asked:
    """What a request asks for, each argument of the type and in the bounds it is declared with. `items`: what
    came in lines behind it. Raises UsageError."""
    args = request.args if items is None else request.args | {kind.listed: []}
    try:
        operation: Asked = msgspec.convert(args, kind)
    except (ValueError, OverflowError) as error:  # msgspec's own, and what it lets through
        raise UsageError(f"bad arguments: {error}") from None
    return operation if items is None else msgspec.structs.replace(operation, **{kind.listed: items})


def answer_of(result: object) -> Answer:
    """What tells of an operation that was done."""
    return Answer(ok=True, result=msgspec.to_builtins(result))


def result_of(operation: Operation[Result], answer: Answer) -> Result:
    """What an answer to an operation says. Raises ValueError for one of a version that is too different."""
    try:
        return msgspec.convert(answer.result, operation.result_type())
    except OverflowError as error:
        raise ValueError(str(error)) from None


def path_of(text: str) -> bytes:
    """A path or name as the file system has it. Raises UsageError for what none can be."""
    try:
        path = os.fsencode(text)
    except UnicodeEncodeError:
        raise UsageError("bad arguments: a path with a character that stands for no byte") from None
    if b"\0" in path:
        raise UsageError("bad arguments: a path with a NUL byte")
    return path


def decode_answer(line: bytes) -> Answer:
    """Raises ValueError for what is no answer."""
    return _decode(line, Answer)


def _decode(line: bytes, kind: type[Message]) -> Message:
    """Raises ValueError."""
    try:
        value = json.loads(line, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value, DEPTH_LIMIT)
    try:
        return msgspec.convert(value, kind)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _refuse(word: str) -> NoReturn:
    """NaN and Infinity, which Python's JSON has and no other."""
    raise ValueError(f"{word} is no number")


def _check_depth(value: object, limit: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not limit:
        raise ValueError("it is nested too deeply")
    for below in value.values() if isinstance(value, dict) else value:
        _check_depth(below, limit - 1)
