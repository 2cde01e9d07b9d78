"""When the open group is committed without anybody waiting for it."""

from __future__ import annotations

import logging
import math

import trio

from casfs.fs.filesystem import FileSystem

log = logging.getLogger(__name__)

TICK = 5.0
"""Seconds between looks at content that is written for a long time or could not be sealed."""

TURN_TICK = 0.1
"""Seconds between looks whether others wait for their turn: the collector gets one for each commit."""

RETRY = 1.0
"""Seconds before a failed commit is tried again."""


class Committer:
    """The task that commits. Runs on the event loop's thread."""

    def __init__(self, fs: FileSystem, interval: float) -> None:
        self._fs = fs
        self._interval = interval

    async def seal_resting(self) -> None:
        """Seal what has rested, until cancelled."""
        while True:
            await trio.sleep(TICK)
            await self._fs.contents.settling.seal_resting()

    async def run(self) -> None:
        """Until cancelled. A failure is logged by the group itself and tried again."""
        group, contents = self._fs.group, self._fs.contents
        while not group.failed:
            wait = TICK
            if contents.sealing.due and not group.active:
                wait = 0
            elif group.active:
                wait = 0 if group.is_long else group.since + self._interval - trio.current_time()
                wait = min(wait, TURN_TICK)
            with trio.move_on_after(max(wait, 0)):
                await group.woken()
            due = group.active and (
                group.is_long or group.is_awaited or trio.current_time() - group.since >= self._interval
            )
            try:
                if due:
                    await group.durable()
                elif not group.active and contents.digesting.has_noted:
                    await group.begin()
                elif not group.active and (contents.table.unsealed or contents.sealing.due):
                    await contents.settling.write_back()
                    if contents.sealing.due:
                        await trio.sleep(RETRY)
            except OSError:
                await trio.sleep(RETRY)
            except Exception:
                log.exception("the commit task goes on after an error nobody expected")
                await trio.sleep(RETRY)
        await trio.sleep(math.inf)
