"""What daemons do for one store, as its administrator wrote it down: one TOML file.

    [snapshots]
    schedule = "0 * * * *"
    keep_hourly = 24
    keep_daily = 14

    [backup.nightly]
    destination = "/mnt/backup/store"
    schedule = "30 2 * * *"
    keep_daily = 30
    keep_yearly = "all"
    max_age = "3650d"
    exclude = ["*-cache"]
    rate = "50M"
    before = ["/usr/local/bin/mount-backup", "--wait"]
    on_failure = "/usr/local/bin/tell-admin"

A section is a struct below, a key one of its fields; for another section `Config` gets another field. A key
that nobody knows is an error, or a rule that was mistyped would not be missed before it is needed.
"""

from __future__ import annotations

import os
import shlex
import stat
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, NewType, NoReturn, TypeVar, get_args, get_origin

import msgspec

from casfs import amounts
from casfs.cron import next_run
from casfs.errors import CasfsError, UsageError
from casfs.maintenance.backup.options import BackupOptions
from casfs.maintenance.snapshots.retention import ALL, NS, Retention
from casfs.text import is_text, printable

FILE_BYTES = 1 << 20
"""Length of the file at the most."""

MOST_DOTS = 200
"""In a line, at the most: the time that the parser takes for a key grows with the square of its parts."""

SNAPSHOTS_JOB = "snapshots"
"""What snapshots by the schedule of [snapshots] have as their job; no backup is called so."""

HOOK_SECONDS = 600
"""How long a hook may take, if nothing else is said."""

_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@+-")
_NAME_LENGTH = 60
"""Of a backup's name, which begins those of its snapshots, so that a time fits behind it."""

Cron = NewType("Cron", str)
"""Five fields as in crontab(5), local time; "" = there is no schedule."""

Seconds = NewType("Seconds", int)
"""Written as 30s, 10m, 1h or 14d."""

Number = NewType("Number", int)
"""0 or more, or `all`."""

Limit = NewType("Limit", int)
"""0 = there is none."""

Rate = NewType("Rate", int)
"""Bytes per second, written as 500K, 20M or 1.5GiB; 0 = any."""

Place = NewType("Place", str)
"""An absolute path."""

Line = NewType("Line", str)
"""Printable text."""

Patterns = NewType("Patterns", "tuple[str, ...]")
"""As maintenance/backup/filters.py has them."""

Command = NewType("Command", "tuple[str, ...]")
"""A program by its absolute path and its arguments, run without a shell: written as a list, or as one text
that is split as a shell would, without replacing anything in it. () = none."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of schedules have: how many stay, and how long. As `Retention` has it."""

    reason: Line = Line("")
    keep_last: Number = Number(0)
    keep_hourly: Number = Number(0)
    keep_daily: Number = Number(0)
    keep_weekly: Number = Number(0)
    keep_monthly: Number = Number(0)
    keep_yearly: Number = Number(0)
    keep_within: Seconds = Seconds(0)
    max_count: Limit = Limit(0)
    max_age: Seconds = Seconds(0)
    expires: Seconds = Seconds(0)
    """What is made goes so long after, whatever keeps it and though the schedule be gone; 0 = never."""

    def retention(self) -> Retention:
        return Retention(
            keep_last=self.keep_last,
            keep_hourly=self.keep_hourly,
            keep_daily=self.keep_daily,
            keep_weekly=self.keep_weekly,
            keep_monthly=self.keep_monthly,
            keep_yearly=self.keep_yearly,
            keep_within_ns=self.keep_within * NS,
            max_count=self.max_count,
            max_age_ns=self.max_age * NS,
        )

    def expires_ns(self, now_ns: int) -> int | None:
        """When that goes which is made now; None = never."""
        return now_ns + self.expires * NS if self.expires else None


class Snapshots(_Kept, frozen=True, kw_only=True):
    """[snapshots]: made by the collector's daemon."""

    schedule: Cron = Cron("")


class Backup(_Kept, frozen=True, kw_only=True):
    """[backup.NAME]: made by the daemon of backups.

    `create`: make the destination if there is none. Without, where a disk is not mounted nothing is written
    to what lies below. `exclude_new`: as `BackupOptions.exclude_new_known`, with the directories that were
    there when the daemon first read this. `hook_timeout`: of each hook.
    """

    destination: Place
    schedule: Cron
    create: bool = False
    include: Patterns = Patterns(())
    exclude: Patterns = Patterns(())
    exclude_new: bool = False
    content: bool = True
    rate: Rate = Rate(0)
    before: Command = Command(())
    after: Command = Command(())
    on_failure: Command = Command(())
    hook_timeout: Seconds = Seconds(HOOK_SECONDS)

    def options(self, job: str, known: tuple[str, ...] | None, now_ns: int) -> BackupOptions:
        """For a run that begins now. `known`: the directories that are not new, None = all."""
        return BackupOptions(
            job=job,
            reason=self.reason,
            include=self.include,
            exclude=self.exclude,
            exclude_new_known=known,
            content=self.content,
            rate=self.rate,
            expires_ns=self.expires_ns(now_ns),
        )


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One file. What is absent has its usual values."""

    snapshots: Snapshots = Snapshots()
    backup: dict[str, Backup] = {}


def load(path: str) -> Config:
    """What a file says. Raises UsageError, one line with the name of the file and the section; OSError.

    It names programs that are run: nobody writes it but root and who runs casfs.
    """
    with open(path, "rb", opener=_open) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{printable(path)} is no regular file")
        group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH or group:
            raise UsageError(
                f"{printable(path)} may be written by others, and names programs that are run",
                "have it owned by root, and chmod go-w it",
            )
        data = file.read(FILE_BYTES + 1)
    try:
        return parse(data)
    except CasfsError as error:
        raise UsageError(f"{printable(path)}: {error.message}", error.hint) from None


def _open(path: str, flags: int) -> int:
    """A fifo nobody writes to is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def parse(data: bytes) -> Config:
    """What the text of a file says. Raises UsageError, one line."""
    if len(data) > FILE_BYTES:
        raise UsageError(f"longer than {FILE_BYTES} bytes")
    for number, row in enumerate(data.split(b"\n"), 1):
        if row.count(b".") > MOST_DOTS:
            raise UsageError(f"line {number}: more than {MOST_DOTS} dots")
    try:
        tables = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise UsageError("it is not UTF-8") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:  # int() takes up to 4,300 digits
        raise UsageError(f"this is no TOML: {error}") from None
    except RecursionError:
        raise UsageError("values in values without end") from None
    return _section(Config, tables, "")


Section = TypeVar("Section", bound=msgspec.Struct)


def _section(kind: type[Section], table: object, name: str) -> Section:
    """A struct of a table; the whole file has no name."""
    where = f"[{printable(name)}]" if name else ""
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} has to be a table", f"write {where}, and its keys below it")
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            error = UsageError.unknown("key" if name else "section", printable(key), fields)
            raise UsageError(f"{where} {error.message}".lstrip(), error.hint)
        field = fields[key]
        inside = f"{name}.{key}" if name else key
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            values[field.name] = _section(field.type, value, inside)
        elif get_origin(field.type) is dict:
            values[field.name] = _sections(get_args(field.type)[1], value, inside)
        else:
            try:
                values[field.name] = _value(field.type, value)
            except (ValueError, CasfsError) as error:
                raise UsageError(f"{where} {key}: {error}") from None
    for key, field in fields.items():
        if field.required and field.name not in values:
            raise UsageError(f"{where} has no '{key}'")
    return kind(**values)


def _sections(kind: type[Section], table: object, name: str) -> dict[str, Section]:
    """[NAME.x] for any number of x."""
    if not isinstance(table, Mapping) or not all(isinstance(value, Mapping) for value in table.values()):
        raise UsageError(f"each {name} has a name", f"write [{name}.NAME], and its keys below it")
    for word in table:
        if not _is_name(word):
            raise UsageError(
                f"[{name}.{printable(word)}]: that is no name for a {name}",
                f"up to {_NAME_LENGTH} letters, digits and . _ @ + -, the first a letter or digit;"
                f" not {SNAPSHOTS_JOB}",
            )
    return {word: _section(kind, value, f"{name}.{word}") for word, value in table.items()}


def _is_name(word: str) -> bool:
    return (
        0 < len(word) <= _NAME_LENGTH
        and _NAME_CHARACTERS.issuperset(word)
        and word[0].isalnum()
        and word != SNAPSHOTS_JOB
    )


def _value(kind: Any, value: object) -> Any:
    """Raises ValueError or UsageError, which say what is wrong."""
    if kind in _PARSERS:
        return _PARSERS[kind](value)
    return _native(kind, value)


def _native(kind: Any, value: object) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _text(value: object) -> str:
    text: str = _native(str, value)
    if not text.isprintable():
        raise ValueError("one line of printable text is wanted")
    return text


def _cron(value: object) -> str:
    text = _text(value)
    next_run(text, 0)
    return text


def _seconds(value: object) -> int:
    if isinstance(value, int):
        _no_unit(value)
    return amounts.duration(_text(value))


def _no_unit(value: int) -> NoReturn:
    raise ValueError(f"{value} has no unit: write it as 30s, 10m, 1h or 14d, in quotes")


def _number(value: object) -> int:
    if value == "all":
        return ALL
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise ValueError('a whole number, 0 or more, or "all" is wanted')
    return value


def _limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise ValueError("a whole number, 0 or more, is wanted")
    return value


def _rate(value: object) -> int:
    return int(amounts.byte_rate(_text(value)))


def _place(value: object) -> str:
    path = _text(value)
    if not path.startswith("/"):
        raise ValueError(f"'{path}' is no absolute path")
    return path


def _patterns(value: object) -> tuple[str, ...]:
    patterns: tuple[str, ...] = _native(tuple[str, ...], value)
    for pattern in patterns:
        if not pattern or "/" in pattern or "\0" in pattern or not is_text(pattern):
            raise ValueError(f"'{printable(pattern)}' matches no name: names have no '/', and are not empty")
    return patterns


def _command(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            words = tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"'{printable(value)}' cannot be split into words: {error}") from None
    else:
        words = _native(tuple[str, ...], value)
    if any("\0" in word for word in words):
        raise ValueError("a word of a command cannot have a NUL")
    if words and not words[0].startswith("/"):
        raise ValueError(f"'{printable(words[0])}' is no absolute path of a program")
    return words


_PARSERS: dict[Any, Callable[[object], Any]] = {
    Cron: _cron,
    Seconds: _seconds,
    Number: _number,
    Limit: _limit,
    Rate: _rate,
    Place: _place,
    Line: _text,
    Patterns: _patterns,
    Command: _command,
}
"""What is written in a way of its own; the rest is as TOML has it."""
