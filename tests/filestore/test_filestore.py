"""Publishing, opening, syncing and displacing blobs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.filestore.filestore import FileStore, copy_range
from casfs.filestore.hashing import hash_bytes
from casfs.filestore.staging import StagedFile
from tests.faults import FaultyDurable

CONTENT = b"content " * 100
DIGEST = blake3(CONTENT).digest()


def stage(filestore: FileStore, content: bytes) -> StagedFile:
    staged = filestore.staging.create()
    os.pwrite(staged.fd, content, 0)
    return staged


def blobs(filestore: FileStore) -> set[bytes]:
    """The digests that there is a file for."""
    return {digest for prefix in filestore.blobs.prefixes() for digest in filestore.blobs.enumerate(prefix)}


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
    assert os.stat(filestore.blobs.path(DIGEST)).st_mode & 0o777 == 0o400
    assert filestore.staging.names() == []


def test_the_torn_rest_of_a_power_loss_is_replaced(filestore: FileStore) -> None:
    for keep_name in (None, False, True):
        path = Path(filestore.blobs.path(DIGEST))
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
    assert os.stat(filestore.blobs.path(DIGEST)).st_mode & 0o777 == 0o400
    assert filestore.staging.names() == ([staged.name] if keep_name else [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(staged.fd)
    filestore.staging.remove(staged.name)
    assert os.stat(filestore.blobs.path(DIGEST)).st_nlink == 1


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
    assert blobs(filestore) == set()


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
    staged = filestore.staging.create()
    synced: list[str] = []

    def sync(name: str, *, dir_fd: int) -> None:
        synced.append(name)

    seam.fsync_path = sync  # type: ignore[method-assign]
    filestore.sync_each(digests)
    files = [filestore.blobs.name(digest) for digest in digests]
    shards = sorted({os.path.dirname(name) for name in files})
    assert synced == [*files, *shards]
    synced.clear()
    filestore.sync_each(digests[:1], [staged.name])
    assert synced == [files[0], staged.path, os.path.dirname(files[0]), "staging"]
    del seam.fsync_path
    filestore.sync_each([], [staged.name, "00ff"])
    filestore.staging.drop(staged)


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


def test_copy_range_copies_holes_as_data(tmp_path: Path) -> None:
    with (tmp_path / "source").open("w+b") as source, (tmp_path / "target").open("w+b") as target:
        os.pwrite(source.fileno(), b"end", 1 << 20)
        copy_range(source.fileno(), target.fileno(), (1 << 20) + 3)
    assert (tmp_path / "target").read_bytes() == bytes(1 << 20) + b"end"
