"""Publishing, opening, syncing and enumerating blobs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from blake3 import blake3

from casfs.filestore import claims
from casfs.filestore import filestore as module
from casfs.filestore.filestore import FileStore, copy_range
from casfs.filestore.hashing import hash_bytes
from casfs.filestore.staging import StagedFile
from tests.faults import FaultyDurable

CONTENT = b"content " * 100
DIGEST = blake3(CONTENT).digest()


@pytest.fixture
def seam() -> FaultyDurable:
    return FaultyDurable()


@pytest.fixture
def filestore(scratch: Path, seam: FaultyDurable) -> Iterator[FileStore]:
    filestore = FileStore(str(scratch), 1, seam)
    filestore.create()
    seam.calls.clear()
    yield filestore
    filestore.staging.close()
    assert filestore.staging.names() == []


def stage(filestore: FileStore, content: bytes) -> StagedFile:
    staged = filestore.staging.create()
    os.pwrite(staged.fd, content, 0)
    return staged


def read(filestore: FileStore, digest: bytes) -> bytes:
    fd = filestore.open(digest)
    try:
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def test_published_bytes(filestore: FileStore) -> None:
    assert not filestore.has(DIGEST, len(CONTENT))
    filestore.publish_bytes(DIGEST, CONTENT)
    assert filestore.has(DIGEST, len(CONTENT))
    assert not filestore.has(DIGEST, len(CONTENT) + 1)
    assert read(filestore, DIGEST) == CONTENT
    assert os.stat(filestore.paths.blob(DIGEST)).st_mode & 0o777 == 0o400
    assert filestore.staging.names() == []


def test_the_torn_rest_of_a_power_loss_is_replaced(filestore: FileStore) -> None:
    for keep_name in (None, False, True):
        path = Path(filestore.paths.blob(DIGEST))
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(len(CONTENT)))
        if keep_name is None:
            filestore.publish_bytes(DIGEST, CONTENT)
        else:
            staged = stage(filestore, CONTENT)
            filestore.publish_staged(DIGEST, staged, keep_name=keep_name)
            filestore.staging.remove(staged.name)
        assert read(filestore, DIGEST) == CONTENT


@pytest.mark.parametrize("keep_name", [False, True])
def test_a_staged_file_becomes_a_blob(filestore: FileStore, keep_name: bool) -> None:
    staged = stage(filestore, CONTENT)
    filestore.publish_staged(DIGEST, staged, keep_name=keep_name)
    assert read(filestore, DIGEST) == CONTENT
    assert os.stat(filestore.paths.blob(DIGEST)).st_mode & 0o777 == 0o400
    assert filestore.staging.names() == ([staged.name] if keep_name else [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(staged.fd)
    filestore.staging.remove(staged.name)
    assert os.stat(filestore.paths.blob(DIGEST)).st_nlink == 1


@pytest.mark.parametrize("call", ["create", "write_whole"])
def test_bytes_that_cannot_be_published_leave_nothing(
    filestore: FileStore, seam: FaultyDurable, call: str
) -> None:
    def full(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.ENOSPC, "full")

    seam.before = full
    with pytest.raises(OSError, match="full"):
        filestore.publish_bytes(DIGEST, CONTENT)
    assert filestore.staging.names() == []
    assert list(filestore.enumerate()) == []


# Pending


def accept(filestore: FileStore, count: int) -> dict[bytes, bytes]:
    """So many pending blobs."""
    contents = [b"content %d" % number for number in range(count)]
    blobs = {bytes(hash_bytes(content)): content for content in contents}
    for digest, content in blobs.items():
        filestore.accept(digest, content)
    return blobs


def test_an_accepted_blob_is_there_before_its_file(filestore: FileStore, seam: FaultyDurable) -> None:
    filestore.accept(DIGEST, bytearray(CONTENT))
    assert filestore.has(DIGEST, len(CONTENT))
    assert not filestore.has(DIGEST, len(CONTENT) + 1)
    assert filestore.is_pending(DIGEST)
    assert seam.calls == []
    assert read(filestore, DIGEST) == CONTENT
    assert os.stat(filestore.paths.blob(DIGEST)).st_mode & 0o777 == 0o400
    assert not filestore.is_pending(DIGEST)
    assert filestore.has(DIGEST, len(CONTENT))
    filestore.write_pending([DIGEST])
    assert seam.calls == ["create", "write_whole"]


def test_pending_blobs_are_written_in_batches(
    filestore: FileStore, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is given back while the rest is written."""
    monkeypatch.setattr(module, "WRITE_BATCH", 3)
    blobs = accept(filestore, 8)
    left: list[int] = []
    seam.before = lambda number, name: left.append(sum(map(filestore.is_pending, blobs)))
    filestore.write_pending(list(blobs))
    assert left[::2] == [8, 8, 8, 5, 5, 5, 2, 2]
    assert {digest: read(filestore, digest) for digest in blobs} == blobs


def test_a_pending_blob_replaces_the_torn_rest_of_a_power_loss(filestore: FileStore) -> None:
    Path(filestore.paths.blob(DIGEST)).write_bytes(bytes(len(CONTENT)))
    filestore.accept(DIGEST, CONTENT)
    filestore.write_pending([DIGEST])
    assert read(filestore, DIGEST) == CONTENT


@pytest.mark.parametrize("call", ["create", "write_whole"])
def test_what_could_not_be_written_is_pending_as_before(
    filestore: FileStore, seam: FaultyDurable, call: str
) -> None:
    blobs = accept(filestore, 5)

    def full(_: int, name: str) -> None:
        if name == call and seam.calls.count(call) == 4:
            raise OSError(errno.ENOSPC, "full")

    seam.before = full
    with pytest.raises(OSError, match="full"):
        filestore.write_pending(list(blobs))
    seam.before = lambda number, name: None
    assert len(list(filestore.enumerate())) == 3
    filestore.write_pending(list(blobs))
    assert {digest: read(filestore, digest) for digest in blobs} == blobs
    assert not any(map(filestore.is_pending, blobs))


def test_a_forgotten_blob_is_not_written(filestore: FileStore) -> None:
    filestore.accept(DIGEST, CONTENT)
    filestore.forget(DIGEST)
    assert not filestore.has(DIGEST, len(CONTENT))
    filestore.write_pending([DIGEST])
    assert list(filestore.enumerate()) == []


def test_a_staged_file_takes_the_place_of_a_pending_blob(filestore: FileStore, seam: FaultyDurable) -> None:
    filestore.accept(DIGEST, CONTENT)
    filestore.publish_staged(DIGEST, stage(filestore, CONTENT), keep_name=False)
    assert not filestore.is_pending(DIGEST)
    assert read(filestore, DIGEST) == CONTENT
    assert seam.calls == ["create", "rename"]


def test_a_reader_waits_for_the_thread_that_writes_the_blob(
    filestore: FileStore, seam: FaultyDurable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not replace a file that is half written, nor read one."""
    blobs = list(accept(filestore, 2))
    writing, waiting, go_on = threading.Event(), threading.Event(), threading.Event()
    wait = filestore._written.wait

    def hold(_: int, name: str) -> None:
        if name == "write_whole" and not writing.is_set():
            writing.set()
            assert go_on.wait(30)

    def waits(timeout: float | None = None) -> bool:
        waiting.set()
        return wait(timeout)

    seam.before = hold
    monkeypatch.setattr(filestore._written, "wait", waits)
    with ThreadPoolExecutor() as threads:
        writer = threads.submit(filestore.write_pending, blobs)
        assert writing.wait(30)
        reader = threads.submit(read, filestore, blobs[0])
        assert waiting.wait(30)
        filestore.accept(DIGEST, CONTENT)
        assert read(filestore, DIGEST) == CONTENT, "another blob has to wait"
        go_on.set()
        writer.result(30)
        assert reader.result(30) == b"content 0"
    assert seam.calls.count("create") == 3


def test_blobs_are_many_by_their_number_or_their_bytes(
    filestore: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = list(accept(filestore, 4))
    assert not filestore.pending_are_many
    for limit, value in (("PENDING_COUNT", 4), ("PENDING_LIMIT", 4 * 4096)):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            assert filestore.pending_are_many
    monkeypatch.setattr(module, "PENDING_COUNT", 4)
    filestore.forget(blobs[0])
    assert not filestore.pending_are_many


def test_a_missing_blob_is_an_io_error(filestore: FileStore) -> None:
    """A row said it is there, so the program must not be told ENOENT."""
    with pytest.raises(OSError, match=DIGEST.hex()) as raised:
        filestore.open(DIGEST)
    assert raised.value.errno == errno.EIO


def test_each_blob_and_each_shard_is_synced(filestore: FileStore, seam: FaultyDurable) -> None:
    contents = [bytes([number]) for number in range(5)]
    digests = [bytes(hash_bytes(content)) for content in contents]
    for digest, content in zip(digests, contents, strict=True):
        filestore.publish_bytes(digest, content)
    synced: list[str] = []
    seam.fsync_path = synced.append  # type: ignore[method-assign]
    filestore.sync_each(digests)
    assert set(synced) == {filestore.paths.blob(digest) for digest in digests} | {
        filestore.paths.shard(digest) for digest in digests
    }
    assert synced.index(filestore.paths.shard(digests[0])) > synced.index(filestore.paths.blob(digests[0]))


def test_many_blobs_are_synced_by_one_call(filestore: FileStore, seam: FaultyDurable) -> None:
    filestore.publish_bytes(DIGEST, CONTENT)
    seam.calls.clear()
    filestore.sync_all()
    assert seam.calls == ["syncfs"]


@pytest.mark.parametrize("length", [0, 1, 100, len(CONTENT)])
def test_copying_the_start_of_a_blob(filestore: FileStore, length: int) -> None:
    filestore.publish_bytes(DIGEST, CONTENT)
    staged = filestore.staging.create()
    filestore.copy_to(DIGEST, staged, length)
    assert os.pread(staged.fd, 1 << 20, 0) == CONTENT[:length]
    filestore.staging.drop(staged)


def test_copying_more_than_there_is_ends_with_an_error(filestore: FileStore, scratch: Path) -> None:
    filestore.publish_bytes(DIGEST, CONTENT)
    staged = filestore.staging.create()
    with pytest.raises(OSError, match="800 of 900") as raised:
        filestore.copy_to(DIGEST, staged, 900)
    assert raised.value.errno == errno.EIO
    filestore.staging.drop(staged)


def test_enumerate_tells_blobs_from_other_files(filestore: FileStore) -> None:
    filestore.publish_bytes(DIGEST, CONTENT)
    stranger = Path(filestore.paths.root) / "0" / "stranger"
    stranger.write_bytes(b"??")
    misplaced = Path(filestore.paths.root) / ("1" if DIGEST.hex()[0] != "1" else "2") / DIGEST.hex()
    misplaced.write_bytes(b"")
    found = {(file.path, file.digest, file.size) for file in filestore.enumerate()}
    assert found == {
        (filestore.paths.blob(DIGEST), DIGEST, len(CONTENT)),
        (str(stranger), None, 2),
        (str(misplaced), None, 0),
    }


def test_enumerate_passes_over_a_missing_shard(filestore: FileStore) -> None:
    filestore.publish_bytes(DIGEST, CONTENT)
    empty = next(shard for shard in filestore.paths.shards() if shard != filestore.paths.shard(DIGEST))
    os.rmdir(empty)
    assert [file.digest for file in filestore.enumerate()] == [DIGEST]


# Room


class Disk:
    """statvfs(3) of a disk with so many free bytes, and inodes."""

    def __init__(self, total: int, free: int) -> None:
        self.total, self.free, self.asked = total, free, 0
        self.files, self.free_files = 1_000_000, 500_000

    def __call__(self, _: str) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(
            f_frsize=1,
            f_blocks=self.total,
            f_bfree=self.free,
            f_bavail=self.free,
            f_files=self.files,
            f_favail=self.free_files,
        )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(100 << 30, 50 << 30)
    monkeypatch.setattr(claims, "os", SimpleNamespace(**{**vars(os), "statvfs": disk}))
    return disk


def test_claims_look_at_the_disk_now_and_then(filestore: FileStore, disk: Disk) -> None:
    for _ in range(1000):
        filestore.claim(4096)
    assert disk.asked == 1
    filestore.claim(100 << 20)
    assert disk.asked == 2


def test_a_claim_on_a_full_disk_is_refused_and_granted_when_there_is_room(
    filestore: FileStore, disk: Disk
) -> None:
    disk.free = 10 << 20
    for _ in range(2):
        with pytest.raises(OSError, match="full") as raised:
            filestore.claim(4096)
        assert raised.value.errno == errno.ENOSPC
    disk.free = 100 << 20
    filestore.claim(4096)


def test_a_file_that_is_made_later_is_refused_when_others_have_filled_the_disk(
    filestore: FileStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its close was told that all is well, on the ground of a look at the disk long before."""
    monkeypatch.setattr(claims, "CLAIM_SECONDS", -1.0)
    filestore.claim(4096)
    disk.free = 10 << 20
    filestore.claim(4096)
    with pytest.raises(OSError, match="full"):
        filestore.promise(4096)


def test_what_was_promised_may_be_written_when_the_log_has_grown(
    filestore: FileStore, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of what was closed long ago had no room, beside half of a reserve that the log had not taken."""
    monkeypatch.setattr(claims, "CLAIM_SECONDS", -1.0)
    disk.free = claims.RESERVE + 8192
    filestore.promise(8192, 1)
    disk.free -= claims.RESERVE // 3
    filestore.promise(0)
    with pytest.raises(OSError, match="full"):
        filestore.promise(4096, 1)
    disk.free = claims.RESERVE // 3
    with pytest.raises(OSError, match="full"):
        filestore.promise(0)


def test_some_room_is_always_kept_for_the_log(filestore: FileStore, disk: Disk) -> None:
    disk.free = 20 << 20
    filestore.claim(1 << 20)
    with pytest.raises(OSError, match="full"):
        filestore.claim(10 << 20)


def test_inodes_run_out_before_close(filestore: FileStore, disk: Disk) -> None:
    """1,500 small files were accepted, closed without an error, and lost."""
    disk.free_files = claims.FILE_RESERVE + 100
    for _ in range(100):
        filestore.promise(4096, 1)
    with pytest.raises(OSError, match="no inodes left") as raised:
        filestore.promise(4096, 1)
    assert raised.value.errno == errno.ENOSPC
    filestore.promise(-4096, -1)
    filestore.promise(4096, 1)


def test_what_is_accepted_keeps_its_inode(filestore: FileStore, disk: Disk) -> None:
    disk.free_files = claims.FILE_RESERVE + 1
    filestore.accept(DIGEST, CONTENT)
    with pytest.raises(OSError, match="no inodes left"):
        filestore.claim(4096, 1)
    filestore.claim(4096)


def test_a_file_system_that_makes_inodes_as_it_needs_them_has_enough(
    filestore: FileStore, disk: Disk
) -> None:
    disk.files = disk.free_files = 0
    filestore.promise(4096, 1)


def test_a_write_takes_what_is_left(filestore: FileStore, disk: Disk) -> None:
    disk.free = claims.RESERVE + 10_000
    assert filestore.claim_some(100_000) == 8192
    disk.free = claims.RESERVE + 1_000
    with pytest.raises(OSError, match="full"):
        filestore.claim_some(100_000)
    assert filestore.refused == 100_000


def test_a_small_disk_keeps_less(scratch: Path, disk: Disk) -> None:
    disk.total, disk.free = 32 << 20, 2 << 20
    FileStore(str(scratch), 1).claim(512 << 10)


def test_rows_that_wait_for_their_commit_count_against_new_data(filestore: FileStore, disk: Disk) -> None:
    disk.free = 30 << 20
    filestore.claim_rows(8 << 20)
    with pytest.raises(OSError, match="full"):
        filestore.claim(10 << 20)
    filestore.rows_committed()
    filestore.claim(10 << 20)


def test_blobs_that_wait_for_their_file_count_against_new_data(filestore: FileStore, disk: Disk) -> None:
    disk.free = 30 << 20
    filestore.accept(DIGEST, bytes(8 << 20))
    with pytest.raises(OSError, match="full"):
        filestore.claim(10 << 20)
    filestore.forget(DIGEST)
    filestore.claim(10 << 20)


def test_many_rows_ask_for_a_commit(filestore: FileStore, disk: Disk) -> None:
    while not filestore.rows_are_many:
        filestore.claim_rows(1 << 20)
    assert disk.free > 0
    filestore.rows_committed()
    assert not filestore.rows_are_many


def test_room(filestore: FileStore, disk: Disk) -> None:
    room = filestore.room()
    assert (room.total, room.free, room.available) == (100 << 30, 50 << 30, 50 << 30)


# Copying


def test_copy_range_copies_holes_as_data(tmp_path: Path) -> None:
    with (tmp_path / "source").open("w+b") as source, (tmp_path / "target").open("w+b") as target:
        os.pwrite(source.fileno(), b"end", 1 << 20)
        copy_range(source.fileno(), target.fileno(), (1 << 20) + 3)
    assert (tmp_path / "target").read_bytes() == bytes(1 << 20) + b"end"
