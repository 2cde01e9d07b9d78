"""The control protocol: one JSON line to ask, one to answer, over STORE/run/control.

    {"version": 2, "op": "cp", "args": {"src": "/a", "dst": "/b", "recursive": false}}
    {"ok": true, "result": {…}}
    {"ok": false, "error": "…", "exit_code": 1}

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

ANSWER_LIMIT = 1 << 20
"""Bytes of an answer: `Collected` names files that could not be removed, and why."""

DEPTH_LIMIT = 16
"""How deep values may be nested: many times what any message is."""

CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7), SO_PEERCRED: process, user, group."""

Asked = TypeVar("Asked", bound=Operation[Any])
Message = TypeVar("Message", "Request", "Answer")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    op: str
    args: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True):
    ok: bool
    result: dict[str, Any] = {}
    error: str = ""
    exit_code: int = 1


def encode(message: Request | Answer) -> bytes:
    return json.dumps(msgspec.to_builtins(message), ensure_ascii=True).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises ValueError for what is no request."""
    return _decode(line, Request)


def request_of(operation: Operation[Any], version: int = VERSION) -> Request:
    """What asks for an operation."""
    return Request(version, operation.op, msgspec.to_builtins(operation))


def operation_of(kind: type[Asked], request: Request) -> Asked:
    """What a request asks for, each argument of the type and in the bounds it is declared with. Raises
    UsageError."""
    try:
        operation: Asked = msgspec.convert(request.args, kind)
    except (ValueError, OverflowError) as error:  # msgspec's own, and what it lets through
        raise UsageError(f"bad arguments: {error}") from None
    return operation


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
