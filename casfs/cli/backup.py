"""Keep copies of a store elsewhere, each whole, all of them in little more room than one.

A backup is a snapshot of a store, kept in another store with all that it refers
to. That one is made by the first backup; any number of stores can share it. It
can be mounted, checked, scrubbed and collected as any store.

More: casfs help backups, casfs help configuration
"""

from __future__ import annotations

from casfs.cli.arguments import Commands, add_actions
from casfs.cli.backup_daemon import add_daemon
from casfs.cli.backup_look import add_list, add_mount, add_verify
from casfs.cli.backup_prune import add_prune
from casfs.cli.backup_restore import add_restore
from casfs.cli.backup_run import add_run


def add(commands: Commands) -> None:
    actions = add_actions(commands, "backup", __doc__)
    add_run(actions)
    add_list(actions)
    add_verify(actions)
    add_restore(actions)
    add_prune(actions)
    add_mount(actions)
    add_daemon(actions)
