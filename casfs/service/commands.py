"""Commands of util-linux and fuse3."""

from __future__ import annotations

import subprocess

from casfs.errors import MountError

COMMAND_SECONDS = 600.0
"""How long a command of util-linux or fuse3 may take: umount(2) writes back what is dirty."""

COMMAND_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
"""Where umount(8), mount(8) and fusermount3(1) are."""


def run(command: list[str]) -> None:
    """A command of util-linux or fuse3, with no environment of the caller's: it would be looked for where
    that says, and speak another language. Raises MountError with its reason."""
    try:
        done = subprocess.run(
            command,
            env={"PATH": COMMAND_PATH},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMMAND_SECONDS,
        )
    except FileNotFoundError:
        raise MountError(f"{command[0]} is not installed", "install fuse3 and mount") from None
    except subprocess.TimeoutExpired:
        raise MountError(f"{command[0]} has not ended for {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[:1] or [f"{command[0]} failed"]
        hint = "close the files and leave the directories in it" if "busy" in reason[0] else ""
        raise MountError(reason[0], hint)
