"""The manual: the topics of `casfs help`, the help of each command, and the README that leads to them."""

from __future__ import annotations

import re
from inspect import getsource
from pathlib import Path

import pytest

from casfs.cli.help import TOPICS, read
from casfs.cli.main import COMMANDS, build_parser, module_of
from casfs.errors import ExitCode

CHECKOUT = Path(__file__).resolve().parents[2]
TEXTS = CHECKOUT / "casfs" / "help"
README = (CHECKOUT / "README.md").read_text()
WIDTH = 100


def actions(name: str) -> list[str]:
    parser = build_parser([name])
    command = parser._subparsers._group_actions[0].choices[name]
    return list(command._subparsers._group_actions[0].choices)


def too_wide(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > WIDTH]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_printed_as_it_is_written(casfs, topic):
    text = (TEXTS / f"{topic}.txt").read_text()
    assert casfs("help", topic) == (ExitCode.OK, text, "")


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_begins_with_its_summary_and_fits_the_screen(topic):
    summary, gap, rest = read(topic).split("\n", 2)
    assert summary.endswith(".")
    assert gap == ""
    assert rest.strip()
    assert too_wide(read(topic)) == []


def test_every_text_is_a_topic():
    assert sorted(TOPICS) == sorted(file.stem for file in TEXTS.iterdir())


def test_without_a_topic_all_topics_and_commands_are_listed_with_a_line_each(casfs):
    code, out, err = casfs("help")
    assert (code, err) == (ExitCode.OK, "")
    topics, commands = out.split("\n\n")
    for names, listed in ((TOPICS, topics), (COMMANDS, commands)):
        title, *lines = listed.splitlines()
        assert title.endswith(":")
        assert tuple(line.split()[0] for line in lines) == names
        assert all(len(line.split()) > 2 for line in lines)
    assert "  durability   What survives a crash, a power loss, a full disk or a failing one\n" in out
    assert "  init         Make an empty store\n" in out


@pytest.mark.parametrize(
    ("word", "hint"),
    [("weather", f"known: {', '.join(sorted(TOPICS))}"), ("durabilty", "did you mean 'durability'?")],
)
def test_an_unknown_topic_is_one_line_that_names_the_topics(casfs, word, hint):
    outcome = casfs("help", word)
    assert outcome.complaint == f"unknown topic '{word}'; {hint}"
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")


def test_the_general_help_leads_to_the_topics(casfs):
    assert "'casfs help' lists the topics of the manual." in casfs("--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_the_screen(casfs, name):
    assert too_wide(casfs(name, "--help").out) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(README, id="README"),
        *(pytest.param(read(topic), id=topic) for topic in TOPICS),
        *(pytest.param(getsource(module_of(name)), id=f"{name} --help") for name in COMMANDS),
    ],
)
def test_what_the_manual_refers_to_is_there(text):
    assert set(re.findall(r"casfs help ([a-z-]+)", text)) <= set(TOPICS)
    assert set(re.findall(r"casfs ([a-z-]+) --help", text)) <= set(COMMANDS)
    for name in ("gc", "layout", "pin", "prop", "repo", "trash"):
        words = set(re.findall(rf"casfs {name} ([\w/.-][^\s'`|]*)", text))
        assert words <= {"--help", *actions(name)}


def test_the_readme_is_short_and_fits_the_screen():
    assert len(README.splitlines()) < 220
    assert too_wide(README) == []


def test_the_readme_has_the_two_commands():
    assert "\n    scripts/run [MOUNTPOINT] " in README
    assert "\n    scripts/test " in README


@pytest.mark.parametrize("topic", TOPICS)
def test_the_readme_says_where_to_read_on(topic):
    assert f"`{topic}`" in README.partition("\n## Where to read on\n")[2]


def test_the_readme_names_every_command():
    assert [name for name in COMMANDS if f"`casfs {name}" not in README] == []
