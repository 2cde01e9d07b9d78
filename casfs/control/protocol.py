"""The control protocol: one JSON line to ask, one to answer, over STORE/run/control.

    {"version": 2, "op": "cp", "args": {"src": "/a", "dst": "/b", "recursive": false}}
    {"ok": true, "result": {…}}
    {"ok": false, "error": "…", "exit_code": 1}

In version 2 the daemon sends an empty line every `ALIVE_SECONDS` until it has the answer: so a long operation
is told from a daemon that hangs, which is given up after `SILENCE_SECONDS`. Who asks in version 1 gets the
answer alone.

Paths inside the store begin with `/`; a byte that is not UTF-8 travels as a lone surrogate (PEP 383), which
JSON writes as `\\udcNN`. The daemon serves root and its own user only (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import msgspec

from casfs.errors import UsageError

VERSION = 2
SILENT_VERSION = 1
"""The version that is spoken, and the one without signs of life, which is still understood."""

ALIVE_SECONDS = 1.0
SILENCE_SECONDS = 10.0
"""How often a daemon that works says so, and after how long a silence it is given up: a loop that waits for a
busy disk is late, too."""

LINE_LIMIT = 64 << 10
"""Bytes of a request or an answer: twice the longest path, quoted, and some."""


Natural = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""An id or an amount, as the database can keep it."""

Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""A time, as the database can keep it."""


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
    try:
        return msgspec.convert(json.loads(line), Request)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def arguments_of(operation: Callable[..., object]) -> type[msgspec.Struct]:
    """What an operation takes: a field for each parameter of its signature, with its default."""
    hints = get_type_hints(operation, include_extras=True)
    fields: list[Any] = [
        (name, hints[name])
        if parameter.default is parameter.empty
        else (name, hints[name], parameter.default)
        for name, parameter in inspect.signature(operation).parameters.items()
    ]
    return msgspec.defstruct(operation.__name__, fields, forbid_unknown_fields=True)


def arguments(kind: type[msgspec.Struct], given: dict[str, Any]) -> dict[str, Any]:
    """Those of a request, each of the type and in the bounds it is declared with. Raises UsageError."""
    try:
        return msgspec.structs.asdict(msgspec.convert(given, kind))
    except (msgspec.ValidationError, OverflowError) as error:
        raise UsageError(f"bad arguments: {error}") from None


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
    return msgspec.convert(json.loads(line), Answer)
