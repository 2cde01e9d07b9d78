"""How every command line is read: one parser class, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

from casfs import amounts
from casfs.errors import UsageError

ACTION = "ACTION"
"""How help and errors call the second word of a command that has several."""

LONGEST_PATH = 4095
"""Bytes: PATH_MAX of linux/limits.h less the NUL."""

FORMS = {
    "DURATION": "30s, 10m, 1h or 14d",
    "RATE": "500K, 20M or 1.5GiB, in a second",
    "SIZE": "500K, 20M or 1.5GiB",
    "TIME": "2030-12-31T23:59:00Z (RFC 3339), 2030-12-31 (UTC), or a duration ago: 30s, 10m, 1h, 14d",
}
"""How the values are written that several commands take. Help explains those that its arguments name so."""

Run = Callable[[argparse.Namespace], int]
"""What a command does with its arguments; returns its exit code."""

Number = TypeVar("Number", int, float)

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What `casfs` takes as its first word."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError with the nearest known word instead of printing usage and exiting.

    Options cannot be abbreviated: a script that did would break when a longer option is added. `words`: what
    it was given to read.
    """

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)
        self.words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.words = args or ()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        named = {action.metavar for action in self._actions}
        forms = [f"{name}: {form}\n" for name, form in FORMS.items() if name in named]
        return "\n".join((super().format_help(), "".join(forms))) if forms else super().format_help()

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required") and "--where" in self.words:
            raise UsageError(message, "they come before --where, which takes all words behind it")
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


def add_any(parser: Parser, name: str, metavar: str, summary: str, kind: Callable[[str], Any] = str) -> None:
    """Any number of words, also none, as a list in `args.<name>`. With '*' argparse takes none as soon as an
    option stands before them."""
    named = parser.add_argument(name, metavar=metavar, type=kind, nargs="+", default=[], help=summary)
    named.required = False


def add_force(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="releases that are immutable, too")


def add_config(parser: Parser, *, required: bool = False) -> None:
    """A store's configuration (config.py), as `args.config`; None when it is not given. It is not looked for
    anywhere: it names programs that are run."""
    parser.add_argument(
        "--config", metavar="FILE", type=path, required=required, help="the store's configuration, TOML"
    )


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


def _argument(parse: Callable[[str], Number]) -> Callable[[str], Number]:
    """An argument's type of what is written so (amounts.py)."""

    def argument(word: str) -> Number:
        try:
            return parse(word)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


duration = _argument(amounts.duration)
instant = _argument(amounts.instant)
count = _argument(amounts.count)
byte_rate = _argument(amounts.byte_rate)
byte_size = _argument(amounts.byte_size)
