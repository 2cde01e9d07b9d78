"""Blobs that are removed once their rows are gone, if nobody has them again by then."""

from __future__ import annotations

import errno
import threading

import pytest

from casfs.filestore.condemned import Condemned


class Files:
    """What there is, and what cannot be removed."""

    def __init__(self, *digests: bytes) -> None:
        self.there = set(digests)
        self.stuck: set[bytes] = set()

    def remove(self, digest: bytes, size: int) -> None:
        if digest in self.stuck:
            raise OSError(errno.EIO, "stuck")
        if digest not in self.there:
            raise FileNotFoundError
        self.there.remove(digest)


def test_what_is_condemned_is_removed_once() -> None:
    files = Files(b"1", b"2")
    condemned = Condemned(files.remove)
    condemned.add([b"1"])
    assert condemned.remove(b"1", 7)
    assert not condemned.remove(b"1", 7)
    assert not condemned.remove(b"2", 7)
    assert files.there == {b"2"}


def test_what_is_spared_stays() -> None:
    files = Files(b"1")
    condemned = Condemned(files.remove)
    assert not condemned.spare(b"1")
    condemned.add([b"1"])
    assert condemned.spare(b"1")
    assert not condemned.spare(b"1")
    assert not condemned.remove(b"1", 7)
    assert files.there == {b"1"}


def test_what_cannot_be_removed_is_a_stray_and_not_condemned_any_more() -> None:
    files = Files(b"1")
    condemned = Condemned(files.remove)
    files.stuck = {b"1"}
    condemned.add([b"1", b"gone"])
    with pytest.raises(OSError, match="stuck"):
        condemned.remove(b"1", 7)
    with pytest.raises(FileNotFoundError):
        condemned.remove(b"gone", 7)
    files.stuck.clear()
    assert not condemned.remove(b"1", 7)
    assert files.there == {b"1"}


def test_at_the_end_all_go_that_can() -> None:
    files = Files(b"1", b"2", b"3")
    condemned = Condemned(files.remove)
    condemned.add([b"1", b"2", b"3", b"gone"])
    files.stuck = {b"2"}
    with pytest.raises(OSError, match="stuck"):
        condemned.remove_all()
    assert files.there == {b"2"}
    condemned.remove_all()


def test_who_spares_waits_for_the_file_that_is_being_removed() -> None:
    at_it, go_on = threading.Event(), threading.Event()

    def remove(digest: bytes, size: int) -> None:
        at_it.set()
        assert go_on.wait(30)

    condemned = Condemned(remove)
    condemned.add([b"1"])
    spared: list[bool] = []
    remover = threading.Thread(target=condemned.remove, args=(b"1", 7))
    sparer = threading.Thread(target=lambda: spared.append(condemned.spare(b"1")))
    remover.start()
    assert at_it.wait(30)
    sparer.start()
    sparer.join(0.05)
    assert sparer.is_alive()
    go_on.set()
    remover.join(30)
    sparer.join(30)
    assert spared == [False]
