"""The targets of a run: folders the user names, and mounts the bench makes and takes away again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .rounds import Target

CHECKOUT = Path(__file__).resolve().parents[2]
MOUNT_SECONDS = 30.0
UNMOUNT_SECONDS = 120.0  # casfs has everything durable when its umount returns


class SetupError(Exception):
    """The run cannot start; the message says what is missing and what to do."""


def spread(folder: Path | str) -> None:
    """Lets ext4 put new subfolders into block groups of their own (chattr(1), attribute T).

    Without it trials share a block group, and ext4 without a journal avoids inodes that were deleted lately:
    creates become up to twenty times slower after a mass delete. Other file systems refuse it, which is fine.
    """
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["chattr", "+T", str(folder)], capture_output=True, check=False)


def run(*command: str | Path, timeout: float = MOUNT_SECONDS) -> str:
    """The standard output of a command. Raises SetupError with what it said when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise SetupError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"`{' '.join(words)}` was not done within {timeout:g} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).replace("\n", " ")
        raise SetupError(f"`{' '.join(words)}` failed with exit code {done.returncode}: {reason}")
    return done.stdout


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes SIGTERM the same as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Cleaning up is not to be interrupted by a second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warn(line: str) -> None:
    os.write(2, f"bench: {line}\n".encode())


# Folders -------------------------------------------------------------------------------------------------


def remove(folder: Path) -> None:
    """Removes a folder of the bench; in a process of its own, since the mount it may lie in can hang."""
    try:
        run("rm", "-rf", "--one-file-system", folder, timeout=UNMOUNT_SECONDS)
    except SetupError as error:
        warn(f"{folder} is left behind: {error}")


@contextlib.contextmanager
def named_target(name: str, folder: Path, daemon: int | None) -> Iterator[Target]:
    """A folder the user named; the bench works in a new folder inside it."""
    try:
        root = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    except OSError as error:
        raise SetupError(f"{name}: cannot make a folder in {folder}: {error.strerror}") from None
    spread(root)
    try:
        yield Target(name, str(folder), str(root), daemon)
    finally:
        with undisturbed():
            remove(root)


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end unless a mount is left in it."""
    try:
        work = Path(tempfile.mkdtemp(prefix="casfs-bench-", dir=parent))
    except OSError as error:
        raise SetupError(f"cannot make a work folder in {parent}: {error.strerror}") from None
    spread(work)
    try:
        yield work
    finally:
        with undisturbed():
            left = [entry for entry in work.iterdir() if os.path.ismount(entry)]
            if left:
                warn(f"{work} is left behind: {', '.join(map(str, left))} could not be unmounted")
            else:
                remove(work)


MAKE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ext4": (("mkfs.ext4", "-q", "-E", "lazy_itable_init=1"), ("-o", "noinit_itable")),
    "xfs": (("mkfs.xfs", "-q"), ()),
    "btrfs": (("mkfs.btrfs", "-q"), ()),
}
"""File system -> how it is made and mounted."""


@contextlib.contextmanager
def loop_disk(work: Path, gib: int, kind: str = "ext4") -> Iterator[Path]:
    """A fresh ext4 with a journal, or another one of MAKE, in a sparse file, mounted; needs root.

    It knows nothing of earlier runs and of what else the machine's disk is busy deleting.
    """
    if os.geteuid() != 0:
        raise SetupError("only root can set up a loop device")
    image, mountpoint = work / "disk.img", work / "disk"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(gib << 30)
    make, options = MAKE[kind]
    run(*make, image)
    device = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
    try:
        run("mount", *options, device, mountpoint)
        spread(mountpoint)
        yield mountpoint
    finally:
        with undisturbed():
            unmount(mountpoint, "umount")
            run("losetup", "--detach", device)


def new_folder(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir()
    spread(folder)
    return folder


# Mounts --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bindfs(work: Path) -> Iterator[Target]:
    """bindfs, a FUSE mirror in C, over a plain folder."""
    below, mountpoint = new_folder(work, "bindfs-below"), new_folder(work, "bindfs")
    try:
        process = subprocess.Popen(
            ["bindfs", "-f", str(below), str(mountpoint)], stderr=subprocess.PIPE, process_group=0
        )
    except FileNotFoundError:
        raise SetupError(
            "bindfs is not installed: apt-get install bindfs, or leave it out (--setup casfs,plain)"
        ) from None
    try:
        deadline = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(mountpoint):
            if process.poll() is not None:
                reason = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
                raise SetupError(f"bindfs did not start: {reason}")
            if time.monotonic() > deadline:
                raise SetupError(f"bindfs did not mount within {MOUNT_SECONDS:g} s")
            time.sleep(0.02)
        place = str(mountpoint)
        yield Target("bindfs", place, place, process.pid, contents_in=(str(below),))
    finally:
        with undisturbed():
            unmount(mountpoint, "fusermount3", "-u")
            if process.poll() is None:
                process.terminate()
            process.wait()


def unmount(mountpoint: Path, *command: str) -> None:
    """Unmounts with the command; a process that was killed may keep the mount busy for a moment."""
    deadline = time.monotonic() + 10
    while os.path.ismount(mountpoint):
        try:
            run(*command, mountpoint, timeout=UNMOUNT_SECONDS)
        except SetupError as error:
            if time.monotonic() > deadline:
                warn(str(error))
                return
            time.sleep(0.2)


@dataclass(frozen=True)
class Casfs:
    """The `casfs` command and what to hand to its `mount`."""

    command: str
    mount_arguments: tuple[str, ...] = ()

    @classmethod
    def installed(cls, given: str | None, mount_arguments: tuple[str, ...] = ()) -> Casfs:
        """The command given, else that of the checkout's own environment, else the one in PATH."""
        own = CHECKOUT / ".venv" / "bin" / "casfs"
        command = given or (str(own) if own.exists() else shutil.which("casfs"))
        if command is None:
            raise SetupError(
                f"casfs is not installed: run {CHECKOUT}/scripts/run once, or say where it is with --casfs"
            )
        return cls(command, mount_arguments)

    def init(self, store: Path) -> None:
        run(self.command, "init", store)
        for folder in (store, store / "blobs", store / "staging"):
            spread(folder)

    def mount(self, store: Path, mountpoint: Path) -> None:
        """Mounts the store; it is usable on return."""
        run(self.command, "mount", *self.mount_arguments, store, mountpoint)

    def status(self, mountpoint: Path) -> dict[str, Any]:
        """What `casfs status` says of the mount; empty when it does not know it."""
        try:
            status = json.loads(run(self.command, "status", "--json"))
        except (SetupError, json.JSONDecodeError) as error:
            warn(f"the daemon is not measured: {error}")
            return {}
        mounts = status.get("mounts", []) if isinstance(status, dict) else status
        for mount in mounts:
            if os.path.realpath(mount["mountpoint"]) == os.path.realpath(mountpoint):
                return dict(mount)
        warn(f"the daemon is not measured: `casfs status --json` does not list {mountpoint}")
        return {}

    def df(self, store: Path) -> str:
        return run(self.command, "df", store, timeout=UNMOUNT_SECONDS)

    def umount(self, mountpoint: Path) -> None:
        run(self.command, "umount", mountpoint, timeout=UNMOUNT_SECONDS)

    @contextlib.contextmanager
    def mounted(self, store: Path, mountpoint: Path) -> Iterator[dict[str, Any]]:
        """The store is mounted inside the context, whose value is the mount's status."""
        try:
            self.mount(store, mountpoint)
            yield self.status(mountpoint)
        finally:
            with undisturbed():
                if os.path.ismount(mountpoint):
                    try:
                        self.umount(mountpoint)
                    except SetupError as error:
                        warn(str(error))
                        unmount(mountpoint, "fusermount3", "-u")

    @contextlib.contextmanager
    def target(self, work: Path, name: str) -> Iterator[Target]:
        """A new store, mounted."""
        store, mountpoint = work / f"{name}-store", new_folder(work, name)
        self.init(store)
        with self.mounted(store, mountpoint) as status:
            features = status.get("features", {})
            yield Target(
                name,
                str(mountpoint),
                str(mountpoint),
                status.get("pid"),
                features,
                contents_in=(f"{store}/blobs", f"{store}/staging"),
                collector=(self.command, "gc", "run", str(store), "--grace", "0"),
                repositories=(self.command, "repo"),
            )


@contextlib.contextmanager
def plain(work: Path) -> Iterator[Target]:
    """A folder on the disk itself."""
    folder = new_folder(work, "plain")
    yield Target("plain", str(folder), str(folder), contents_in=(str(folder),))
