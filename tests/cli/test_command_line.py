"""The command line itself: help, mistakes, exit codes, hostile words, where the output goes."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing

import apsw
import pytest

import casfs as package
from casfs import errors
from casfs.cli.arguments import FORMS, Parser, byte_rate, duration, instant
from casfs.cli.gc import rate
from casfs.cli.main import COMMANDS, build_parser
from casfs.errors import CasfsError, ExitCode, FsError, UsageError
from casfs.store import database_path

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CasfsError)]


def test_help_names_every_command_and_every_exit_code(casfs):
    code, out, err = casfs("--help")
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^    {name}\b", out, re.MULTILINE)
    for exit_code in ExitCode:
        assert re.search(rf"^ +{exit_code:d}  {re.escape(exit_code.meaning)}$", out, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_speaks_of_the_store(casfs, name):
    code, out, err = casfs(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: casfs {name} ")
    assert "store" in out.lower()


def test_the_version_is_that_of_the_package(casfs):
    assert casfs("--version") == (0, f"casfs {package.__version__}\n", "")


def leaves(parser: Parser) -> Iterator[Parser]:
    """What runs something: every command that has no actions, and every action."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for inner in action.choices.values():
            yield from leaves(inner)
    if not below:
        yield parser


LEAVES = {parser.prog.removeprefix("casfs "): parser for parser in leaves(build_parser())}


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_and_action_speaks_one_language(casfs, name):
    """The store first, the same word for the same form everywhere, and --debug."""
    arguments = LEAVES[name]._actions
    positional = [argument.metavar for argument in arguments if not argument.option_strings]
    assert "STORE" not in positional[1:]
    words = {duration: "DURATION", byte_rate: "RATE", rate: "RATE", instant: "TIME"}
    for argument in arguments:
        assert argument.metavar == (words.get(argument.type) or argument.metavar)
    assert "--debug" in LEAVES[name]._option_string_actions
    out = casfs(*name.split(), "--help").out
    for word, form in FORMS.items():
        assert (f"\n{word}: {form}\n" in out) == any(argument.metavar == word for argument in arguments)


def test_help_lists_actions_alike(casfs):
    for name in {name.split()[0] for name in LEAVES if " " in name}:
        assert "\nactions:\n  ACTION\n" in casfs(name, "--help").out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "no command given; see 'casfs --help'"),
        (["moutn"], "unknown command 'moutn'; did you mean 'mount'?"),
        (["qqqq"], f"unknown command 'qqqq'; known: {', '.join(sorted(COMMANDS))}"),
        (["--verzion"], "unknown option '--verzion'; did you mean '--version'?"),
        (["fsck", "S", "--deap"], "unknown option '--deap'; did you mean '--deep'?"),
        (["fsck", "S", "--repare=yes"], "unknown option '--repare'; did you mean '--repair'?"),
        (["fsck", "S", "--rep"], "unknown option '--rep'; did you mean '--repair'?"),
        (["--jsno", "df", "S"], "unknown option '--jsno'; did you mean '--json'?"),
        (["fsck"], "the following arguments are required: STORE; see 'casfs fsck --help'"),
        (["fsck", "S", "T"], "unexpected argument 'T'; see 'casfs fsck --help'"),
        (["init", ""], "argument STORE: a path cannot be empty; see 'casfs init --help'"),
        (["cp", "--store", "", "a", "b"], "argument --store: a path cannot be empty; see 'casfs cp --help'"),
        (
            ["init", "x/" * 2048],
            "argument STORE: a path cannot be longer than 4095 bytes; see 'casfs init --help'",
        ),
        (["init", "S", "--fan-out", "9"], "unknown value for --fan-out '9'; known: 1, 2, 3"),
        (
            ["init", "S", "--fan-out", "x"],
            "argument --fan-out: invalid int value: 'x'; see 'casfs init --help'",
        ),
        (["pin"], "the following arguments are required: ACTION; see 'casfs pin --help'"),
        (["trash", "S", "list"], "unknown action 'S'; it is: casfs trash list|empty|show|set STORE"),
        (["trash", "list"], "the following arguments are required: STORE; see 'casfs trash list --help'"),
        (["trash", "set", "S", "--day", "3"], "unknown option '--day'; did you mean '--days'?"),
        (["gc", "run", "S", "T"], "unexpected argument 'T'; see 'casfs gc run --help'"),
        (["completion", "bsh"], "unknown shell 'bsh'; did you mean 'bash'?"),
        (["mount", "S", "M", "-o"], "argument -o: expected one argument; see 'casfs mount --help'"),
        (["x\ny\x1b[31m"], f"unknown command 'x\\ny\\x1b[31m'; known: {', '.join(sorted(COMMANDS))}"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(casfs, words, complaint):
    outcome = casfs(*words)
    assert outcome.complaint == complaint
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")


def test_a_word_that_is_no_text_is_complained_about_as_bytes(program):
    done = program(b"\xff\xfe")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(rb"casfs: error: unknown command '\xff\xfe'; known:")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_is_one_line_and_its_exit_code(casfs, stand_in, kind):
    def create_store(path: str, *, fan_out: int, digests: Sequence[str]) -> None:
        raise kind(f"no {path}\nfor you", "go away")

    stand_in("casfs.store", create_store=create_store)
    outcome = casfs("init", "S")
    assert outcome.complaint == "no S\\nfor you; go away"
    assert outcome.code == kind.exit_code != ExitCode.OK
    assert os.strerror(kind.errno)


@pytest.mark.parametrize(
    ("error", "code", "complaint"),
    [
        (FsError(21, "/a is a directory"), 1, "/a is a directory"),
        (FsError(28), 1, "No space left on device"),
        (OSError(13, "Permission denied", "/x\ny"), 1, "/x\\ny: Permission denied"),
        (
            OSError(18, "Invalid cross-device link", b"/a", None, b"/b"),
            1,
            "/a -> /b: Invalid cross-device link",
        ),
        (OSError("strange"), 1, "strange"),
        (
            ZeroDivisionError("x"),
            70,
            "internal error: ZeroDivisionError: x; run it again with --debug and report what it prints",
        ),
    ],
)
def test_what_goes_wrong_below_is_one_line(casfs, stand_in, error, code, complaint):
    def create_store(path: str, *, fan_out: int, digests: Sequence[str]) -> None:
        raise error

    stand_in("casfs.store", create_store=create_store)
    outcome = casfs("init", "S")
    assert (outcome.code, outcome.complaint) == (code, complaint)


@pytest.mark.parametrize("words", [["--debug", "init", "S"], ["init", "S", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(casfs, stand_in, words):
    def create_store(path: str, *, fan_out: int, digests: Sequence[str]) -> None:
        raise UsageError("not this")

    stand_in("casfs.store", create_store=create_store)
    outcome = casfs(*words)
    assert outcome.err.startswith("Traceback")
    assert outcome.err.endswith("casfs: error: not this\n")
    assert outcome.code == ExitCode.USAGE


def test_ctrl_c_ends_a_command_without_a_word(casfs, stand_in):
    def create_store(path: str, *, fan_out: int, digests: Sequence[str]) -> None:
        signal.raise_signal(signal.SIGINT)

    stand_in("casfs.store", create_store=create_store)
    assert casfs("init", "S") == (ExitCode.INTERRUPTED, "", "")


def test_exit_codes_are_distinct_and_explained():
    assert len({int(code) for code in ExitCode}) == len(list(ExitCode))
    assert all(code.meaning for code in ExitCode)


def test_a_reader_that_goes_away_is_no_error():
    # More than a pipe holds, so that the writer meets the closed end.
    script = "import sys; from casfs.cli import init, main; init.run = lambda args: print('x' * 10**6) or 0; "
    script += "sys.exit(main.main(['init', 'S']))"
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    with writer.stderr as stderr:
        assert stderr.read() == b""
    assert writer.wait() == ExitCode.BROKEN_PIPE


def test_output_that_cannot_be_written_is_one_line(program):
    with open("/dev/full", "wb") as full:
        done = program("completion", "bash", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.stderr == b"casfs: error: No space left on device\n"
    assert done.returncode == ExitCode.FAILED


def test_a_command_works_with_its_output_closed():
    done = subprocess.run(f"{sys.executable} -m casfs completion bash >&-", shell=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_no_unicode_gets_escapes(program):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = program("fsck", "S", "--dëep", env=environment)
    assert done.returncode == ExitCode.USAGE
    assert rb"unknown option '--d\xebep'; did you mean '--deep'?" in done.stderr


def test_a_start_loads_nothing_heavy():
    script = "import sys; from casfs.cli.main import parse; parse(sys.argv[1:]); print(*sys.modules)"
    for words in (["mount", "S", "M"], ["fsck", "S"], ["status"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], check=True, capture_output=True, text=True
        )
        loaded = set(done.stdout.split())
        assert "casfs.cli.arguments" in loaded
        heavy = {"apsw", "trio", "pyfuse3", "rich", "shtab", "msgspec", "blake3", "asyncio", "dataclasses"}
        assert not heavy & loaded


def test_dashes_separate_a_path_that_looks_like_an_option():
    args = build_parser().parse_args(["mount", "-o", "ro", "--", "-store", "-mnt"])
    assert (args.store, args.mountpoint, args.options) == ("-store", "-mnt", ["ro"])


BLOB = "INSERT INTO blob (blake3, size, refs, created_ns, orphaned_ns) VALUES (zeroblob(32), 1, 0, 1, 1)"
NAME = "INSERT INTO dentry VALUES (1, 3, x'61', 2, 4)"


@pytest.mark.parametrize(
    ("row", "table", "change", "words"),
    [(BLOB, "blob", "size = x'00'", ("gc", "run")), (NAME, "dentry", "name = 1.5", ("df",))],
)
def test_a_row_of_another_type_is_damage_and_no_bug(casfs, tmp_path, row, table, change, words):
    """They ended with a TypeError. Who writes the file himself can put such a row in a STRICT table."""
    store = str(tmp_path / "S")
    assert casfs("init", store).code == ExitCode.OK
    with closing(apsw.Connection(database_path(store))) as database:
        database.execute(row)
        database.execute("PRAGMA writable_schema = ON")
        strict = database.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).get
        for sql in (re.sub(r",? STRICT$", "", strict), strict):
            database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
            database.execute("PRAGMA writable_schema = RESET")
            database.execute("PRAGMA writable_schema = ON")
            if sql != strict:
                database.execute(f"UPDATE {table} SET {change}")
    code, out, err = casfs(*words, store)
    assert (code, out) == (ExitCode.FAILED, "")
    assert re.fullmatch(r"casfs: error: database: a row that is none: .*; 'casfs fsck' says more\n", err)
