"""How every command line is read: one parser class, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from casfs.errors import UsageError

ACTION = "ACTION"
"""How help and errors call the second word of a command that has several."""

LONGEST_PATH = 4095
"""Bytes: PATH_MAX of linux/limits.h less the NUL."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

LONGEST_DURATION = 36_500 * 86_400
"""Seconds: a hundred years; what is longer is a mistake."""

FASTEST = 1 << 50
"""Bytes per second: a PiB; what is more is a mistake."""

LARGEST = 1 << 60
"""Bytes: an EiB; what is more is a mistake."""

FORMS = {
    "DURATION": "30s, 10m, 1h or 14d",
    "RATE": "500K, 20M or 1.5GiB, in a second",
    "SIZE": "500K, 20M or 1.5GiB",
    "TIME": "2030-12-31T23:59:00Z (RFC 3339), 2030-12-31 (UTC), or a duration ago: 30s, 10m, 1h, 14d",
}
"""How the values are written that several commands take. Help explains those that its arguments name so."""

_DAY, _TIME, _OFFSET = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:\.\d+)?", r"(?:[Zz]|[+-]\d\d:\d\d)"

_RFC_3339 = re.compile(f"{_DAY}(?:[Tt ]{_TIME}{_OFFSET})?", re.ASCII)
"""Or its date alone."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTPkmgtp])?(?:i?[Bb])?")

Run = Callable[[argparse.Namespace], int]
"""What a command does with its arguments; returns its exit code."""

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What `casfs` takes as its first word."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError with the nearest known word instead of printing usage and exiting.

    Options cannot be abbreviated: a script that did would break when a longer option is added.
    """

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def format_help(self) -> str:
        named = {action.metavar for action in self._actions}
        forms = [f"{name}: {form}\n" for name, form in FORMS.items() if name in named]
        return "\n".join((super().format_help(), "".join(forms))) if forms else super().format_help()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see '{self.prog} --help'")

    def reject(self, word: str) -> NoReturn:
        """Raise what is wrong with `word`, which nothing in this parser takes."""
        if not word.startswith("-"):
            self.error(f"unexpected argument '{word}'")
        raise UsageError.unknown("option", word.partition("=")[0], self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse's own message lists all choices and suggests none (before Python 3.14).
        if action.choices is None or value in action.choices:
            return
        if action.metavar == ACTION:
            usage = f"{self.prog} {'|'.join(map(str, action.choices))} STORE"
            raise UsageError(f"unknown action '{value}'", f"it is: {usage}")
        named = action.option_strings[0] if action.option_strings else ""
        kind = f"value for {named}" if named else str(action.metavar or action.dest).lower()
        raise UsageError.unknown(kind, str(value), map(str, action.choices))


def add_command(commands: Commands, name: str, run: Run, text: str | None) -> Parser:
    """`casfs NAME`, or one of the actions of a command: the caller adds arguments to the parser returned.

    `text` is a docstring: its first line is in the help of what is above, all of it in `casfs NAME --help`.
    """
    parser = _add_parser(commands, name, text)
    parser.set_defaults(run=run)
    return parser


def add_actions(commands: Commands, name: str, text: str | None) -> Commands:
    """`casfs NAME ACTION STORE …`: the caller makes each action with `add_command`."""
    parser = _add_parser(commands, name, text)
    return parser.add_subparsers(metavar=ACTION, title="actions", required=True, parser_class=Parser)


def _add_parser(commands: Commands, name: str, text: str | None) -> Parser:
    parser = commands.add_parser(name, help=summary(text or ""), description=text)
    parser.set_defaults(parser=parser)
    add_debug(parser, argparse.SUPPRESS)
    return parser


def summary(text: str) -> str:
    """The first line of a help text, for a list of such."""
    return text.partition("\n")[0].rstrip(".")


def add_debug(parser: Parser, default: object) -> None:
    """Taken before and after the command; SUPPRESS as `default` keeps the second from undoing the first."""
    parser.add_argument("--debug", action="store_true", default=default, help="show where an error is from")


def add_store(parser: Parser) -> None:
    """The store a command works on, as `args.store`: `store_of` (cli/places.py) makes a store of it."""
    add_path(parser, "STORE", "a store, or a path in the mount of one")


def add_path(parser: Parser, name: str, summary: str, *, optional: bool = False) -> None:
    """A positional path, found as `args.<name in lower case>`; None when it is optional and absent."""
    count = "?" if optional else None
    parser.add_argument(name.lower(), metavar=name, type=path, nargs=count, help=summary)


def add_pair(parser: Parser) -> None:
    """Two paths inside one store: `args.src`, `args.dst`, and `args.store` (None: paths in a mount)."""
    parser.add_argument("--store", metavar="STORE", type=path, help="take SRC and DST from this store's root")
    add_path(parser, "SRC", "what is there")
    add_path(parser, "DST", "where it shall be")


def add_paths(parser: Parser) -> None:
    """Paths inside stores: `args.paths`, and `args.store` (None: paths in mounts)."""
    parser.add_argument("--store", metavar="STORE", type=path, help="take each PATH from this store's root")
    parser.add_argument("paths", metavar="PATH", type=path, nargs="+", help="what is there")


def add_force(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="releases that are immutable, too")


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def path(word: str) -> str:
    """An argument's type: what no system call would take for a path is refused before any work is done."""
    if not word:
        raise argparse.ArgumentTypeError("a path cannot be empty")
    if len(os.fsencode(word)) > LONGEST_PATH:
        raise argparse.ArgumentTypeError(f"a path cannot be longer than {LONGEST_PATH} bytes")
    return word


def text(word: str) -> str:
    """An argument's type: what is kept as text, and so has to be some."""
    if not word.isprintable():
        raise argparse.ArgumentTypeError("one line of printable text is wanted")
    return word


def words(word: str) -> tuple[str, ...]:
    """An argument's type: one or more, with commas between them."""
    return tuple(dict.fromkeys(part.strip() for part in word.split(",") if part.strip()))


def positive(word: str) -> int:
    """An argument's type: a whole number, 1 or more."""
    number = count(word)
    if not number:
        raise argparse.ArgumentTypeError("0 is too few")
    return number


def duration(word: str) -> int:
    """An argument's type: `30s`, `10m`, `1h`, `14d`, or `0`, in seconds."""
    number, unit = (word, "s") if word == "0" else (word[:-1], word[-1:])
    if unit not in UNIT_SECONDS or not (number.isascii() and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{word}' is no duration: write it as 30s, 10m, 1h or 14d")
    seconds = int(number) * UNIT_SECONDS[unit] if len(number) < 12 else LONGEST_DURATION + 1
    if seconds > LONGEST_DURATION:
        raise argparse.ArgumentTypeError(f"{word} is too long")
    return seconds


def instant(word: str) -> int:
    """An argument's type: RFC 3339, a day (its begin in UTC), or a duration ago; in seconds since 1970."""
    if not _RFC_3339.fullmatch(word):
        try:
            return int(time.time()) - duration(word)
        except argparse.ArgumentTypeError:
            example = "2030-12-31T23:59:00Z, 2030-12-31 or 2h"
            raise argparse.ArgumentTypeError(f"'{word}' is no time: write it as {example}") from None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(word.upper())
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{word}' is no time of the calendar") from None
    return math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def count(word: str) -> int:
    """An argument's type: a whole number, 0 or more."""
    if not (word.isascii() and word.isdecimal()) or len(word) > 12:
        raise argparse.ArgumentTypeError(f"'{word}' is no whole number")
    return int(word)


def byte_rate(word: str) -> float:
    """An argument's type: bytes per second as `50M`, `1.5GiB`, `20MiB/s`, in powers of 1024; more than 0."""
    rate = _bytes(word.removesuffix("/s"))
    if not 0 < rate <= FASTEST:
        raise argparse.ArgumentTypeError(f"'{word}' is no rate: write 500K, 20M or 1.5GiB, per second")
    return rate


def byte_size(word: str) -> int:
    """An argument's type: bytes as `0`, `50M`, `1.5GiB`, in powers of 1024."""
    size = _bytes(word)
    if not 0 <= size <= LARGEST:
        raise argparse.ArgumentTypeError(f"'{word}' is no size: write 500K, 20M or 1.5GiB")
    return math.ceil(size)


def _bytes(word: str) -> float:
    """-1 for what is no amount."""
    match = _SIZE.fullmatch(word)
    return -1.0 if match is None else float(match[1]) * 1024 ** "BKMGTP".index((match[2] or "B").upper())
