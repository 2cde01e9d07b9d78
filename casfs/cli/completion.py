"""Print a completion script for a shell.

bash  casfs completion bash > ~/.local/share/bash-completion/completions/casfs
zsh   casfs completion zsh > _casfs      (in a directory of $fpath)
fish  casfs completion fish > ~/.config/fish/completions/casfs.fish
tcsh  casfs completion tcsh > FILE       (which ~/.tcshrc sources)

No store is touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from casfs.cli.arguments import Commands, add_command

SHELLS = ("bash", "zsh", "tcsh", "fish")


def add(commands: Commands) -> None:
    parser = add_command(commands, "completion", run, __doc__)
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    import shtab

    from casfs.cli.main import build_parser

    parser = build_parser()
    for action in _arguments(parser):
        if action.metavar in ("STORE", "MOUNTPOINT"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in ("PATH", "SRC", "DST", "FILE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _arguments(command)
        else:
            yield action
