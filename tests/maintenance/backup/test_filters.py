"""Which names in the root a backup has."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.maintenance.backup.filters import Filter
from casfs.maintenance.backup.options import BackupOptions


def has(name: str | bytes, directory: bool = True, **options: object) -> bool:
    return Filter(BackupOptions(**options)).has(os.fsencode(name), directory=directory)  # type: ignore[arg-type]


def test_without_options_it_has_all() -> None:
    assert Filter(BackupOptions()).has_all
    assert has("x")
    assert has(b"\xff\n")


@pytest.mark.parametrize(
    ("include", "exclude", "name", "expected"),
    [
        (("libs-*",), (), "libs-release", True),
        (("libs-*",), (), "Libs-release", False),
        (("libs-*",), (), "my-libs-release", False),
        (("libs-*", "npm"), (), "npm", True),
        (("libs-*",), ("*-release",), "libs-release", False),
        ((), ("*-cache", "tmp"), "npm-cache", False),
        ((), ("*-cache", "tmp"), "tmp", False),
        ((), ("*-cache", "tmp"), "tmp2", True),
        (("lib?",), (), "libs", True),
        (("lib[a-r]",), (), "libs", False),
        (("lib[!a-r]",), (), "libs", True),
        (("caf\udce9*",), (), b"caf\xe9s", True),
    ],
)
def test_patterns(
    include: tuple[str, ...], exclude: tuple[str, ...], name: str | bytes, expected: bool
) -> None:
    assert has(name, include=include, exclude=exclude) is expected
    assert has(name, directory=False, include=include, exclude=exclude) is expected
    assert not Filter(BackupOptions(include=include, exclude=exclude)).has_all


@pytest.mark.parametrize(
    ("include", "name", "expected"),
    [
        ((), "old", True),
        ((), "new", False),
        (("*",), "new", False),
        (("new*",), "new", False),
        (("*", "new"), "new", True),
        (("*", "new"), "old", True),
        (("new",), "old", False),
    ],
)
def test_what_is_new_stays_out_until_it_is_named(include: tuple[str, ...], name: str, expected: bool) -> None:
    options = {"include": include, "exclude_new_known": ("old",)}
    assert has(name, **options) is expected
    assert not has("new", exclude=("new",), **options)


def test_a_file_in_the_root_is_no_repository_that_is_new() -> None:
    assert has("readme", directory=False, exclude_new_known=())


def test_what_was_left_out_is_told_unless_it_is_excluded_anyway() -> None:
    left_out = Filter(BackupOptions(include=("*", "b"), exclude=("tmp*",), exclude_new_known=("a",)))
    assert left_out.left_out_as_new([b"a", b"b", b"c", b"tmp1"]) == ["c"]
    assert Filter(BackupOptions()).left_out_as_new([b"a"]) == []


@given(st.binary(min_size=1, max_size=12), st.lists(st.text("ab*?[]!-", max_size=6), max_size=3))
def test_no_pattern_breaks_it_and_exclusion_wins(name: bytes, patterns: list[str]) -> None:
    word = os.fsdecode(name)
    both = BackupOptions(include=tuple(patterns), exclude=tuple(patterns))
    assert Filter(both).has(name, directory=True) is (not patterns)
    assert not Filter(BackupOptions(exclude_new_known=())).has(name, directory=True)
    assert Filter(BackupOptions(exclude_new_known=(word,))).has(name, directory=True)
