"""Hostile stores, used by root: no command may touch what is outside, hang, or end with an internal error.

Runs in a mount namespace of its own, in which everything but the folder of the round can only be read. Beside
STORE lies `outside`, where the attacker's links lead: whoever opens anything there by its name is seen by
inotify(7), and whoever changes it, by whatever name, by the change.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pkgutil
import random
import shutil
import signal
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import casfs as package
from casfs.cli.main import main as casfs
from casfs.fs.scheduler import InlineScheduler, run_inline
from casfs.repositories.filesystem import file_system
from casfs.service.mounts import list_mounts
from casfs.store import Store, create_store
from casfs.syscalls import open_beneath
from tests.fuzz.damages import Attacker
from tests.maintenance.stores import Damaged, add_views, fill

SECONDS = 30.0
"""After so long a command hangs."""

RACES = 0.25
"""Share of stores that are changed while they are used."""

ENTRIES = 2_000
"""So many names a walk sees at the most; the store has a dozen."""

FINE = {0, 1, 2, 3, 4, 5, 6, 32}
"""Exit codes of a command that has said what is wrong."""

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 0x20, 0x1000, 0x4000, 1 << 18
MNT_DETACH = 2
IN_ANY = 0xFFF


class Failure(Exception):
    """What a round has found."""


class Watched:
    """The folder `outside`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "folder").mkdir(parents=True)
        for name in ("file", "folder/file", "folder/0" + "0" * 63):
            (path / name).write_bytes(b"theirs\n" * 100)
            (path / name).chmod(0o644)

    def watch(self) -> None:
        """From now on nobody may come here."""
        self._before = self._state()
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for folder in (self.path, self.path / "folder"):
            if libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_ANY) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def _state(self) -> dict[str, tuple[int, int, int, bytes]]:
        return {
            str(path): (
                status.st_mode,
                status.st_uid,
                status.st_mtime_ns,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in sorted(self.path.rglob("*"))
            for status in (path.lstat(),)
        }

    def check(self) -> None:
        """Raises Failure."""
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._fd, 65536)
            _, mask, _, length = struct.unpack_from("iIII", events)
            raise Failure(f"outside was touched: {mask:#x} {events[16 : 16 + length].rstrip(bytes(1))!r}")
        os.close(self._fd)
        if self._state() != self._before:
            raise Failure("outside was changed")


class HostileStores:
    """`folder` is emptied and filled by each store."""

    def __init__(self, folder: Path, races: float = RACES) -> None:
        self._folder = folder
        self._races = races
        self._golden = folder / "golden"
        self._round = folder / "round"
        self._output = folder / "output"
        self.mounts = 0
        self._may_log = False
        self._make_golden()

    def _make_golden(self) -> None:
        for module in pkgutil.walk_packages(package.__path__, "casfs."):
            if not module.name.startswith(("casfs.__main__", "casfs.fuse.native")):
                importlib.import_module(module.name)  # once, not by each child
        create_store(str(self._golden), fan_out=1, digests=("sha256", "crc32c"))
        store = Store(str(self._golden))
        fs = file_system(store, InlineScheduler())
        run_inline(fs.start())
        fill(fs)
        run_inline(fs.stop())
        store.close()
        add_views(Damaged(self._golden))
        self._run("repo", "create", str(self._golden), "both", "--virtual", "a,view", "--deploy", "a")
        self._run("repo", "create", str(self._golden), "again", "--view", "all", "--layout", "turned")
        (self._golden / "staging" / "0123456789abcdef").write_bytes(b"left by a crash")
        self._run("pin", "add", str(self._golden), "a")

    def use(self, seed: int) -> None:
        """One store. Raises Failure."""
        shutil.rmtree(self._round, ignore_errors=True)
        self._round.mkdir()
        store, mountpoint = self._round / "store", self._round / "mnt"
        mountpoint.mkdir()
        outside = Watched(self._round / "outside")
        shutil.copytree(self._golden, store)
        attacker = Attacker(store, outside.path, seed)
        attacker.attack()
        outside.watch()
        self._may_log = attacker.is_loose
        self._ran: list[str] = []
        dice = random.Random(seed)
        racer = self._racer(store, outside.path, seed) if dice.random() < self._races else 0
        try:
            self._run_all(store, mountpoint, dice, racing=bool(racer))
            outside.check()
        except Failure as failure:
            raise Failure(
                "\n".join((f"seed {seed}: {failure}", *attacker.done, "then", *self._ran))
            ) from None
        finally:
            if racer:
                os.kill(racer, signal.SIGKILL)
                os.waitpid(racer, 0)
            self._end(mountpoint)

    def _racer(self, store: Path, outside: Path, seed: int) -> int:
        """A process of the attacker, who puts links in the place of what is used meanwhile."""
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                Attacker(store, outside, seed).race()
            os._exit(0)
        self._ran.append("with links put in its place meanwhile")
        return pid

    def _run_all(self, store: Path, mountpoint: Path, dice: random.Random, *, racing: bool) -> None:
        self._run("fsck", str(store))
        if dice.random() < 0.6:
            self._mounted(store, mountpoint)
        others = [
            ("fsck", "--deep", str(store)),
            ("df", str(store)),
            ("scrub", str(store)),
            ("gc", "run", "--grace", "0", "--full", str(store)),
            ("trash", "list", str(store)),
            ("trash", "empty", str(store)),
            ("pin", "list", str(store)),
            ("heal", "--from", str(self._golden), str(store)),
            ("heal", "--from", str(store), str(self._golden)),
            ("undelete", str(store), "gone"),
            ("digests", str(store)),
            ("digests", str(store), "--add", "md5", "--fast"),
            ("digests", str(store), "--run", "--fast", "--no-gc"),
            ("find", str(store), "--json"),
            ("find", str(store), "--duplicates", "--trash"),
            ("find", str(store), "--where", "keep=1", "!prop.a", "companions"),
            ("find", str(store), "--prop", "qa", "--json"),
            ("find", str(store), "--blake3", "0"),
        ]
        for words in dice.sample(others, 5):
            self._run(*words)
        self._run("fsck", "--repair", str(store))
        sound = self._run("fsck", "--deep", str(store)) == 0 and not racing
        if self._mounted(store, mountpoint) != 0 and sound:
            raise Failure("fsck finds nothing, and it cannot be mounted")

    def _mounted(self, store: Path, mountpoint: Path) -> int:
        code = self._run("mount", str(store), str(mountpoint))
        if code == 0:
            self.mounts += 1
            self._in_child("walk", lambda: walk(mountpoint))
            self._run("umount", str(mountpoint))
        text = read_beneath(store, "run/mount.log")
        # Of a row that no table can have a request fails: where, the log may say.
        if (b"CRITICAL" in text and b"Traceback" in text) or (b"Traceback" in text and not self._may_log):
            raise Failure(f"mount.log:\n{text.decode(errors='replace')[-5000:]}")
        return code

    def _run(self, *words: str) -> int:
        code = self._in_child(f"casfs {' '.join(words)}", lambda: casfs(list(words)))
        if code not in FINE:
            again = self._output.read_text(errors="replace")
            self._in_child("", lambda: casfs(["--debug", *words]))
            raise Failure(f"exit code {code}: {again}{self._output.read_text(errors='replace')}")
        return code

    def _in_child(self, what: str, work: Callable[[], int]) -> int:
        self._ran = [*getattr(self, "_ran", []), what]
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                for fd in (1, 2):
                    os.dup2(output, fd)
                os.close(output)
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        deadline = time.monotonic() + SECONDS
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                where = Path(f"/proc/{pid}/stack").read_text() if os.getuid() == 0 else ""
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Failure(f"{what} hangs\n{where}{self._output.read_text(errors='replace')}")
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(status)
        text = self._output.read_text(errors="replace")
        if code < 0 or code == 99 or ("Traceback" in text and "--debug" not in what and what):
            raise Failure(f"{what}: {code}, {text}")
        self._ran[-1] += f" -> {code} {text.strip()[:150] if code else ''}"
        return code

    def _end(self, mountpoint: Path) -> None:
        """Nothing of a round is left: daemons that hang are its children by now."""
        libc.umount2(os.fsencode(mountpoint), MNT_DETACH)
        deadline = time.monotonic() + 5
        while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for pid in map(int, children):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)


def read_beneath(store: Path, name: str) -> bytes:
    """A file of a store, b"" where there is none: by whoever looks, too, no link may be followed."""
    directory = os.open(store, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = open_beneath(directory, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    finally:
        os.close(directory)
    try:
        return os.pread(fd, 1 << 22, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def walk(mountpoint: Path) -> int:
    """Look at everything in a mount, and use it."""
    folders, seen = [os.fsencode(mountpoint)], 0
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                seen += 1
                if seen > ENTRIES:
                    raise AssertionError("the walk does not end")
                path = folder + b"/" + name
                with contextlib.suppress(OSError):
                    look_at(path, folders)
    for number in range(3):
        with contextlib.suppress(OSError):
            path = mountpoint / f"new{number}"
            path.write_bytes(b"written" * 10_000 * number)
            path.rename(mountpoint / "a" / "renamed")
    return 0


def look_at(path: bytes, folders: list[bytes]) -> None:
    """Raises OSError."""
    status = os.lstat(path)
    for name in os.listxattr(path, follow_symlinks=False):
        os.getxattr(path, name, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        folders.append(path)
    elif stat.S_ISLNK(status.st_mode):
        os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        for flags in (os.O_RDONLY, os.O_RDWR):
            with contextlib.suppress(OSError):
                fd = os.open(path, flags)
                try:
                    os.pread(fd, 1 << 16, 0)
                    if flags == os.O_RDWR:
                        os.pwrite(fd, b"changed", 0)
                        os.fsync(fd)
                finally:
                    os.close(fd)


@contextlib.contextmanager
def fenced(folder: Path) -> Iterator[None]:
    """Enter, for good, a mount namespace in which only `folder`, in memory until the end, can be written."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    place = os.fsencode(folder)
    _check(libc.unshare(CLONE_NEWNS))
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    for mount in list(list_mounts()):  # of others, which would stay in use here when they are unmounted
        libc.umount2(os.fsencode(mount.mountpoint), MNT_DETACH)
    _check(libc.mount(b"casfs-fuzz", place, b"tmpfs", 0, b"size=1g"))
    try:
        _check(libc.mount(None, b"/", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None))
        yield
    finally:
        libc.mount(None, b"/", None, MS_REMOUNT | MS_BIND, None)
        libc.umount2(place, MNT_DETACH)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "the fence needs root and a mount namespace")
