"""The open files of blobs: opening one may wait, and whoever has waited sees what came meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable

import pytest

from casfs.fs.content.content import Content, Handle
from casfs.fs.inodes import Inode
from casfs.types import ROOT_INO
from tests.fs.content.test_passthrough import Registry, finish, opened
from tests.fs.mount import Mount, Run

LARGE = os.urandom(300_000)


class SlowOpen:
    """Has what is given to `meets` come while the next blob is opened."""

    def __init__(self, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
        self._blobs = mount.fs.contents.blobs
        self._open = self._blobs.open
        self._meanwhile: Callable[[], Awaitable[object]] | None = None
        self.waited = 0
        monkeypatch.setattr(self._blobs, "open", self.open)

    def meets(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def open(self, content: Content) -> int:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            self.waited += 1
            await meanwhile()
        sealed = not content.is_staged and content.inode.blob is not None
        return await self._open(content) if sealed else -1


async def sealed(mount: Mount, name: bytes) -> Inode:
    await mount.write_file(name, LARGE)
    await mount.fs.group.durable()
    inode = mount.fs.tree.lookup(ROOT_INO, name)
    assert inode is not None
    return inode


async def rewrite(mount: Mount, inode: Inode, content: bytes) -> None:
    """Another program has the file sealed with another content."""
    handle = mount.open(inode)
    await mount.fs.files.truncate(inode, 0, handle)
    await mount.fs.files.write(handle, 0, content)
    await mount.close(handle)
    await mount.fs.contents.settling.seal_closed(inode)


def test_a_read_that_waits_for_its_blob_meets_a_write(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowOpen(mount, monkeypatch)
        inode = await sealed(mount, b"file")
        reader, writer = mount.fs.files.open(inode, False, 0), mount.open(inode)
        slow.meets(lambda: mount.fs.files.write(writer, 0, b"new"))
        assert await mount.fs.files.read(reader, 0, 10) == b"new" + LARGE[3:10]
        await mount.close(writer)
        await mount.release(reader)
        assert slow.waited == 1

    run(body)


@pytest.mark.parametrize("content", [b"short", b"", b"other" * 100_000], ids=["short", "empty", "long"])
def test_a_read_that_waits_for_its_blob_meets_another_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowOpen(mount, monkeypatch)
        inode = await sealed(mount, b"file")
        reader = mount.fs.files.open(inode, False, 0)
        slow.meets(lambda: rewrite(mount, inode, content))
        assert await mount.fs.files.read(reader, 0, len(LARGE)) == content[: len(LARGE)]
        await mount.release(reader)
        assert slow.waited == 1

    run(body)


def test_a_seek_that_waits_for_its_blob_meets_a_truncation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowOpen(mount, monkeypatch)
        seek = mount.fs.contents.ranges.seek
        for content, found in ((b"short" * 10, 50), (b"short", None)):
            inode = await sealed(mount, b"to %d" % len(content))
            reader = mount.fs.files.open(inode, False, 0)
            slow.meets(lambda inode=inode, content=content: rewrite(mount, inode, content))
            if found is None:
                with pytest.raises(OSError, match="No such device") as raised:
                    await seek(reader, 10, os.SEEK_HOLE)
                assert raised.value.errno == errno.ENXIO
            else:
                assert await seek(reader, 10, os.SEEK_HOLE) == found
            await mount.release(reader)
        assert slow.waited == 2

    run(body)


@pytest.mark.parametrize("write", [False, True], ids=["reader", "writer"])
def test_an_open_that_waits_for_its_blob_meets_another_open(
    run: Run, monkeypatch: pytest.MonkeyPatch, write: bool
) -> None:
    """All handles of an inode have its backing file, or none: here it is none."""
    registry = Registry()

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        slow = SlowOpen(mount, monkeypatch)
        await sealed(mount, b"file")
        others: list[Handle] = []

        async def another() -> None:
            others.append(await opened(mount, b"file", write=write))

        slow.meets(another)
        one = await opened(mount, b"file")
        assert slow.waited == 1
        assert (one.passthrough, others[0].passthrough, registry.files) == (False, False, {})
        for handle in (one, *others):
            await mount.release(handle)
        one = await opened(mount, b"file")
        assert one.passthrough
        await mount.release(one)

    run(body)
    finish(registry)
