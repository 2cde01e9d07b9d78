"""The mount daemon: one store, one mount point, one process."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import trio

from casfs.control.protocol import SILENCE_SECONDS
from casfs.control.server import Server
from casfs.errors import MountError, StoreLocked
from casfs.fs.filesystem import FileSystem
from casfs.fuse import accelerator
from casfs.fuse.caches import KernelCaches, MountKernel
from casfs.fuse.options import MountOptions
from casfs.fuse.scheduler import TrioScheduler
from casfs.fuse.session import Session
from casfs.repositories.filesystem import file_system, follower_of
from casfs.service import background
from casfs.service.collector import Collector
from casfs.service.integrations import IntegrationCleanup
from casfs.service.killed import end_killed
from casfs.service.logfile import LogFile
from casfs.service.mounts import own_device
from casfs.service.mounttable import mount_at
from casfs.service.notify import notify
from casfs.service.pressure import Pressure
from casfs.service.repeats import Repeats
from casfs.service.requests import Requests
from casfs.service.trash import TrashService
from casfs.service.unmounting import HELD_SECONDS, detach, holders, is_dead, read_ahead, write_back
from casfs.service.waiting import within
from casfs.store import Store, control_path, read_config
from casfs.text import log_to

log = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024
"""What the kernel asks for ahead of a sequential reader: FUSE's 128 KiB keep the daemon and the disk waiting
for each other."""


def mount(store: str, mountpoint: str, options: MountOptions, foreground: bool) -> int:
    """Mount a store. In the foreground until it is unmounted; else returns when the mount is usable.

    Raises StoreNotFound, FormatError, StoreLocked, MountError, OSError.
    """
    store = os.path.realpath(store)
    read_config(store)
    end_killed(store)
    mountpoint = _check_mountpoint(store, os.path.abspath(mountpoint))
    if foreground:
        log_to(logging.StreamHandler(), "casfs: %(levelname)s: %(message)s")
        with contextlib.closing(Store(store, durable=accelerator.durable())) as opened:
            trio.run(_run, opened, mountpoint, options, lambda: notify("READY=1"))
        return 0

    def serve(ready: Callable[[], None]) -> None:
        with contextlib.closing(Store(store, durable=accelerator.durable())) as opened:
            _log_to_file(opened)  # whose log it is, the store's lock has decided
            trio.run(_run, opened, mountpoint, options, ready)

    background.start(serve)
    return 0


def _check_mountpoint(store: str, mountpoint: str) -> str:
    """Its real path. Raises MountError."""
    _check_not_mounted(store, mountpoint)
    if not os.path.isdir(mountpoint):
        what = "is not a directory" if os.path.exists(mountpoint) else "does not exist"
        raise MountError(f"mount point {mountpoint} {what}", "make the directory first")
    place = os.path.realpath(mountpoint)
    if place != mountpoint:
        _check_not_mounted(store, place)
    if os.path.commonpath((store, place)) in (store, place):
        raise MountError(f"the store {store} and the mount point {place} must not contain each other")
    if not os.access("/dev/fuse", os.F_OK):
        raise MountError("/dev/fuse does not exist", "load the fuse module (modprobe fuse)")
    return place


def _check_not_mounted(store: str, mountpoint: str) -> None:
    """A second FUSE file system on a mount point hides the first one, which is an accident. On others it is
    intended: volumes of containers, and automount points.

    Raises MountError, StoreLocked for the same store again, NoAnswer.
    """
    entry, location = within(SILENCE_SECONDS, mountpoint, partial(mount_at, mountpoint))
    if entry is None or not entry.is_fuse or entry.mountpoint != location.path:
        return
    if is_dead(mountpoint):
        raise MountError(
            f"{mountpoint} is the mount of a daemon that died", f"fusermount3 -uz {mountpoint} clears it"
        )
    if entry.store == store:
        raise StoreLocked(f"{store} is mounted on {mountpoint} already")
    what = entry.source if entry.store is None else entry.store
    raise MountError(
        f"{mountpoint} is mounted already, with {what} ({entry.type})",
        "unmount that first, or name another directory",
    )


def _log_to_file(store: Store) -> None:
    handler = LogFile(store.directory)
    handler.addFilter(Repeats())
    log_to(handler, "%(asctime)s %(levelname)s %(name)s: %(message)s")


async def _run(store: Store, mountpoint: str, options: MountOptions, ready: Callable[[], None]) -> None:
    scheduler = TrioScheduler()
    kernel = MountKernel(store.path, options)
    fs = file_system(store, scheduler, kernel)
    await fs.start()
    with _ending_signals() as signals:
        await _serve(fs, kernel, scheduler, mountpoint, options, signals, ready)
    log.info("%s is unmounted and closed", store.path)


@contextlib.contextmanager
def _ending_signals() -> Iterator[AsyncIterator[int]]:
    """SIGINT and SIGTERM, for as long as there is something to unmount; ignored afterwards.

    Those that nobody has taken when the receiver ends are sent once more by it, and would then cut off what
    is still to be written.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(*numbers) as signals:
        yield signals


async def _serve(
    fs: FileSystem,
    kernel: MountKernel,
    scheduler: TrioScheduler,
    mountpoint: str,
    options: MountOptions,
    signals: AsyncIterator[int],
    ready: Callable[[], None],
) -> None:
    store = fs.store
    caches = KernelCaches(fs)
    trash = TrashService(fs, caches, empties=not options.read_only)
    pressure = Pressure(fs, trash, options.low_room)
    session = Session(fs, kernel, caches, scheduler, mountpoint, options, pressure.relieve)
    collector = Collector(fs, options.orphan_share)
    _allow_many_files()
    session.mount()
    device = own_device(store.path, mountpoint)
    requests = Requests(fs, device, session, trash, pressure, collector)
    server = Server(control_path(store.path), requests.handlers())
    try:
        server.bind()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            nursery.start_soon(session.commit)
            nursery.start_soon(session.seal_resting)
            nursery.start_soon(caches.run)
            nursery.start_soon(trash.run)
            nursery.start_soon(follower_of(fs).run)
            if not options.read_only:
                nursery.start_soon(pressure.run)
                nursery.start_soon(collector.run)
                nursery.start_soon(IntegrationCleanup(fs, caches).run)
            nursery.start_soon(_unmount_on_signal, signals, session, fs, mountpoint, device)
            log.info("%s is mounted on %s", store.path, mountpoint)
            ready()
            _collect_rarely()
            nursery.start_soon(trio.to_thread.run_sync, read_ahead, mountpoint, device, READ_AHEAD_KIB)
            await session.serve()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            session.close()
            notify("STOPPING=1")
            server.close()
            await _follow_all(fs)
            await fs.stop()


async def _follow_all(fs: FileSystem) -> None:
    """Commands that read an unmounted store find everything. What fails is followed by the next mount."""
    try:
        await follower_of(fs).drain()
    except OSError as error:
        log.warning("what follows from names is left to the next mount: %s", error)


def _allow_many_files() -> None:
    """As many open files as the system gives: each that is written holds a descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _collect_rarely() -> None:
    """Inodes come by the thousand and hardly ever in cycles: looking for cycles took 12 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _unmount_on_signal(
    signals: AsyncIterator[int], session: Session, fs: FileSystem, mountpoint: str, device: str
) -> None:
    """A signal unmounts: with a flush by the kernel if nobody is inside, by force otherwise.

    What mappings have changed is written back before that. The loop has to serve it: all in threads.
    """
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        try:
            await trio.to_thread.run_sync(detach, mountpoint)
        except MountError as error:
            dentries = fs.store.namespace.dentries
            paths = [path for ino in fs.contents.table.writable for path in dentries.paths_of(ino)]
            await trio.to_thread.run_sync(write_back, device, paths)
            log.warning("%s; open files are cut off", error)
            await session.terminate()
        else:
            await trio.sleep(HELD_SECONDS)
            if held := await trio.to_thread.run_sync(holders, fs.store.path, device):
                log.warning("still served: %s; a second signal cuts them off", held)
