"""The bench notices when a file system did something else than it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.benchmark.hot_files import expect_end, needed
from scripts.benchmark.large_file import expect_written
from scripts.benchmark.trial import (
    WorkloadError,
    allocated,
    expect_contents,
    expect_names,
    expect_same,
    write_large,
)

SIZE = 1 << 20


def one_file_lost(folder: Path) -> None:
    (folder / "b").unlink()
    expect_names(["a", "b"], str(folder))


def one_name_too_many(folder: Path) -> None:
    expect_names(["a"], str(folder))


def other_content(folder: Path) -> None:
    expect_contents([str(folder / "a"), str(folder / "b")], [b"a", b"other"])


def copy_cut_short(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(SIZE))
    (folder / "copy").write_bytes(bytes(SIZE - 1))
    expect_same(str(folder / "large"), str(folder / "copy"))


def copy_with_another_end(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(SIZE))
    (folder / "copy").write_bytes(bytes(SIZE - 1) + b"x")
    expect_same(str(folder / "large"), str(folder / "copy"))


def blocks_of_zeros(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(SIZE))
    expect_written(str(folder / "large"), SIZE, 4096)


FAULTS = [
    one_file_lost,
    one_name_too_many,
    other_content,
    copy_cut_short,
    copy_with_another_end,
    blocks_of_zeros,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_wrong_result_is_an_error(fault: Callable[[Path], None], folder: Path) -> None:
    with pytest.raises(WorkloadError, match="wrong result"):
        fault(folder)


def test_a_file_with_several_names_takes_its_room_once(folder: Path) -> None:
    (folder / "a").write_bytes(bytes(SIZE))
    once = allocated(str(folder))
    (folder / "second").hardlink_to(folder / "a")
    assert allocated(str(folder)) == allocated(str(folder), str(folder)) == once >= SIZE


def test_what_is_needed_is_counted_in_whole_blocks(folder: Path) -> None:
    (folder / "empty").touch()
    (folder / "c").write_bytes(bytes(4097))
    assert needed(str(folder)) == 4 * 4096


def end_cut_off(folder: Path) -> None:
    expect_end(str(folder / "a"), 2, b"a")


def other_end(folder: Path) -> None:
    expect_end(str(folder / "a"), 1, b"b")


@pytest.mark.parametrize("fault", [end_cut_off, other_end], ids=lambda fault: fault.__name__)
def test_a_log_that_ends_otherwise_is_an_error(fault: Callable[[Path], None], folder: Path) -> None:
    with pytest.raises(WorkloadError, match="wrong result"):
        fault(folder)


def test_a_right_result_is_none(folder: Path) -> None:
    paths = [str(folder / "a"), str(folder / "b")]
    expect_names(["a", "b"], str(folder))
    expect_contents(paths, [b"a", b"b"])
    large, copy = str(folder / "large"), str(folder / "copy")
    write_large(large, SIZE, bytearray(b"\1" * 4096))
    (folder / "copy").write_bytes((folder / "large").read_bytes())
    expect_written(large, SIZE, 4096)
    expect_same(large, copy)
