"""Further digests of contents: what is kept is what the bytes say, whichever way a file came to them."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest
import trio
import trio.testing
from blake3 import blake3

from casfs.filestore.hashing import ALGORITHMS, hash_all, other_digests
from casfs.fs.content import digests
from casfs.fs.content.content import Handle
from casfs.fs.content.prefix import PrefixHash, _Lane
from casfs.fs.scheduler import run_inline
from casfs.namespace.digests import DigestRow
from casfs.repositories.rules import Rules
from casfs.store import create_store
from casfs.types import ROOT_INO
from tests.fs.mount import Gate, Mount, Run
from tests.invariants import assert_clean
from tests.limits import set_limits
from tests.repositories.making import make_repository
from tests.session import Session

ALL = tuple(ALGORITHMS)

OPERATIONS = ("write", "write", "unlink", "rename", "link", "append", "reopen", "crash", "rest")


def want(session: Session, *algorithms: str) -> None:
    """Let every content get these from now on."""
    run_inline(session.fs.group.begin())
    session.fs.contents.digesting.set_wanted(algorithms)
    run_inline(session.fs.group.durable())


def asked(session: Session, name: str, algorithm: str) -> bytes | None:
    inode = session.kernel.inode(name)
    run_inline(session.fs.contents.settling.seal_closed(inode))
    return run_inline(session.fs.contents.digesting.value(inode, algorithm))


def exists(session: Session, name: str) -> bool:
    return name.encode() in session.kernel.names()


def rows(session: Session) -> dict[tuple[bytes, str], bytes]:
    """What the table says: (content's own digest, algorithm) -> value."""
    namespace = session.store.namespace
    return {
        (blob.blake3, name): value
        for blob in namespace.blobs.all()
        for name, value in namespace.digests.of(blob.id).items()
    }


def expected(*contents: bytes, algorithms: tuple[str, ...] = ALL) -> dict[tuple[bytes, str], bytes]:
    return {
        (blake3(content).digest(), name): value
        for content in contents
        for name, value in other_digests(content, algorithms).items()
    }


@pytest.mark.parametrize("size", [1, 4096, 100_000, 200_000, 300_000, 3 << 20])
def test_a_content_has_them_when_it_is_sealed(session: Session, size: int) -> None:
    content = random.Random(size).randbytes(size)
    want(session, *ALL)
    session.kernel.write_file("file", content)
    for algorithm in ALL:
        assert asked(session, "file", algorithm) == other_digests(content, [algorithm])[algorithm]
    session.reopen()
    assert rows(session) == expected(content)
    session.stop()
    assert_clean(session.path)


def test_writers_that_are_followed_have_the_right_digests(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits(monkeypatch, INLINE_HASH=1 << 18, FOLLOW_STEP=1 << 20, PIECE=1 << 18, OTHERS_BEHIND=1 << 20)
    pieces = [bytes([number]) * (1 << 20) for number in range(1, 9)]

    async def body(mount: Mount) -> None:
        await mount.fs.group.begin()
        mount.fs.contents.digesting.set_wanted(ALL)
        handle = mount.open(await mount.make(b"file"))
        for number, piece in enumerate(pieces):
            await mount.fs.files.write(handle, number << 20, piece)
        again = mount.open(await mount.make(b"again"))
        for number, piece in enumerate(pieces):
            await mount.fs.files.write(again, number << 20, piece)
        await mount.fs.files.write(again, 5, b"new")
        await mount.close(handle)
        await mount.close(again)
        other = bytearray(b"".join(pieces))
        other[5:8] = b"new"
        for file, content in ((handle, b"".join(pieces)), (again, bytes(other))):
            values = other_digests(content, ALL)
            for name in ALL:
                assert await mount.fs.contents.digesting.value(file.inode, name) == values[name]

    run(body)


def test_who_asks_for_a_digest_of_a_large_file_keeps_nobody_else_waiting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, LARGE=1 << 20)
    contents = {b"large": bytes(2 << 20), b"small": b"small"}

    async def body(mount: Mount) -> None:
        gate = Gate()

        def hash_slowly(fd: int, size: int, algorithms: list[str]) -> object:
            if size > 1 << 20:
                gate()
            return hash_all(fd, size, algorithms)

        monkeypatch.setattr(digests, "hash_all", hash_slowly)

        async def ask(name: bytes) -> None:
            inode = mount.fs.inodes.get(mount.fs.store.namespace.dentries.find(ROOT_INO, name) or 0)
            await mount.fs.contents.settling.seal_closed(inode)
            value = await mount.fs.contents.digesting.value(inode, "sha1", wanted=True)
            assert value == other_digests(contents[name], ["sha1"])["sha1"]

        for name, content in contents.items():
            await mount.write_file(name, content)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, b"large")
            await gate.arrived()
            with trio.fail_after(10):
                await ask(b"small")
            gate.open()

    run(body)


def test_what_is_there_already_gets_what_it_lacks_when_it_comes_again(session: Session) -> None:
    session.kernel.write_file("old", b"content")
    session.rest()
    want(session, "sha256")
    assert rows(session) == {}
    session.kernel.write_file("again", b"content")
    session.rest()
    assert rows(session) == expected(b"content", algorithms=("sha256",))


def test_what_lacks_a_digest_gets_it_when_it_is_asked_for(session: Session) -> None:
    session.kernel.write_file("old", b"content")
    session.rest()
    assert asked(session, "old", "md5") is None  # nobody wants it
    want(session, "md5")
    assert asked(session, "old", "md5") == other_digests(b"content", ["md5"])["md5"]
    session.reopen()
    assert rows(session) == expected(b"content", algorithms=("md5",))


def test_an_empty_file_has_digests_without_rows(session: Session) -> None:
    session.kernel.write_file("empty", b"")
    assert asked(session, "empty", "sha1") == other_digests(b"", ["sha1"])["sha1"]
    session.rest()
    assert rows(session) == {}


def test_damaged_content_gets_no_digest_of_wrong_bytes(session: Session) -> None:
    session.kernel.write_file("file", b"content")
    session.rest()
    path = next((session.path / "blobs").glob("*/*"))
    path.chmod(0o600)
    path.write_bytes(b"CONTENT")
    want(session, "sha256")
    with pytest.raises(OSError, match="damaged"):
        asked(session, "file", "sha256")
    session.rest()
    assert rows(session) == {}
    blob = session.store.namespace.blobs.find(blake3(b"content").digest())
    assert blob is not None
    assert session.store.namespace.damage.is_known(blob)
    path.write_bytes(b"content")
    path.chmod(0o400)
    run_inline(session.fs.group.begin())
    session.store.namespace.damage.clear(blob)


def test_a_content_that_goes_before_the_commit_leaves_no_digest(session: Session) -> None:
    want(session, "sha256")
    session.kernel.write_file("file", b"content")
    run_inline(session.fs.contents.settling.seal_closed(session.kernel.inode("file")))
    session.kernel.unlink("file")
    session.rest()
    assert rows(session) == {}
    assert session.store.namespace.digests.lacking("sha256", 0, 10) == []


def test_a_repository_asks_for_further_ones(session: Session) -> None:
    make_repository(session, "libs", with_rules=Rules(digests=("sha1",)))
    want(session, "sha256")
    session.kernel.write_file("libs/a", b"a")
    session.kernel.mkdir("other")
    session.kernel.write_file("other/b", b"b")
    session.rest()
    assert rows(session) == expected(b"a", algorithms=("sha1", "sha256")) | expected(
        b"b", algorithms=("sha256",)
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_table_is_what_a_scan_of_the_files_says(scratch: Path, seed: int) -> None:
    """After random operations, remounts and crashes."""
    create_store(str(scratch / "random"), fan_out=1)
    session = Session(scratch / "random")
    choose = random.Random(seed)
    want(session, "sha256", "md5")
    contents = [choose.randbytes(choose.choice((3, 5000, 70_000, 300_000))) for _ in range(6)]
    crashes = 0
    for _ in range(60):
        kernel = session.kernel
        name, other = choose.choice("abcdef"), choose.choice("abcdef")
        there = {entry for entry in "abcdef" if exists(session, entry)}
        match choose.choice(OPERATIONS):
            case "write":
                kernel.write_file(name, choose.choice(contents))
            case "append" if name in there:
                with kernel.open(name, os.O_WRONLY | os.O_APPEND) as file:
                    file.write(b"more")
            case "unlink" if name in there:
                kernel.unlink(name)
            case "rename" if name in there:
                kernel.rename(name, other)
            case "link" if name in there and other not in there:
                kernel.link(name, other)
            case "reopen":
                session.reopen()
            case "crash" if crashes < 3:
                crashes += 1
                session.crash(scratch / f"crash{crashes}")
            case "rest":
                session.rest()
    session.rest()
    session.reopen()
    scanned = [session.kernel.read_file(name) for name in "abcdef" if exists(session, name)]
    wanted = expected(*filter(None, scanned), algorithms=("sha256", "md5"))
    found = rows(session)
    assert wanted.items() <= found.items()
    for blob in session.store.namespace.blobs.all():  # orphans have theirs, too
        with open(session.store.filestore.blobs.path(blob.blake3), "rb") as file:
            content = file.read()
        assert session.store.namespace.digests.of(blob.id) == other_digests(content, ("sha256", "md5"))
    session.stop()
    assert_clean(session.path, strays=True)


def test_a_row_for_a_blob_that_is_not_there_is_not_written(session: Session) -> None:
    run_inline(session.fs.group.begin())
    session.fs.contents.digesting.note(4711, {"md5": bytes(16)})
    run_inline(session.fs.group.durable())
    assert session.store.namespace.digests.find("md5", bytes(16), bytes(16)) == []
    assert DigestRow(4711, "md5", bytes(16)) not in session.store.namespace.digests.find(
        "md5", bytes(16), b"\xff" * 16
    )


# Digests that take longer than BLAKE3's

PIECES = [bytes([number]) * (1 << 20) for number in range(1, 9)]
WHOLE = b"".join(PIECES)


class SlowDigests:
    """Holds the jobs of further digests before they read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_limits(
            monkeypatch, INLINE_HASH=1 << 18, FOLLOW_STEP=1 << 20, PIECE=1 << 18, OTHERS_BEHIND=1 << 20
        )
        self.gate = Gate()
        feed = _Lane.feed

        def held(lane: _Lane, fd: int, prefix: PrefixHash) -> None:
            if lane is not prefix._blake3:
                self.gate()
            feed(lane, fd, prefix)

        monkeypatch.setattr(_Lane, "feed", held)


async def write_followed(mount: Mount, name: bytes) -> Handle:
    await mount.fs.group.begin()
    mount.fs.contents.digesting.set_wanted(["sha256", "md5"])
    handle = mount.open(await mount.make(name))
    for number, piece in enumerate(PIECES):
        await mount.fs.files.write(handle, number << 20, piece)
    return handle


def test_close_does_not_wait_for_further_digests_and_who_asks_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowDigests(monkeypatch)
        handle = await write_followed(mount, b"file")
        await mount.close(handle)
        await mount.fs.group.durable()
        digesting = mount.fs.contents.digesting
        assert handle.inode.blob is not None
        assert digesting.known(handle.inode.blob) == {}
        found: dict[str, bytes | None] = {}

        async def ask(algorithm: str) -> None:
            found[algorithm] = await digesting.value(handle.inode, algorithm)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "sha256")
            nursery.start_soon(ask, "md5")
            await slow.gate.arrived()
            slow.gate.open()
        assert found == other_digests(WHOLE, ("sha256", "md5"))
        await mount.fs.group.begin()
        await mount.fs.group.durable()
        assert mount.fs.store.namespace.digests.of(handle.inode.blob) == found

    run(body)


def test_what_was_just_closed_is_found_by_a_digest_that_takes_long(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there until the jobs had ended."""

    async def body(mount: Mount) -> None:
        slow = SlowDigests(monkeypatch)
        await mount.close(await write_followed(mount, b"file"))
        md5 = hashlib.md5(WHOLE).hexdigest()
        assert mount.fs.by_digest.contents("md5", md5) == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.fs.by_digest.settled)
            await slow.gate.arrived()
            slow.gate.open()
        assert len(mount.fs.by_digest.contents("md5", md5)) == 1

    run(body)


def test_an_unmount_waits_for_further_digests(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowDigests(monkeypatch)
        await mount.close(await write_followed(mount, b"file"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.fs.contents.digesting.finished)
            await slow.gate.arrived()
            slow.gate.open()
        assert mount.fs.contents.digesting.has_noted

    run(body)


def test_a_writer_of_a_content_that_lacks_digests_waits_for_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its staged file goes, and is used again for another content."""

    async def body(mount: Mount) -> None:
        await mount.write_file(b"old", WHOLE)
        slow = SlowDigests(monkeypatch)
        handle = await write_followed(mount, b"file")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.close, handle)
            await slow.gate.arrived()
            await trio.testing.wait_all_tasks_blocked()
            slow.gate.open()
        await mount.write_file(b"other", b"other" * 100_000)
        assert handle.inode.blob is not None
        assert mount.fs.contents.digesting.known(handle.inode.blob) == other_digests(WHOLE, ("sha256", "md5"))

    run(body)


def test_two_writers_of_one_content_leave_its_digests_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        slow = SlowDigests(monkeypatch)
        one = await write_followed(mount, b"one")
        other = await write_followed(mount, b"other")
        await mount.close(one)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.close, other)
            await slow.gate.arrived()
            slow.gate.open()
        await mount.fs.contents.digesting.finished()
        assert one.inode.blob == other.inode.blob
        assert one.inode.blob is not None
        assert mount.fs.contents.digesting.known(one.inode.blob) == other_digests(WHOLE, ("sha256", "md5"))

    run(body)


def test_a_job_that_fails_leaves_the_digest_for_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(mount: Mount) -> None:
        set_limits(
            monkeypatch, INLINE_HASH=1 << 18, FOLLOW_STEP=1 << 20, PIECE=1 << 18, OTHERS_BEHIND=1 << 20
        )
        feed = _Lane.feed

        def failing(lane: _Lane, fd: int, prefix: PrefixHash) -> None:
            if lane is not prefix._blake3:
                lane.failed = True
                raise OSError(errno.EIO, "no")
            feed(lane, fd, prefix)

        monkeypatch.setattr(_Lane, "feed", failing)
        handle = await write_followed(mount, b"file")
        await mount.close(handle)
        await mount.fs.contents.digesting.finished()
        assert handle.inode.blob is not None
        assert mount.fs.contents.digesting.known(handle.inode.blob) == {}
        assert await mount.fs.contents.digesting.value(handle.inode, "md5") == hashlib.md5(WHOLE).digest()

    run(body)


def test_a_want_of_descriptors_for_further_digests_fails_no_close(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """close(2) failed with EMFILE, of a file that was whole."""

    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    want(session, "md5")
    content = random.Random(1).randbytes(3 << 20)
    with monkeypatch.context() as patch, session.kernel.open("file", os.O_WRONLY | os.O_CREAT) as file:
        file.write(content)
        patch.setattr(os, "dup", none_left)
        file.flush()
    session.rest()
    assert rows(session) == {}
    assert asked(session, "file", "md5") == hashlib.md5(content).digest()
