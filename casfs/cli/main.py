"""`casfs`: from the words on the command line to an exit code. No exception passes this module."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from casfs import __version__
from casfs.cli.arguments import Parser, Run, add_debug
from casfs.errors import CasfsError, ExitCode, UsageError
from casfs.text import printable

COMMANDS = (
    "init",
    "mount",
    "umount",
    "status",
    "df",
    "cp",
    "mv",
    "rm",
    "link",
    "prop",
    "info",
    "find",
    "latest",
    "fsck",
    "scrub",
    "heal",
    "digests",
    "gc",
    "backup",
    "pin",
    "snapshot",
    "hold",
    "open-copy",
    "lock",
    "unlock",
    "repo",
    "layout",
    "trash",
    "undelete",
    "help",
    "completion",
)
"""Each is a module beside this one: its docstring is its help, `add(commands)` makes its parser."""

_DESCRIPTION = """
A file system that keeps every distinct content once.

Where a command takes STORE, it comes first: 'casfs fsck STORE', 'casfs gc run STORE'. It is the store's
directory, or a path in the mount of one; 'casfs cp', 'mv' and 'rm' find the store by their paths alone.
'casfs help' lists the topics of the manual.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what is wrong becomes one line on standard error. SystemExit: only --help."""
    words = sys.argv[1:] if argv is None else argv
    _take_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name may hold what the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")
    try:
        args = parse(words)
        run: Run = args.run
        code = run(args)
        _flush()
    except BrokenPipeError:
        code = ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _report(error, debug="--debug" in words)
    _give_up_output()
    return code


def _take_standard_descriptors() -> None:
    """Have 0, 1 and 2 open, on nothing where they were closed: a file of the store must not come to be what
    messages are written to, or what a daemon closes on its way to the background."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def parse(words: Sequence[str]) -> Namespace:
    """Raises UsageError; SystemExit after --help and --version."""
    # A mount helper starts often: what other commands take costs more to set up than the rest of the start.
    names = words[:1] if words and words[0] in COMMANDS else COMMANDS
    parser = build_parser(names)
    args, rest = parser.parse_known_args(words)
    if rest:
        args.parser.reject(rest[0])
    if args.command is None:
        raise UsageError("no command given", "see 'casfs --help'")
    return args


def build_parser(names: Sequence[str] = COMMANDS) -> Parser:
    """The command line, with the commands `names`. What it reads has the innermost `parser` that read it."""
    table = "\n".join(f"  {code:3}  {code.meaning}" for code in ExitCode)
    parser = Parser(prog="casfs", description=_DESCRIPTION, epilog=f"exit codes:\n{table}")
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"casfs {__version__}")
    add_debug(parser, default=False)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", prog="casfs", parser_class=Parser
    )
    for name in names:
        module_of(name).add(commands)
    return parser


def module_of(name: str) -> ModuleType:
    """The module of a command."""
    return import_module(f"casfs.cli.{name.replace('-', '_')}")


def _report(error: Exception, *, debug: bool) -> ExitCode:
    if debug:
        import traceback

        traceback.print_exception(error)
    match error:
        case CasfsError():
            code, line = error.exit_code, str(error)
        case OSError():
            code, line = ExitCode.FAILED, _system_error(error)
        case _:
            code, line = ExitCode.INTERNAL, f"internal error: {type(error).__name__}: {error}"
            line += "" if debug else "; run it again with --debug and report what it prints"
    print(f"casfs: error: {printable(line)}", file=sys.stderr)
    return code


def _system_error(error: OSError) -> str:
    names = [printable(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or str(error)
    return f"{' -> '.join(names)}: {reason}" if names else reason


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _give_up_output() -> None:
    """Drop what cannot be written, or the interpreter complains about it once more as it ends."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
