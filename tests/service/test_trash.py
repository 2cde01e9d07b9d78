"""What the daemon does about the trash by itself."""

from __future__ import annotations

import time
from pathlib import Path

import apsw
import pytest
import trio

from casfs.fuse.caches import KernelCaches
from casfs.service import trash as module
from casfs.service.trash import TrashService
from casfs.store import create_store
from casfs.trash.undelete import change_rule
from tests.fs.mount import mounted


def test_an_error_of_the_disk_while_the_trash_is_emptied_ends_no_mount(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It came out as an apsw.IOError, which nobody expected."""
    monkeypatch.setattr(module, "EMPTY_SECONDS", 0.01)
    failures = iter(range(3))
    monkeypatch.setattr("casfs.fuse.caches._unless_unknown", lambda *_: False)  # there is no kernel

    async def main() -> None:
        async with mounted(scratch / "store") as mount:
            await change_rule(mount.fs, b"", 1, None, 0)
            await mount.write_file(b"file", b"content")
            await mount.fs.group.durable()
            await mount.unlink(b"file")
            await mount.fs.group.durable()
            rows = mount.fs.store.namespace.trash
            assert rows.totals()[0] == 1
            execute = rows._execute

            def failing(sql: str, *bindings: object) -> object:
                if "deleted_ns <" in sql and next(failures, None) is not None:
                    raise apsw.IOError("disk I/O error")
                return execute(sql, *bindings)

            monkeypatch.setattr(rows, "_execute", failing)
            now = time.time_ns()
            monkeypatch.setattr(time, "time_ns", lambda: now + 2 * 86_400 * 10**9)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(TrashService(mount.fs, KernelCaches(mount.fs), empties=True).run)
                with trio.fail_after(30):
                    while rows.totals()[0]:  # noqa: ASYNC110 - there is no event: rows are looked at
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    create_store(str(scratch / "store"))
    trio.run(main)
    assert caplog.text.count("the trash could not be looked after") == 3
