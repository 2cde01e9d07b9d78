"""What a daemon does for `casfs digests`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.control.digests import HANDLERS, add
from casfs.control.messages import AddDigests, SetDigests, WantedDigests
from casfs.control.protocol import LINE_LIMIT, encode, request_of
from casfs.errors import UsageError
from casfs.filestore.hashing import ALGORITHMS
from casfs.fs.filesystem import FileSystem
from casfs.fs.scheduler import run_inline
from casfs.maintenance.digests.migration import PART
from casfs.maintenance.offline import opened
from casfs.namespace.digests import DigestRun
from casfs.store import create_store
from tests.maintenance.stores import make_file


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[FileSystem]:
    create_store(str(tmp_path / "store"))
    with opened(str(tmp_path / "store")) as fs:
        yield fs


def change(fs: FileSystem, *of: list[str]) -> list[str]:
    wanted = run_inline(HANDLERS[SetDigests](fs, SetDigests(*of)))
    assert isinstance(wanted, WantedDigests)
    return wanted.digests


def test_what_is_wanted_holds_from_then_on(fs: FileSystem) -> None:
    assert change(fs, ["sha256", "md5"]) == ["md5", "sha256"]
    make_file(fs, 1, b"file", b"content")
    run_inline(fs.group.durable())
    assert change(fs, [], ["md5", "sha1"]) == ["sha256"]
    make_file(fs, 1, b"other", b"other")
    run_inline(fs.group.durable())
    kept = {row.algorithm: row.blobs for row in fs.store.namespace.digests.kept()}
    assert kept == {"md5": 1, "sha256": 2}
    with pytest.raises(UsageError, match="unknown algorithm 'sha'"):
        change(fs, ["sha"])


def test_digests_are_written_of_blobs_that_are_there(fs: FileSystem) -> None:
    contents = [b"content %d" % number for number in range(100)]
    for number, content in enumerate(contents):
        make_file(fs, 1, b"%d" % number, content)
        run_inline(fs.group.durable())
    values = [hashlib.md5(content).hexdigest() for content in contents]
    rows = [(number + 1, "md5", value) for number, value in enumerate(values)]
    for durable in (False, True):
        run_inline(add(fs, AddDigests([*rows, (1_000, "md5", values[0])], (7, 100, 5, 1, 0), durable)))
    digests = fs.store.namespace.digests
    assert [row.blobs for row in digests.kept()] == [100]
    assert [digests.of(blob)["md5"].hex() for blob, _, _ in rows] == values
    assert digests.of(1_000) == {}
    assert digests.last_run() == DigestRun(7, 100, 5, 1, 0)


@pytest.mark.parametrize("row", [(1, "md5", "zz" * 16), (1, "md5", "00"), (1, "sha3", "00" * 32)])
def test_what_is_no_digest_is_refused(fs: FileSystem, row: tuple[int, str, str]) -> None:
    with pytest.raises(UsageError):
        run_inline(add(fs, AddDigests([row], (1, 1, 1, 1, 1))))
    assert fs.store.namespace.digests.last_run() is None


def test_what_a_run_asks_for_at_a_time_fits_into_a_request() -> None:
    rows = [
        (2**63 - 1 - number, name, "ff" * algorithm.size)
        for number in range(PART)
        for name, algorithm in ALGORITHMS.items()
    ]
    asked = AddDigests(rows, (2**63 - 1,) * 5, True)
    assert len(encode(request_of(asked))) < LINE_LIMIT
