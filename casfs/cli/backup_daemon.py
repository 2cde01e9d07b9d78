"""`casfs backup daemon`."""

from __future__ import annotations

import argparse

from casfs.cli.arguments import Commands, add_command, add_config, add_store
from casfs.cli.places import store_of
from casfs.errors import ExitCode

_DAEMON = """Stay in the foreground, and back up by schedules.

Each section [backup.NAME] of FILE is one, with its destination, a cron
expression in local time, and what is kept. One that was missed is caught up
once, and one that was cut off is gone on with, when the daemon starts. SIGUSR1
has all of them run now, SIGHUP has FILE read again; SIGTERM and Ctrl-C end it,
and interrupt what is under way.

More: casfs help configuration
"""


def add_daemon(actions: Commands) -> None:
    daemon = add_command(actions, "daemon", _daemon, _DAEMON)
    add_store(daemon)
    add_config(daemon, required=True)


def _daemon(args: argparse.Namespace) -> int:
    from casfs.service.backup_work import BackupWork
    from casfs.service.backupd import serve

    serve(store_of(args.store), args.config, BackupWork())
    return ExitCode.OK
