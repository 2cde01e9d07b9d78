"""Content becomes a blob: what is kept, when, and what happens when it cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FsError
from tests.faults import FaultyDurable
from tests.filestore.test_durable import file_size_limit
from tests.kernel import Kernel
from tests.session import Session

CREATE = os.O_RDWR | os.O_CREAT
LARGE = bytes(range(256)) * 1200
"""More than is kept in memory."""


# Sealing


def test_a_content_is_kept_once(session: Session, kernel: Kernel) -> None:
    for name in ("one", "two"):
        kernel.write_file(name, b"small")
        kernel.write_file(f"large {name}", LARGE)
    kernel.sync()
    assert session.blobs == 2
    assert kernel.inode("one").blob == kernel.inode("two").blob
    assert session.staged == 0


def test_small_content_that_is_there_never_touches_the_disk(store_path: Path) -> None:
    seam = FaultyDurable()
    session = Session(store_path, seam)
    session.kernel.write_file("one", b"small")
    seam.calls.clear()
    session.kernel.write_file("two", b"small")
    session.kernel.write_file("one", b"small")
    assert seam.calls == []
    session.stop()


def test_an_empty_file_has_no_blob(session: Session, kernel: Kernel) -> None:
    kernel.write_file("empty", b"")
    kernel.write_file("emptied", b"content")
    kernel.sync()
    kernel.truncate("emptied", 0)
    kernel.sync()
    assert kernel.inode("empty").blob is kernel.inode("emptied").blob is None
    assert kernel.read_file("emptied") == b""
    assert session.store.namespace.blobs.totals()[:3] == (0, 0, 1)


def test_the_last_name_makes_an_orphan(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.link("one", "two")
    kernel.unlink("one")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (1, 7, 0, 0)
    kernel.unlink("two")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 1, 7)
    assert session.blobs == 1


def test_an_orphan_is_used_again(session: Session, kernel: Kernel) -> None:
    kernel.write_file("one", b"content")
    kernel.unlink("one")
    kernel.sync()
    kernel.write_file("two", b"content")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (1, 7, 0, 0)


def test_large_content_written_and_removed_in_one_group_is_an_orphan(
    session: Session, kernel: Kernel
) -> None:
    """What is small goes without a trace: test_pending.py."""
    kernel.write_file("one", LARGE)
    kernel.unlink("one")
    kernel.sync()
    assert session.store.namespace.blobs.totals() == (0, 0, 1, len(LARGE))


def test_opening_for_writing_alone_costs_nothing(store_path: Path) -> None:
    seam = FaultyDurable()
    session = Session(store_path, seam)
    kernel = session.kernel
    kernel.write_file("file", LARGE, sync=True)
    kernel.sync()
    seam.calls.clear()
    with kernel.open("file", os.O_RDWR) as file:
        assert file.read() == LARGE
    assert seam.calls == []
    assert not session.fs.group.active
    session.stop()


@pytest.mark.parametrize("size", [100, 300_000, 3_000_000])
def test_a_blob_that_is_written_to_stays_as_it_is(session: Session, kernel: Kernel, size: int) -> None:
    """Copy-up: in memory, inline, and in a thread."""
    content = (LARGE * 10)[:size]
    kernel.write_file("file", content)
    kernel.write_file("same", content)
    with kernel.open("file", os.O_RDWR) as file:
        file.write(b"new", size // 2)
        assert file.read(size) == content[: size // 2] + b"new" + content[size // 2 + 3 :]
    assert kernel.read_file("same") == content
    session.rest()
    kernel.sync()
    assert session.blobs == 2


@pytest.mark.usefixtures("seals_at_close")
def test_flush_seals_what_the_only_writer_wrote(kernel: Kernel) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with pytest.raises(FsError) as raised:
        kernel.getxattr("file", b"user.casfs.blake3")
    assert raised.value.errno == errno.ENODATA
    file.flush()
    assert kernel.getxattr("file", b"user.casfs.blake3").decode() == blake3(b"content").hexdigest()
    assert kernel.fs.activity().open_unsealed == 0
    file.close()


@pytest.mark.usefixtures("seals_at_close")
def test_the_last_of_several_writers_seals(kernel: Kernel) -> None:
    first, second = kernel.open("file", CREATE), kernel.open("file", CREATE)
    first.write(b"first")
    first.close()
    assert kernel.fs.activity().open_unsealed == 1
    second.write(b"second", 5)
    second.close()
    assert kernel.fs.activity().open_unsealed == 0
    assert kernel.read_file("file") == b"firstsecond"


@pytest.mark.usefixtures("seals_at_close")
def test_a_writer_that_wrote_nothing_seals_for_the_others_when_it_goes(kernel: Kernel) -> None:
    first, idle = kernel.open("file", CREATE), kernel.open("file", CREATE)
    first.write(b"first")
    first.close()
    idle.close()
    assert kernel.fs.activity().open_unsealed == 0
    assert kernel.read_file("file") == b"first"


def test_a_descriptor_shared_by_many_processes_is_sealed_once(store_path: Path) -> None:
    """A log file that a shell hands to its children: each end flushes, and the writing goes on."""
    seam = FaultyDurable()
    session = Session(store_path, seam)
    file = session.kernel.open("log", CREATE)
    for number in range(50):
        file.write(b"line\n", 5 * number)
        file.flush()
    assert seam.calls.count("create") <= 2
    assert file.read() == b"line\n" * 50
    file.close()
    assert session.kernel.read_file("log") == b"line\n" * 50
    session.stop()


def test_readers_see_what_a_writer_writes(kernel: Kernel) -> None:
    kernel.write_file("file", b"old content")
    reader = kernel.open("file")
    assert reader.read() == b"old content"
    writer = kernel.open("file", os.O_RDWR)
    writer.write(b"NEW")
    assert reader.read() == b"NEW content"
    writer.truncate(5)
    assert reader.read() == b"NEW c"
    writer.write(LARGE, 5)
    assert reader.read(1 << 20) == b"NEW c" + LARGE
    writer.close()
    assert reader.read(1 << 20) == b"NEW c" + LARGE
    kernel.write_file("file", b"replaced")
    assert reader.read() == b"replaced"
    reader.close()


def test_a_read_ends_where_the_file_ends(kernel: Kernel) -> None:
    kernel.write_file("file", b"content")
    with kernel.open("file") as file:
        assert file.read(3, 2) == b"nte"
        assert file.read(100, 5) == b"nt"
        assert file.read(10, 7) == file.read(10, 1 << 40) == file.read(0) == b""


# Errors


def test_a_write_that_the_disk_cuts_short_is_hashed_as_far_as_it_went(kernel: Kernel) -> None:
    """The blob got bytes its digest does not name (I2)."""
    for offset in (300_000, 200_000):
        file = kernel.open(f"file {offset}", CREATE)
        file.write(LARGE[:300_000])
        with file_size_limit(350_000):
            assert file.write(b"y" * 200_000, offset) == 350_000 - offset
            with pytest.raises(OSError, match="large"):
                file.write(b"z", 350_000)
        file.close()
        expected = LARGE[:offset] + b"y" * (350_000 - offset)
        assert kernel.read_file(f"file {offset}") == expected


def test_no_room_to_spill_keeps_what_was_written(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore.space, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.write(LARGE, 7)
        with pytest.raises(OSError, match="full"):
            file.fsync()
        with pytest.raises(OSError, match="full"):
            file.flush()
        assert file.read() == b"content"
    file.write(LARGE, 7)
    file.close()
    assert kernel.read_file("file") == b"content" + LARGE


def full(_: int, _files: int = 0) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_content_that_nobody_could_seal_is_sealed_at_a_later_commit(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore.space, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.close()
        assert "stays staged" in caplog.text
        assert kernel.read_file("file") == b"content"
    kernel.mkdir("directory")
    kernel.sync()
    assert kernel.fs.activity().open_unsealed == 0
    assert session.blobs == 1


def test_content_that_nobody_can_seal_does_not_keep_the_rest_from_the_disk(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    """On a full disk no commit came through any more, and the collector, which makes room, had no turn."""
    kernel.write_file("other", b"other content")
    file = kernel.open("file", CREATE)
    file.write(b"content")
    with monkeypatch.context() as patch:
        patch.setattr(session.store.filestore.space, "claim", full)
        with pytest.raises(OSError, match="full"):
            file.close()
        kernel.unlink("other")
        kernel.sync()
        assert not session.fs.group.active
    kernel.sync()
    assert kernel.read_file("file") == b"content"


@pytest.mark.usefixtures("seals_at_close")
@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
def test_a_row_that_cannot_be_written_does_not_cost_the_content(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """The content was published and forgotten before the database refused the row."""
    file = kernel.open("file", CREATE)
    file.write(content)
    with monkeypatch.context() as patch:
        patch.setattr(session.store.namespace.blobs, "insert", lambda *_: full(0))
        with pytest.raises(OSError, match="full"):
            file.flush()
    assert file.read(1 << 20) == content
    file.close()
    assert kernel.read_file("file") == content


def test_a_missing_staged_file_is_an_io_error(session: Session, kernel: Kernel) -> None:
    with kernel.open("file", CREATE) as file:
        file.truncate(1 << 40)
    kernel = session.reopen()
    path = session.path / "staging" / str(kernel.inode("file").staged)
    path.rename(session.path / "elsewhere")
    with pytest.raises(OSError, match="missing") as raised:
        kernel.open("file")
    assert raised.value.errno == errno.EIO
    assert kernel.fs.activity().open_handles == 0
    (session.path / "elsewhere").rename(path)


def test_a_missing_blob_is_an_io_error_for_its_readers_only(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    path = Path(session.store.filestore.blobs.path(blake3(LARGE).digest()))
    path.rename(session.path / "elsewhere")
    for access in (
        lambda: kernel.read_file("file"),
        lambda: kernel.open("file", os.O_RDWR).write(b"x"),
        lambda: kernel.truncate("file", 5),
    ):
        with pytest.raises(OSError, match="missing") as raised:
            access()
        assert raised.value.errno == errno.EIO
    kernel.write_file("file", b"new")
    assert kernel.read_file("file") == b"new"
    (session.path / "elsewhere").rename(path)


def test_a_blob_that_was_lost_comes_back_with_the_next_copy(session: Session, kernel: Kernel) -> None:
    kernel.write_file("file", LARGE)
    kernel.sync()
    Path(session.store.filestore.blobs.path(blake3(LARGE).digest())).unlink()
    kernel.write_file("copy", LARGE)
    kernel.sync()
    assert kernel.read_file("file") == LARGE
    assert session.store.namespace.blobs.totals()[:2] == (1, len(LARGE))
