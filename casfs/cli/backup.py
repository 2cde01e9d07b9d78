"""Keep copies of a store elsewhere, each whole, all of them in little more room than one.

More: casfs help configuration
"""

from __future__ import annotations

from casfs.cli.arguments import Commands, add_actions
from casfs.cli.backup_daemon import add_daemon


def add(commands: Commands) -> None:
    actions = add_actions(commands, "backup", __doc__)
    add_daemon(actions)
