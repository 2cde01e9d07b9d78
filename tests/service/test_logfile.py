"""The log of the daemon in the background."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from casfs.errors import FormatError
from casfs.filestore.directory import StoreDirectory
from casfs.service import logfile
from casfs.service.logfile import LogFile


@pytest.fixture
def directory(scratch: Path) -> Iterator[StoreDirectory]:
    (scratch / "run").mkdir()
    with closing(StoreDirectory(str(scratch))) as directory:
        yield directory


def say(handler: LogFile, text: str) -> None:
    handler.handle(logging.LogRecord("name", logging.INFO, "file", 1, text, (), None))


def test_it_is_private_and_goes_on(directory: StoreDirectory, scratch: Path) -> None:
    before = os.umask(0)
    try:
        for text in ("first", "\udcff second"):
            handler = LogFile(directory)
            say(handler, text)
            handler.close()
            handler.stream.close()
    finally:
        os.umask(before)
    assert (scratch / "run/mount.log").read_text() == "first\n\\udcff second\n"
    assert stat.S_IMODE((scratch / "run/mount.log").stat().st_mode) == 0o600


def test_one_old_log_is_kept(
    directory: StoreDirectory, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "LOG_BYTES", 10)
    handler = LogFile(directory)
    for text in ("first line", "second line", "third line"):
        say(handler, text)
    handler.stream.close()
    assert sorted(os.listdir(scratch / "run")) == ["mount.log", "mount.log.1"]
    assert (scratch / "run/mount.log").read_text() == "third line\n"
    assert (scratch / "run/mount.log.1").read_text() == "second line\n"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "second name"])
def test_what_is_no_file_of_its_own_is_not_written_to(
    directory: StoreDirectory, scratch: Path, kind: str
) -> None:
    """A link in its place had root append to any file."""
    place = scratch / "run/mount.log"
    (scratch / "victim").write_bytes(b"theirs")
    match kind:
        case "link":
            place.symlink_to(scratch / "victim")
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case _:
            os.link(scratch / "victim", place)
    with pytest.raises(FormatError, match=r"mount\.log cannot be written: .*; remove it"):
        LogFile(directory)
    assert (scratch / "victim").read_bytes() == b"theirs"
