"""One mounted FUSE session: from options to a served mount."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection

import pyfuse3
import trio

from casfs.errors import MountError
from casfs.fs.filesystem import FileSystem
from casfs.fuse import loop
from casfs.fuse.accelerated import Accelerated
from casfs.fuse.caches import KernelCaches, MountKernel
from casfs.fuse.committer import Committer
from casfs.fuse.operations import Operations
from casfs.fuse.options import SUBTYPE, MountOptions, Presentation, source_name
from casfs.fuse.scheduler import TrioScheduler
from casfs.fuse.verbs import Verbs
from casfs.repositories.filesystem import registry_of

TERMINATE_SECONDS = 0.05
"""How often the loop is told to end, until it has."""


class Session:
    """pyfuse3 holds one session for each process. Runs on the event loop's thread."""

    def __init__(
        self,
        fs: FileSystem,
        kernel: MountKernel,
        caches: KernelCaches,
        scheduler: TrioScheduler,
        mountpoint: str,
        options: MountOptions,
        relieve: Callable[[], Awaitable[bool]],
    ) -> None:
        self._mountpoint = mountpoint
        self._options = options
        self._store = fs.store.path
        self._passthrough = fs.contents.passthrough
        self.caches = caches
        presentation = Presentation(options.uid, options.gid, options.umask)
        verbs = Verbs(
            fs,
            durable_each=options.commit_interval == 0,
            relieve=relieve,
            caches=caches,
            presentation=presentation,
            free_step=options.free_step,
            read_only=options.read_only,
        )
        self._operations = Operations(verbs)
        self._committer = Committer(fs, options.commit_interval)
        self._accelerated: Accelerated | None = None
        self._scheduler = scheduler
        self._slow = ""
        self._kernel = kernel
        self._plain = kernel.plain
        if kernel.native is not None:
            self._accelerated = Accelerated(kernel.native, kernel, verbs, scheduler)
            registry_of(fs).subscribe(self._accelerated.rules_changed)
            fs.snapshots.revoke = self._accelerated.revoke_range

    def mount(self) -> None:
        """Raises MountError."""
        try:
            pyfuse3.init(self._operations, self._mountpoint, self._libfuse_options())
        except RuntimeError as error:
            allow = self._options.allow_other or self._options.allow_root
            hint = "its messages are above"
            if allow and os.getuid() != 0:
                hint = "allow_other and allow_root need user_allow_other in /etc/fuse.conf"
            raise MountError(f"cannot mount on {self._mountpoint}: {error}", hint) from None
        self._choose_loop()

    def _choose_loop(self) -> None:
        """Let the accelerator wait for requests, if libfuse has let it in."""
        waiting: loop.RequestWait | Accelerated = loop.RequestWait(self._scheduler)
        if self._accelerated is not None:
            self._plain = self._accelerated.refused
        if self._accelerated is not None and not self._plain:
            waiting = self._accelerated
        self._scheduler.requests = waiting.requests
        self._slow = loop.install(waiting.wait_readable, self._scheduler.runnable)

    @property
    def idle_handles(self) -> int:
        """Handles that are only kept open for the next open(2)."""
        return 0 if self._accelerated is None else self._accelerated.idle_handles

    async def damaged(self, blobs: Collection[int]) -> None:
        """The files of these blobs are bad and were taken away: forget what is known of their bytes."""
        inos = await self._passthrough.invalidate(blobs)
        if self._accelerated is not None:
            self._accelerated.revoke_leases(inos)
        await self.caches.invalidate(inos)

    def features(self) -> dict[str, str]:
        """What makes the mount fast, and why it is not where it is off."""
        passthrough = "off: not without native"
        if self._accelerated is not None and not self._plain:
            passthrough = self._accelerated.passthrough
        return {
            "native": f"off: {self._plain}" if self._plain else "on",
            "passthrough": passthrough,
            "fast_event_loop": f"off: {self._slow}" if self._slow else "on",
            "commit_interval": f"{self._options.commit_interval:g} s",
        }

    def _libfuse_options(self) -> set[str]:
        options = self._options
        words = {
            "default_permissions",
            f"fsname={source_name(self._store)}",
            f"subtype={SUBTYPE}",
            "noatime",
            "suid" if options.suid else "nosuid",
            "dev" if options.dev else "nodev",
        }
        words |= {"ro"} if options.read_only else set()
        words |= {"noexec"} if not options.exec else set()
        words |= {"allow_other"} if options.allow_other else set()
        words |= {"allow_root"} if options.allow_root else set()
        return words

    async def serve(self) -> None:
        """Until unmounted or `terminate`."""
        if self._accelerated is None or self._plain:
            await self._serve_plainly()
        else:
            await self._accelerated.run(self._serve_plainly)

    async def _serve_plainly(self) -> None:
        await pyfuse3.main(min_tasks=2, max_tasks=99)

    async def commit(self) -> None:
        await self._committer.run()

    async def seal_resting(self) -> None:
        await self._committer.seal_resting()

    async def terminate(self) -> None:
        """Have `serve` end, whatever programs ask for. Waits until it is cancelled.

        pyfuse3 wakes who waits for the next request. The loop may be between two waits, and not hear of it.
        """
        if self._accelerated is not None:
            self._accelerated.ended = True
        while True:
            pyfuse3.terminate()
            await trio.sleep(TERMINATE_SECONDS)

    def close(self) -> None:
        """Unmount, if the kernel still has the mount."""
        self._kernel.backings = None  # the kernel drops what was registered when the connection ends
        pyfuse3.close(unmount=True)
