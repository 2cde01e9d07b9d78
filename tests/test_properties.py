"""What an attribute says as a property."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs import properties
from casfs.errors import FsError

LINES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)


@given(st.lists(LINES, min_size=1, max_size=5))
def test_values_are_found_as_they_were_given(values: list[str]) -> None:
    name, value = properties.attribute_of("qa"), properties.value_of(values)
    properties.check(name, value)
    assert properties.found_in(name, value) == [("qa", each) for each in dict.fromkeys(values)]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_whatever_is_allowed_is_found(key: bytes, value: bytes) -> None:
    name = properties.PREFIX + key
    try:
        properties.check(name, value)
    except FsError:
        return
    found = properties.found_in(name, value)
    assert properties.value_of(each for _, each in found).decode() == "\n".join(
        dict.fromkeys(value.decode().split("\n"))
    )


@pytest.mark.parametrize(
    ("key", "value", "number"),
    [
        (b"", b"x", errno.EINVAL),
        (b"a=b", b"x", errno.EINVAL),
        (b"a\nb", b"x", errno.EINVAL),
        (b"\xff", b"x", errno.EINVAL),
        (b"qa", b"\xff", errno.EINVAL),
        (b"qa", b"x\0", errno.EINVAL),
        (b"qa", b"a\tb", errno.EINVAL),
        (b"qa", b"x" * 2049, errno.E2BIG),
        (b"qa", b"ok\n" + "ä".encode() * 2049, errno.E2BIG),
    ],
)
def test_what_is_not_allowed(key: bytes, value: bytes, number: int) -> None:
    with pytest.raises(FsError) as raised:
        properties.check(properties.PREFIX + key, value)
    assert raised.value.errno == number


@pytest.mark.parametrize("value", [b"", b"x" * 2048, "ä".encode() * 2048, b"a\nb", b"a=b c/d"])
def test_what_is_allowed(value: bytes) -> None:
    properties.check(properties.PREFIX + b"k" * 239, value)
