"""Have a consistent copy of a store's directory made, by any program.

A snapshot is made, the command is run, and the snapshot is dropped, also when
the command fails or is killed. Nothing that the snapshot refers to goes while it
is there, and its files do not change. So what copies the directory meanwhile has
the store as it was when it began, whatever is written to it, mounted or not;
'casfs open-copy' makes a store of such a copy.

    casfs hold STORE -- rsync -a --delete --exclude=/staging STORE/ host:copy
    casfs hold STORE -- restic backup --exclude STORE/staging STORE

What lies in STORE/staging is not needed, and goes at any time: leave it out. The
command has the snapshot's name in CASFS_SNAPSHOT. Exit code: that of the command;
128 and its number when a signal ended it.

--begin makes the snapshot and prints its name, for tools that are not started
from here; --end NAME drops it. What nobody drops, since this command was killed,
goes when it expires.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from casfs.cli.arguments import Commands, add_any, add_command, add_store, duration
from casfs.cli.places import access_to
from casfs.errors import CasfsError, ExitCode, UsageError
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.control.access import StoreAccess

PREFIX = "hold-"
"""Names of the snapshots that are made here begin so."""

EXPIRES_SECONDS = 7 * 86400
"""When a snapshot goes that nobody has dropped, if nothing else is said."""

ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
FORWARDED = ENDING | {signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that end this command, and those that the command is given."""

SI_KERNEL = 0x80
"""si_code of what a terminal sends (siginfo.h): it has sent it to the command, too."""

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a shell for a command that could not be started."""

REASON_LIMIT = 200


def add(commands: Commands) -> None:
    parser = add_command(commands, "hold", run, __doc__)
    add_store(parser)
    parser.add_argument("--begin", action="store_true", help="make a snapshot, print its name, and end")
    parser.add_argument("--end", metavar="NAME", help="drop the snapshot that --begin has made")
    parser.add_argument(
        "--expires",
        metavar="DURATION",
        type=duration,
        default=EXPIRES_SECONDS,
        help="when the snapshot goes if nobody drops it: longer than the copy takes (7d)",
    )
    add_any(parser, "words", "-- COMMAND", "what is run meanwhile")


def run(args: argparse.Namespace) -> int:
    given: Sequence[str] = args.parser.words
    command = given[given.index("--") + 1 :] if "--" in given else ()
    if args.words and not command:
        raise UsageError("a command stands behind --", "casfs hold STORE -- COMMAND")
    if bool(command) + args.begin + (args.end is not None) != 1:
        raise UsageError("give a command behind --, or --begin, or --end NAME", "see 'casfs hold --help'")
    if args.expires < 1:
        raise UsageError("a snapshot that expires at once holds nothing", "--expires 14d, as an example")
    access = access_to(args.store)
    if args.end is not None:
        if not args.end.startswith(PREFIX):
            raise UsageError(f"'{printable(args.end)}' was not made here", "casfs snapshot rm removes others")
        _drop(access, args.end)
        return ExitCode.OK
    if args.begin:
        print(_create(access, "begun by hand", args.expires))
        return ExitCode.OK
    return _run(access, command, args.expires)


def _create(access: StoreAccess, reason: str, seconds: float) -> str:
    """A snapshot; its name. What an earlier one has left goes that has expired."""
    from casfs.control.messages import CreateSnapshot
    from casfs.snapshots.folder import name_at

    now_ns = time.time_ns()
    _drop_expired(access, now_ns)
    name = f"{name_at(PREFIX.rstrip('-'))}-{os.urandom(3).hex()}"
    access.perform(CreateSnapshot(name, reason, now_ns + int(seconds * 1e9)))
    return name


def _drop_expired(access: StoreAccess, now_ns: int) -> None:
    from casfs.filestore.directory import StoreDirectory
    from casfs.snapshots.folder import SnapshotFolder
    from casfs.store import read_config

    read_config(access.store)
    with closing(StoreDirectory(access.store)) as directory:
        for manifest in SnapshotFolder(directory).all():
            if manifest.name.startswith(PREFIX) and manifest.has_expired(now_ns):
                _drop_quietly(access, manifest.name)


def _drop(access: StoreAccess, name: str) -> None:
    from casfs.control.messages import DropSnapshot

    access.perform(DropSnapshot(name))


def _drop_quietly(access: StoreAccess, name: str) -> bool:
    """Was it dropped? If not, that is said."""
    try:
        _drop(access, name)
    except (CasfsError, OSError) as error:
        print(f"casfs: error: snapshot {name} is still there: {printable(str(error))}", file=sys.stderr)
        return False
    return True


def _run(access: StoreAccess, command: Sequence[str], seconds: float) -> int:
    # A signal that comes while the snapshot is made waits for it: a daemon would make it all the same.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    name = _create(access, f"held for {printable(' '.join(command))}"[:REASON_LIMIT], seconds)
    try:
        if ended := signal.sigpending() & ENDING:
            code = 128 + min(ended)
        else:
            os.putenv("CASFS_SNAPSHOT", name)
            code = _supervise(command, mask)
    finally:
        dropped = _drop_quietly(access, name)
    return code if code or dropped else ExitCode.FAILED


def _supervise(command: Sequence[str], mask: set[int | signal.Signals]) -> int:
    """Run a command and give it the signals that come, which are blocked here. Its exit code, as a shell has
    it."""

    watched = FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        child = subprocess.Popen(command, preexec_fn=unblock)  # noqa: PLW1509 - one thread
    except OSError as error:
        print(f"casfs: error: {printable(command[0])}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    while child.poll() is None:
        came = signal.sigwaitinfo(watched)
        if came.si_signo != signal.SIGCHLD and came.si_code != SI_KERNEL:
            child.send_signal(came.si_signo)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
