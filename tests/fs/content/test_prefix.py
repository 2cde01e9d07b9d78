"""The hash that follows a writer: what it covers, and what makes it void."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import trio
import trio.testing
from blake3 import blake3

from casfs.filestore.hashing import hash_all
from casfs.fs.content import sealing
from casfs.fs.content.content import Handle
from casfs.fs.content.prefix import PrefixHash, _Lane
from casfs.syscalls import KEEP_SIZE, PUNCH_HOLE
from tests.fs.mount import Gate, Mount, Run
from tests.limits import set_limits

STEP = 1 << 20
PIECES = [bytes([number]) * STEP for number in range(1, 9)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower begins with the first MiB."""
    set_limits(monkeypatch, INLINE_HASH=STEP // 2, FOLLOW_STEP=STEP, PIECE=STEP // 4)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the files that were read whole to be hashed."""
    sizes: list[int] = []

    def counted(fd: int, size: int, algorithms: tuple[str, ...]) -> Any:
        sizes.append(size)
        return hash_all(fd, size, algorithms)

    monkeypatch.setattr(sealing, "hash_all", counted)
    return sizes


class Reads:
    """Holds the first job before it reads, or `after` it has; `error` makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
        self.gate = Gate()
        self.error: OSError | None = None
        self.ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        feed = _Lane.feed

        def held(lane: _Lane, fd: int, prefix: PrefixHash) -> None:
            try:
                if not after:
                    self.gate()
                if self.error is not None:
                    lane.failed = True
                    raise self.error
                feed(lane, fd, prefix)
                if after:
                    self.gate()
            finally:
                self._token.run_sync_soon(self.ended.set)

        monkeypatch.setattr(_Lane, "feed", held)


async def write_all(mount: Mount, handle: Handle, pieces: list[bytes], offset: int = 0) -> None:
    for piece in pieces:
        await mount.fs.files.write(handle, offset, piece)
        offset += len(piece)


def test_a_writer_from_start_to_end_is_followed(run: Run, whole: list[int]) -> None:
    async def body(mount: Mount) -> None:
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES)
        prefix = handle.content.prefix
        assert prefix is not None
        assert prefix.end >= STEP
        await mount.close(handle)
        assert mount.fs.contents.sealing.digest(handle.inode) == blake3(b"".join(PIECES)).digest()
        assert whole == []

    run(body)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("change", ["write", "truncate", "shorten and write", "allocate", "copy", "unlink"])
def test_what_changes_while_a_job_reads_it_is_hashed_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, change: str, after: bool
) -> None:
    async def body(mount: Mount) -> None:
        files = mount.fs.files
        reads = Reads(monkeypatch, after=after)
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES)
        await reads.gate.arrived()
        expected = bytearray(b"".join(PIECES))
        match change:
            case "write":
                await files.write(handle, 100, b"new")
                expected[100:103] = b"new"
            case "truncate":
                await files.truncate(handle.inode, 100, handle)
                del expected[100:]
            case "shorten and write":
                await files.truncate(handle.inode, 0, handle)
                await write_all(mount, handle, PIECES[::-1])
                expected = bytearray(b"".join(PIECES[::-1]))
            case "allocate":
                await mount.fs.contents.ranges.allocate(handle, 4096, 8192, PUNCH_HOLE | KEEP_SIZE)
                expected[4096 : 4096 + 8192] = bytes(8192)
            case "copy":
                await mount.fs.contents.ranges.copy_range(handle, 7 * STEP, handle, 0, STEP)
                expected[:STEP] = PIECES[7]
            case "unlink":
                await mount.unlink(b"file")
        reads.gate.open()
        await reads.ended.wait()
        await mount.close(handle)
        if change == "unlink":
            assert mount.fs.activity().unlinked_open == 0
            await mount.write_file(b"file", b"".join(PIECES[::-1]))
            expected = bytearray(b"".join(PIECES[::-1]))
        found = mount.fs.tree.lookup(1, b"file")
        assert found is not None
        assert mount.fs.contents.sealing.digest(found) == blake3(expected).digest()
        assert await mount.read_file(b"file") == expected

    run(body)


def test_what_is_cut_off_is_not_filled_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job would have been told to hash behind the end, and failed."""
    set_limits(monkeypatch, INLINE_HASH=0)
    prefix = PrefixHash(b"x" * 10)
    prefix.written(10, b"y" * 20)
    assert (prefix.end, prefix.filled) == (10, 30)
    prefix.cut(15)
    assert prefix.filled == 15


def test_a_change_behind_the_follower_costs_no_second_hash(
    run: Run, monkeypatch: pytest.MonkeyPatch, whole: list[int]
) -> None:
    async def body(mount: Mount) -> None:
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES[:4])
        await mount.fs.files.write(handle, 6 * STEP, PIECES[6])
        await mount.fs.files.write(handle, 6 * STEP + 5, b"again")
        await mount.close(handle)
        expected = bytearray(b"".join(PIECES[:4]) + bytes(2 * STEP) + PIECES[6])
        expected[6 * STEP + 5 : 6 * STEP + 10] = b"again"
        assert mount.fs.contents.sealing.digest(handle.inode) == blake3(expected).digest()
        assert whole == []

    run(body)


def test_a_seal_waits_for_the_job(run: Run, monkeypatch: pytest.MonkeyPatch, whole: list[int]) -> None:
    async def body(mount: Mount) -> None:
        reads = Reads(monkeypatch)
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES)
        await reads.gate.arrived()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.close, handle)
            await trio.testing.wait_all_tasks_blocked()
            assert handle.content.dirty
            reads.gate.open()
        assert mount.fs.contents.sealing.digest(handle.inode) == blake3(b"".join(PIECES)).digest()
        assert whole == []

    run(body)


def test_an_error_of_a_job_makes_the_seal_read_it_all(
    run: Run, monkeypatch: pytest.MonkeyPatch, whole: list[int]
) -> None:
    async def body(mount: Mount) -> None:
        reads = Reads(monkeypatch)
        reads.error = OSError(5, "bad sector")
        reads.gate.open()
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES)
        await mount.close(handle)
        assert mount.fs.contents.sealing.digest(handle.inode) == blake3(b"".join(PIECES)).digest()
        assert whole == [len(PIECES) * STEP]

    run(body)


def test_a_job_whose_file_is_gone_gives_its_descriptor_back(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(mount: Mount) -> None:
        reads = Reads(monkeypatch)
        handle = mount.open(await mount.make(b"file"))
        await write_all(mount, handle, PIECES)
        await reads.gate.arrived()
        prefix = handle.content.prefix
        assert prefix is not None
        before = len(os.listdir("/proc/self/fd"))
        await mount.unlink(b"file")
        await mount.close(handle)
        reads.gate.open()
        while prefix.running:
            await trio.lowlevel.checkpoint()
        assert len(os.listdir("/proc/self/fd")) == before - 1

    run(body)


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_writes_has_the_right_digest(run: Run, seed: int) -> None:
    """Mostly forward, at times back, cut or stretched; jobs run meanwhile."""

    async def body(mount: Mount) -> None:
        choose = random.Random(seed)
        files = mount.fs.files
        handle = mount.open(await mount.make(b"file"))
        expected = bytearray()
        for number in range(60):
            size = choose.choice([1, 70_000, STEP // 2, STEP])
            offset = len(expected)
            if choose.random() < 0.08:
                offset = choose.randrange(len(expected) + STEP)
            piece = bytes([number]) * size
            if choose.random() < 0.04:
                offset = choose.randrange(len(expected) + STEP)
                await files.truncate(handle.inode, offset, handle)
                del expected[offset:]
            expected.extend(bytes(max(0, offset - len(expected))))
            expected[offset : offset + size] = piece
            await files.write(handle, offset, piece)
        await mount.close(handle)
        assert mount.fs.contents.sealing.digest(handle.inode) == blake3(expected).digest()

    run(body)
