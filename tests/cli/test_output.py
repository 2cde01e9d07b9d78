"""What is printed: names that try to do harm, sizes, tables, facts, JSON, bars."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.cli import output


@given(st.binary())
def test_any_name_prints_as_one_line_that_does_nothing(name):
    text = output.printable(name)
    assert text.isprintable()
    assert len(text) >= len(name.decode(errors="ignore"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"),
        ("Grüße 日本", "Grüße 日本"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\nb\tc\x1b[2J", r"a\nb\tc\x1b[2J"),
        ("right\u202eleft", r"right\u202eleft"),
    ],
)
def test_names_are_shown_as_they_are_unless_they_do_something(name, text):
    assert output.printable(name) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 1024, "10.0 KiB"),
        (100 * 1024, "100 KiB"),
        (1024**2 - 1, "1.00 MiB"),
        (2**40, "1.00 TiB"),
        (2**63 - 1, "8.00 EiB"),
    ],
)
def test_sizes_have_three_digits(count, text):
    assert output.size(count) == text


def test_a_table_is_aligned_where_nobody_looks(capsys):
    output.print_table(("name", "n"), [("a", "1"), ("long name", "1000")])
    assert capsys.readouterr().out == "name          n\na             1\nlong name  1000\n"


def test_facts_nest_and_name_sizes(capsys):
    output.print_facts(
        {"pid": 7, "open_handles": {"files": 2, "staged_bytes": 2048}, "ro": False, "x": None, "n": "a\nb"}
    )
    expected = "pid: 7\nopen handles:\n  files: 2\n  staged: 2.00 KiB\nro: no\nx: -\nn: a\\nb\n"
    assert capsys.readouterr().out == expected


@given(st.binary())
def test_a_name_comes_back_from_json_as_the_bytes_it_was(name):
    text = json.dumps(name, default=output._json_value)
    assert os.fsencode(json.loads(text)) == name
    assert text.isascii()


def test_json_of_what_has_none_is_a_bug_not_a_guess():
    with pytest.raises(TypeError, match="set has no JSON form"):
        output.print_json({"x": {1}})


def on_terminal(script: str) -> str:
    """What a Python script prints on a terminal, both of its streams together."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as child:
        os.close(slave)
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(master)
    assert child.returncode == 0, shown
    return shown.decode()


def test_a_terminal_gets_a_table_in_which_names_are_only_names():
    script = "from casfs.cli.output import print_table\n"
    script += "print_table(('name', 'n'), [('[red]x[/]', '1')], total=True)"
    shown = on_terminal(script)
    assert "[red]x[/]" in shown
    assert "\x1b[1m" in shown


WATCHED = """
from casfs.cli.output import progress_bar
with progress_bar() as progress: progress('reading blobs', 5, 10)
"""


def test_a_terminal_gets_a_bar():
    assert "reading blobs" in on_terminal(WATCHED)


def test_nobody_looking_gets_no_bar(program):
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
