"""Rows of extended attributes."""

from __future__ import annotations

from casfs.namespace.namespace import Namespace


def test_set_replace_and_remove(writing: Namespace) -> None:
    writing.xattrs.set(5, b"user.\xff", b"")
    writing.xattrs.set(5, b"user.x", b"one")
    writing.xattrs.set(5, b"user.x", bytes(65536))
    writing.xattrs.set(6, b"user.x", b"other")
    assert writing.xattrs.of(5) == {b"user.\xff": b"", b"user.x": bytes(65536)}
    writing.xattrs.remove(5, b"user.x")
    writing.xattrs.remove(5, b"user.absent")
    assert writing.xattrs.of(5) == {b"user.\xff": b""}
    assert writing.xattrs.of(6) == {b"user.x": b"other"}


def test_copy_and_remove_all(writing: Namespace) -> None:
    writing.xattrs.set(5, b"user.x", b"one")
    writing.xattrs.set(5, b"user.y", b"two")
    writing.xattrs.copy(5, 6)
    writing.xattrs.remove_all(5)
    assert writing.xattrs.of(5) == {}
    assert writing.xattrs.of(6) == {b"user.x": b"one", b"user.y": b"two"}
