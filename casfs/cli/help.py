"""Print a topic of the manual.

Without TOPIC: a line for each topic and each command. What a command takes and
does is in 'casfs COMMAND --help'. No store is touched.
"""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, summary
from casfs.errors import ExitCode

TOPICS = (
    "backups",
    "bit-rot",
    "collecting",
    "configuration",
    "digests",
    "durability",
    "full-disk",
    "layouts",
    "native",
    "passthrough",
    "posix",
    "properties",
    "repositories",
    "sealing",
    "searching",
    "security",
    "sidecars",
    "snapshots",
    "testing",
    "trash",
    "views",
)
"""Each is a text of the package, help/TOPIC.txt; its first line is its summary."""


def add(commands: Commands) -> None:
    parser = add_command(commands, "help", run, __doc__)
    parser.add_argument("topic", metavar="TOPIC", nargs="?", choices=TOPICS, help=", ".join(TOPICS))


def run(args: argparse.Namespace) -> int:
    if args.topic is None:
        _print_overview()
    else:
        print(read(args.topic), end="")
    return ExitCode.OK


def read(topic: str) -> str:
    """The text of one of TOPICS."""
    from importlib import resources

    return resources.files("casfs").joinpath("help", f"{topic}.txt").read_text(encoding="utf-8")


def _print_overview() -> None:
    from casfs.cli.main import COMMANDS, module_of

    modules = {name: module_of(name) for name in COMMANDS}
    _print_summaries("topics (casfs help TOPIC):", {topic: read(topic) for topic in TOPICS})
    print()
    _print_summaries("commands (casfs COMMAND --help):", {n: m.__doc__ or "" for n, m in modules.items()})


def _print_summaries(title: str, texts: dict[str, str]) -> None:
    print(title)
    for name, text in texts.items():
        print(f"  {name:<12} {summary(text)}")
