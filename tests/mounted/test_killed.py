"""Daemons that are killed while the kernel keeps one of their threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounted.mounts import (
    ENVIRONMENT,
    ROOT_OPTIONS,
    Mount,
    await_exit,
    casfs,
    has_exited,
    is_mounted,
    unmount_by_force,
)
from tests.mounted.shown import JAR

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root may abort a connection")

HOLDING = """
import sys
from casfs.cli.main import main
from casfs.fuse.shown import ShownNames
through = ShownNames.through
async def held(self, names, method, caller):
    if any(name == b"held" for _, name in names):
        await self._fs.scheduler.event().wait()
    return await through(self, names, method, caller)
ShownNames.through = held
sys.exit(main(sys.argv[1:]))
"""
"""A daemon that never answers who makes `held` in a tree."""


@pytest.fixture
def stuck(new_mount: Callable[..., Mount], mode: str) -> Iterator[Mount]:
    """A store whose daemon was killed, and does not end: a program holds the directory that it waits for."""
    mount = new_mount()
    mount.crashed = True
    casfs("repo", "create", mount.store, "libs", "--layout", "maven-2-default")
    casfs("repo", "create", mount.store, "all", "--virtual", "libs", "--deploy", "libs")
    options = ROOT_OPTIONS + (",no_native" if mode == "no-native" else "")
    command = [sys.executable, "-c", HOLDING, "mount", mount.store, mount.path, "-o", options]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    source, shown = mount.path / "libs" / JAR, mount.path / "all" / JAR
    source.parent.mkdir(parents=True)
    source.write_bytes(b"jar")
    assert shown.read_bytes() == b"jar"
    with subprocess.Popen(["touch", shown.with_name("held")], stderr=subprocess.DEVNULL) as program:
        try:
            while "request_wait" not in Path(f"/proc/{program.pid}/wchan").read_text():
                time.sleep(0.01)
            with open(source.with_name("other"), "wb") as file:
                file.write(b"kept")
                file.flush()
                os.fsync(file.fileno())
            source.unlink()
            daemon = os.pidfd_open(mount.pid)
            os.kill(mount.pid, signal.SIGKILL)
            assert not has_exited(daemon, 1.0), "nothing keeps it"
            yield mount
            await_exit(daemon)
        finally:
            program.kill()
            if is_mounted(mount.path):
                subprocess.run(["umount", "-f", mount.path], capture_output=True, check=False)
                unmount_by_force(mount.path)


def test_a_daemon_that_the_kernel_keeps_from_ending_is_ended_by_umount(stuck: Mount) -> None:
    """The store stayed locked, and programs waited, until somebody knew of `umount -f`."""
    casfs("umount", stuck.path)
    assert not is_mounted(stuck.path)
    casfs("fsck", stuck.store)
    stuck.start()
    assert (stuck.path / "all" / JAR).with_name("other").read_bytes() == b"kept"


def test_a_daemon_that_the_kernel_keeps_from_ending_is_ended_by_the_next_mount(
    stuck: Mount, scratch: Path
) -> None:
    other = Mount(stuck.store, scratch / "other", mode=stuck.mode).start()
    assert (other.path / "all" / JAR).with_name("other").read_bytes() == b"kept"
    other.stop()
