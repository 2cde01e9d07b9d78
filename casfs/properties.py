"""Properties of files and directories: what an attribute user.casfs.prop.KEY says.

It has one or more values, one a line, as in `setfattr -n user.casfs.prop.qa -v passed FILE`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from casfs.errors import FsError

PREFIX = b"user.casfs.prop."

NAME_LIMIT = 255
"""Bytes of the name of an attribute, xattr(7): a key has what is left behind the prefix."""

VALUE_LIMIT = 2048
"""Characters of a value at the most."""


def attribute_of(key: str) -> bytes:
    """The name of the attribute that has a property. Raises FsError EINVAL for a key that is no text."""
    return PREFIX + _encoded(key)


def value_of(values: Iterable[str]) -> bytes:
    """What an attribute with these values says, each once. Raises FsError EINVAL for what is no text."""
    return _encoded("\n".join(dict.fromkeys(values)))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FsError(errno.EINVAL, "a property is UTF-8") from None


def found_in(name: bytes, value: bytes) -> list[tuple[str, str]]:
    """(key, value) of each value of the property that an attribute is, in order and each once. Nothing for
    what is none: another attribute, or one that is no UTF-8, which only somebody else can have written."""
    if not name.startswith(PREFIX) or name == PREFIX:
        return []
    try:
        key, values = name[len(PREFIX) :].decode(), value.decode().split("\n")
    except UnicodeDecodeError:
        return []
    return [(key, each) for each in dict.fromkeys(values)]


def check(name: bytes, value: bytes) -> None:
    """May a property have that name and value? Raises FsError EINVAL: both are UTF-8 without control
    characters, and a key has no '=' in it; E2BIG for a value of more than VALUE_LIMIT characters."""
    try:
        key, values = name[len(PREFIX) :].decode(), value.decode().split("\n")
    except UnicodeDecodeError:
        raise FsError(errno.EINVAL, "a property is UTF-8") from None
    if not key or "=" in key or not key.isprintable():
        raise FsError(errno.EINVAL, "the key of a property has one or more printable characters, and no '='")
    for each in values:
        if not each.isprintable():
            raise FsError(errno.EINVAL, "the value of a property has printable characters only")
        if len(each) > VALUE_LIMIT:
            raise FsError(errno.E2BIG, f"a value of a property has at most {VALUE_LIMIT} characters")
