"""What runs until it is cancelled, in steps that end first."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Ending:
    """Of a task whose steps are shielded: they look at `begun`, to end soon, and `then` is called once."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.begun = False
        self._then = then

    async def watch(self) -> None:
        """To be run beside the steps, in their nursery."""
        try:
            await trio.sleep_forever()
        finally:
            self.begun = True
            self._then()
