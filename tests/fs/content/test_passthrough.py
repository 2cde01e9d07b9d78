"""Which files have a backing file, and what becomes of it when somebody writes."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from casfs.errors import FsError
from casfs.filestore.staging import StagedFile
from casfs.fs.content.content import Content, Handle
from casfs.fs.inodes import Inode
from casfs.fuse.verbs import Verbs
from casfs.types import ROOT_INO
from tests.fs.mount import Mount, Run, mounted
from tests.session import no_room

CONTENT = os.urandom(300_000)


class Registry:
    """What the kernel does: keeps a registered file, whatever becomes of its name."""

    def __init__(self) -> None:
        self.files: dict[int, int] = {}
        self.broken = 0

    def backing_open(self, fd: int) -> int:
        if self.broken:
            raise OSError(self.broken, "refused")
        number = len(self.files) + 100
        self.files[number] = os.dup(fd)
        return number

    def backing_close(self, backing: int) -> None:
        os.close(self.files.pop(backing))

    def read(self, handle: Handle) -> bytes:
        """What a passthrough reader sees."""
        return os.pread(self.files[handle.content.backing], len(CONTENT) + 1, 0)


async def opened(mount: Mount, name: bytes, *, write: bool = False) -> Handle:
    inode = mount.fs.tree.lookup(ROOT_INO, name)
    assert inode is not None
    handle = mount.fs.files.open(inode, write, 0)
    await mount.fs.contents.passthrough.join(handle)
    return handle


async def persisted_while_the_reader_goes(mount: Mount, writer: Handle, reader: Handle) -> Inode:
    """The writer has gone, and what it wrote is being made durable when the last reader goes."""
    await mount.release(writer)
    async with trio.open_nursery() as nursery:
        with mount.held("fdatasync") as gate:
            nursery.start_soon(mount.fs.contents.settling.seal_closed, writer.inode)
            await gate.arrived()
            nursery.start_soon(mount.release, reader)
            await trio.testing.wait_all_tasks_blocked()
    return writer.inode


@pytest.fixture
def registry() -> Registry:
    return Registry()


def finish(registry: Registry) -> None:
    for fd in registry.files.values():
        os.close(fd)


def test_a_reader_is_passed_through_and_its_blob_for_one_inode_at_a_time(
    run: Run, registry: Registry
) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"one", CONTENT)
        await mount.write_file(b"two", CONTENT)
        await mount.write_file(b"small", b"small")
        one, again, two = [await opened(mount, name) for name in (b"one", b"one", b"two")]
        small = await opened(mount, b"small")
        assert [h.passthrough for h in (one, again, two, small)] == [True, True, False, False]
        assert one.content.backing == again.content.backing
        for handle in (one, again, two, small):
            await mount.release(handle)
        two = await opened(mount, b"two")
        assert two.passthrough, "nobody has the blob any more"
        assert len(registry.files) == 1, "it was still registered"
        await mount.release(two)

    run(body)
    finish(registry)


def test_a_writer_gets_the_readers_file_and_the_blob_keeps_its_bytes(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"one", CONTENT)
        await mount.write_file(b"two", CONTENT)
        reader, writer = await opened(mount, b"one"), await opened(mount, b"one", write=True)
        assert writer.passthrough
        assert registry.read(reader) == CONTENT
        await mount.fs.files.write(writer, 10, b"written")
        assert registry.read(reader)[:20] == CONTENT[:10] + b"written" + CONTENT[17:20]
        assert await mount.read_file(b"two") == CONTENT
        await mount.close(writer)
        assert reader.content.is_staged, "it is not sealed while readers have the staged file"
        await mount.fs.group.durable()
        await mount.release(reader)
        assert await mount.read_file(b"one") == CONTENT[:10] + b"written" + CONTENT[17:]
        assert await mount.read_file(b"two") == CONTENT

    run(body)
    finish(registry)


def test_no_blob_without_bytes_when_the_last_reader_goes_while_an_emptied_file_is_persisted(
    run: Run, registry: Registry
) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"one", CONTENT)
        reader, writer = await opened(mount, b"one"), await opened(mount, b"one", write=True)
        await mount.fs.files.truncate(writer.inode, 0, writer)
        assert registry.read(reader) == b""
        inode = await persisted_while_the_reader_goes(mount, writer, reader)
        assert (inode.size, inode.blob, inode.staged) == (0, None, None)

    run(body)
    finish(registry)


def test_a_file_whose_last_reader_goes_while_it_is_persisted_is_sealed(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"one", CONTENT)
        reader, writer = await opened(mount, b"one"), await opened(mount, b"one", write=True)
        await mount.fs.files.write(writer, 0, b"new")
        inode = await persisted_while_the_reader_goes(mount, writer, reader)
        assert inode.blob is not None
        assert inode.staged is None
        assert await mount.read_file(b"one") == b"new" + CONTENT[3:]

    run(body)
    finish(registry)


def test_a_kernel_that_registers_nothing_is_not_asked_again(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        registry.broken = 1
        await mount.write_file(b"one", CONTENT)
        for _ in range(2):
            reader = await opened(mount, b"one")
            assert not reader.passthrough
            await mount.release(reader)
            registry.broken = 0

    run(body)


def test_a_writer_who_finds_no_room_for_the_copy_is_refused_and_the_readers_keep_theirs(
    run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"one", CONTENT)
        reader = await opened(mount, b"one")

        def full(_size: int, _files: int = 0) -> None:
            raise FsError(28)

        with monkeypatch.context() as patch:
            patch.setattr(mount.fs.store.filestore.space, "claim", full)
            inode = reader.inode
            writer = mount.fs.files.open(inode, True, 0)
            with pytest.raises(OSError, match="No space"):
                await mount.fs.contents.passthrough.join(writer)
            await mount.release(writer)
        assert registry.read(reader) == CONTENT
        await mount.release(reader)
        assert await mount.read_file(b"one") == CONTENT

    run(body)
    finish(registry)


def rot(mount: Mount, name: bytes) -> tuple[int, Path]:
    """Have the blob of a file taken away, as a scrub does; its id, and where its file was."""
    inode = mount.fs.tree.lookup(ROOT_INO, name)
    assert inode is not None
    assert inode.blob is not None
    digest = mount.fs.contents.sealing.digest(inode)
    assert digest is not None
    path = Path(mount.fs.store.filestore.blobs.path(digest))
    os.rename(path, path.parent.parent.parent / "quarantined")
    return inode.blob, path


def test_an_idle_backing_file_that_is_damaged_is_given_back(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        for name in (b"file", b"twin"):
            await mount.write_file(name, CONTENT)
        await mount.fs.group.durable()
        await mount.release(await opened(mount, b"file"))
        assert len(registry.files) == 1
        blob, path = rot(mount, b"file")
        names = [mount.fs.tree.lookup(ROOT_INO, name) for name in (b"file", b"twin")]
        passthrough = mount.fs.contents.passthrough
        assert await passthrough.invalidate({blob}) == sorted(inode.ino for inode in names if inode)
        assert registry.files == {}
        for name in (b"file", b"twin"):
            with pytest.raises(OSError, match="missing from the filestore"):
                await opened(mount, name)
        os.rename(path.parent.parent.parent / "quarantined", path)
        await mount.release(await opened(mount, b"twin"))
        await mount.write_file(b"good", CONTENT[1:])
        await mount.fs.group.durable()
        good = await opened(mount, b"good")
        assert good.passthrough, "one bad blob is no reason to pass nothing through"
        await mount.release(good)

    run(body)
    finish(registry)


def test_a_damaged_backing_file_in_use_is_given_to_nobody_else(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        reader = await opened(mount, b"file")
        blob, path = rot(mount, b"file")
        await mount.fs.contents.passthrough.invalidate({blob})
        for write in (False, True):
            with pytest.raises(OSError, match="is damaged"):
                await opened(mount, b"file", write=write)
            reader.content.handles -= 1
            reader.content.writers -= write
        os.rename(path.parent.parent.parent / "quarantined", path)
        await mount.release(reader)
        assert registry.files == {}
        reader = await opened(mount, b"file")
        assert registry.read(reader) == CONTENT
        await mount.release(reader)

    run(body)
    finish(registry)


@pytest.mark.parametrize("taken", [False, True], ids=["the file", "its copy"])
def test_a_copy_of_a_blob_that_was_found_to_be_damaged_meanwhile_does_not_take_its_place(
    run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """A scrub, in another process, takes the file away, or already the copy, while a writer gets it."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        reader = await opened(mount, b"file")
        filestore = mount.fs.store.filestore
        displace = filestore.displace

        def meanwhile(digest: bytes, *args: Any) -> StagedFile:
            staged = displace(digest, *args)
            assert reader.inode.blob is not None
            mount.fs.store.namespace.damage.note(reader.inode.blob, "rotten", 1)
            if taken:
                os.unlink(filestore.blobs.path(digest))
            return staged

        monkeypatch.setattr(filestore, "displace", meanwhile)
        digest = mount.fs.contents.sealing.digest(reader.inode)
        assert digest is not None
        writer = await opened(mount, b"file", write=True)
        await mount.fs.files.write(writer, 0, b"new")
        assert not filestore.has(digest, len(CONTENT))
        await mount.close(writer)
        await mount.release(reader)
        assert await mount.read_file(b"file") == b"new" + CONTENT[3:]
        await mount.write_file(b"again", CONTENT)
        assert filestore.has(digest, len(CONTENT))

    run(body)
    finish(registry)


def test_a_damaged_blob_does_not_become_a_staged_file(run: Run, registry: Registry) -> None:
    """A truncation while a reader has it: its copy would be the blob again."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        reader = await opened(mount, b"file")
        blob, path = rot(mount, b"file")
        await mount.fs.contents.passthrough.invalidate({blob})
        with pytest.raises(OSError, match="missing from the filestore"):
            await mount.fs.files.truncate(reader.inode, 10, None)
        assert reader.inode.size == len(CONTENT)
        os.rename(path.parent.parent.parent / "quarantined", path)
        await mount.release(reader)

    run(body)
    finish(registry)


@pytest.mark.parametrize("how", ["removed", "overwritten", "truncated"])
def test_an_idle_backing_file_goes_when_its_inode_has_it_no_more(
    run: Run, registry: Registry, how: str
) -> None:
    """Else it would keep its space after the collector has removed it."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        await mount.release(await opened(mount, b"file"))
        assert len(registry.files) == 1
        if how == "removed":
            await mount.unlink(b"file")
        else:
            writer = await opened(mount, b"file", write=True)
            if how == "truncated":
                await mount.fs.files.truncate(writer.inode, 0, writer)
            else:
                await mount.fs.files.write(writer, 0, b"other")
            await mount.close(writer)
        await mount.fs.group.durable()
        assert registry.files == {}

    run(body)


def test_what_is_registered_is_given_back_when_no_more_can_be(run: Run, registry: Registry) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        for name in (b"used", b"idle", b"refused"):
            await mount.write_file(name, CONTENT + name)
        await mount.release(await opened(mount, b"idle"))
        reader = await opened(mount, b"used")
        registry.broken = errno.EMFILE
        refused = await opened(mount, b"refused")
        assert not refused.passthrough
        await mount.release(refused)
        registry.broken = 0
        refused = await opened(mount, b"refused")
        assert not refused.passthrough, "it is not tried again"
        await mount.release(refused)
        await mount.release(reader)
        for name in (b"used", b"idle"):
            await mount.unlink(name)
        assert registry.files == {}

    run(body)


def test_a_blob_with_a_name_elsewhere_is_not_lent(run: Run, registry: Registry) -> None:
    """As `cp -al` of a store makes them: what was written to the file here changed the blob there."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        inode = mount.fs.tree.lookup(ROOT_INO, b"file")
        assert inode is not None
        digest = mount.fs.contents.sealing.digest(inode)
        assert digest is not None
        there = Path(mount.fs.store.filestore.blobs.path(digest))
        elsewhere = there.parent.parent.parent.with_name("elsewhere")
        os.link(there, elsewhere)
        try:
            reader = await opened(mount, b"file")
            assert not reader.passthrough
            writer = await opened(mount, b"file", write=True)
            await mount.fs.files.write(writer, 0, b"new")
            assert elsewhere.read_bytes() == CONTENT
            for handle in (writer, reader):
                await mount.release(handle)
            await mount.fs.group.durable()
            assert elsewhere.read_bytes() == CONTENT
        finally:
            elsewhere.unlink()

    run(body)


def test_a_blob_that_gets_a_name_elsewhere_while_it_is_read_is_not_written_to(
    run: Run, registry: Registry
) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        reader = await opened(mount, b"file")
        assert reader.passthrough
        digest = mount.fs.contents.sealing.digest(reader.inode)
        assert digest is not None
        there = Path(mount.fs.store.filestore.blobs.path(digest))
        elsewhere = there.parent.parent.parent.with_name("elsewhere")
        os.link(there, elsewhere)
        try:
            writer = mount.fs.files.open(reader.inode, True, 0)
            with pytest.raises(OSError, match="outside"):
                await mount.fs.contents.passthrough.join(writer)
            assert elsewhere.read_bytes() == CONTENT
            assert blob_bytes(mount, reader.inode) == CONTENT
            for handle in (writer, reader):
                await mount.release(handle)
        finally:
            elsewhere.unlink()

    run(body)
    finish(registry)


# Mappings that outlive their handles


def below(mount: Mount, content: Content) -> str:
    """The staged file of content that is lent."""
    assert content.staged is not None
    assert content.staged.is_lent
    return mount.fs.store.filestore.staging.path(content.staged.name)


def mapped(path: str, *, write: bool = True) -> mmap.mmap:
    """As the kernel maps a backing file: the descriptor is gone, the mapping lives."""
    fd = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    try:
        return mmap.mmap(fd, 4096, prot=mmap.PROT_READ | (mmap.PROT_WRITE if write else 0))
    finally:
        os.close(fd)


async def outlived(mount: Mount) -> tuple[Inode, mmap.mmap]:
    """A file whose handles are gone, and that a program may still write to by a mapping."""
    await mount.write_file(b"file", CONTENT)
    reader, writer = await opened(mount, b"file"), await opened(mount, b"file", write=True)
    mapping = mapped(below(mount, writer.content))
    await mount.close(writer)
    await mount.release(reader)
    await mount.fs.group.durable()
    return writer.inode, mapping


async def rest(mount: Mount, inode: Inode) -> None:
    mount.fs.contents.settling.rest(inode)
    await mount.fs.contents.settling.seal_resting()


def test_what_a_mapping_may_still_write_to_does_not_become_a_blob(run: Run, registry: Registry) -> None:
    """Whoever stored through it changed the file of everybody with the same content."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        inode, mapping = await outlived(mount)
        await mount.write_file(b"copy of another user", CONTENT)
        await rest(mount, inode)
        assert inode.staged is not None
        assert len(registry.files) == 1, "it stays the backing file of whoever opens it"
        lent = inode.staged
        mapping[0:3] = b"new"
        reader = await opened(mount, b"file")
        assert reader.passthrough
        assert registry.read(reader) == b"new" + CONTENT[3:]
        await mount.release(reader)
        assert await mount.read_file(b"copy of another user") == CONTENT
        mapping.close()
        await rest(mount, inode)
        await mount.fs.group.durable()
        assert (inode.staged, registry.files) == (None, {})
        assert await mount.read_file(b"file") == b"new" + CONTENT[3:]
        assert lent not in mount.fs.store.filestore.staging.names()

    run(body)


def test_a_blob_has_never_been_the_file_that_was_mapped(run: Run, registry: Registry) -> None:
    """Pages that a program has pinned may be written to after its mapping has gone."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        inode, mapping = await outlived(mount)
        mapping[0:3] = b"new"
        lent = os.stat(below(mount, content_of(inode))).st_ino
        mapping.close()
        await rest(mount, inode)
        digest = mount.fs.contents.sealing.digest(inode)
        assert digest is not None
        assert os.stat(mount.fs.store.filestore.blobs.path(digest)).st_ino != lent

    run(body)


def blob_bytes(mount: Mount, inode: Inode) -> bytes:
    digest = mount.fs.contents.sealing.digest(inode)
    assert digest is not None
    return Path(mount.fs.store.filestore.blobs.path(digest)).read_bytes()


def content_of(inode: Inode) -> Content:
    assert inode.content is not None
    return inode.content


def test_where_leases_say_nothing_what_is_lent_stays_staged_until_the_end(
    run: Run, registry: Registry
) -> None:
    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        mount.fs.kernel.trusts_leases = False
        inode, mapping = await outlived(mount)
        mapping.close()
        await rest(mount, inode)
        assert inode.staged is not None
        assert await mount.fs.contents.settling.settle_all() == []
        assert (inode.staged, registry.files) == (None, {})

    run(body)


def test_a_mapping_of_an_earlier_mount_is_seen_by_the_readers_of_the_next(
    store_path: Path, scratch: Path, registry: Registry
) -> None:
    """The mapping holds the file below, and outlives the daemon, too."""
    held: list[mmap.mmap] = []

    async def before() -> None:
        async with mounted(store_path) as mount:
            mount.fs.kernel.backings = registry
            inode, mapping = await outlived(mount)
            held.append(mapping)
            assert inode.staged is not None

    async def after() -> None:
        async with mounted(store_path) as mount:
            mount.fs.kernel.backings = again = Registry()
            held[0][0:3] = b"new"
            reader = await opened(mount, b"file")
            assert reader.passthrough
            assert again.read(reader) == b"new" + CONTENT[3:]
            await mount.release(reader)
            held.pop().close()
            await rest(mount, reader.inode)
            assert (reader.inode.staged, again.files) == (None, {})
            assert await mount.read_file(b"file") == b"new" + CONTENT[3:]

    trio.run(before)
    trio.run(after)
    finish(registry)


def test_who_has_a_blob_mapped_does_not_see_what_another_file_becomes(run: Run, registry: Registry) -> None:
    """The blob's file became the staged file of the other one."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        for name in (b"one", b"two"):
            await mount.write_file(name, CONTENT)
        reader = await opened(mount, b"one")
        digest = mount.fs.contents.sealing.digest(reader.inode)
        assert digest is not None
        mapping = mapped(mount.fs.store.filestore.blobs.path(digest), write=False)
        await mount.release(reader)
        other = await opened(mount, b"two")
        assert not other.passthrough
        writer = await opened(mount, b"two", write=True)
        await mount.fs.files.write(writer, 0, b"another content")
        assert mapping[:15] == CONTENT[:15]
        mapping.close()
        for handle in (other, writer):
            await mount.release(handle)

    run(body)
    finish(registry)


@pytest.mark.parametrize("call", ["link", "rename", "fsync_path"])
def test_a_blob_whose_file_cannot_be_lent_keeps_its_bytes(run: Run, registry: Registry, call: str) -> None:
    """What failed after the copy had taken the place of the blob emptied it."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        await mount.write_file(b"file", CONTENT)
        await mount.fs.group.durable()
        reader = await opened(mount, b"file")
        before = mount.seam.before

        def fail(number: int, name: str) -> None:
            if name == call:
                raise OSError(errno.EIO, "the disk does not answer")

        mount.seam.before = fail
        writer = mount.fs.files.open(reader.inode, True, 0)
        with pytest.raises(OSError, match="does not answer"):
            await mount.fs.contents.passthrough.join(writer)
        mount.seam.before = before
        assert blob_bytes(mount, reader.inode) == CONTENT
        assert not [name for name in mount.fs.store.filestore.staging.names() if name.endswith("-lent")]
        for handle in (writer, reader):
            await mount.release(handle)
        mount.fs.group.failed = 0  # or it could not be stopped

    run(body)
    finish(registry)


def test_a_file_that_is_emptied_by_an_open_for_reading_is_empty(run: Run, registry: Registry) -> None:
    """open(O_RDONLY | O_TRUNC) of a file that is passed through failed each commit from then on."""

    async def body(mount: Mount) -> None:
        mount.fs.kernel.backings = registry
        verbs = Verbs(mount.fs, durable_each=False, relieve=no_room)
        await mount.write_file(b"file", CONTENT)
        inode = mount.fs.tree.lookup(ROOT_INO, b"file")
        assert inode is not None
        for readers in (0, 1):
            held = [await verbs.open(inode.ino, os.O_RDONLY, 0) for _ in range(readers)]
            emptied = await verbs.open(inode.ino, os.O_RDONLY | os.O_TRUNC, 0)
            assert inode.size == 0
            for reader in held:
                assert registry.read(reader) == b""
            for handle in (*held, emptied):
                await mount.release(handle)
            await mount.fs.group.durable()
            assert await mount.read_file(b"file") == b""
            writer = mount.open(inode)
            await mount.fs.files.write(writer, 0, CONTENT)
            await mount.close(writer)
            await mount.fs.contents.settling.seal_closed(inode)

    run(body)
