"""Fixtures for tests with an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.fs.mount import Mount, Run, mounted


@pytest.fixture
def run(store_path: Path) -> Run:
    """Run a test body on a mounted store, for a minute at the most."""

    def run(body: Callable[[Mount], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                async with mounted(store_path) as mount:
                    await body(mount)

        trio.run(main)

    return run
