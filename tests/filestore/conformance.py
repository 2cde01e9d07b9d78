"""What every provider of blobs (casfs/filestore/provider.py) has to pass: a class of tests to inherit from.

Whoever has a provider to be tested gives a fixture `place`. Faults are injected at every call of the durable
seam that an operation makes, for as long as there is one: the call fails, or the process ends before it.
"""

from __future__ import annotations

import errno
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from casfs.filestore.hashing import hash_bytes
from casfs.filestore.provider import Provider
from casfs.filestore.staging import StagedFile
from tests.faults import FaultyDurable

SIZES = (0, 1, 4095, 4096, 4097, (1 << 20) + 3)
WAYS = ("bytes", "file", "kept file")
TORN = b"the torn rest of a crash"


class Place(ABC):
    """A provider, with a new place made, and what is around it."""

    blobs: Provider
    seam: FaultyDurable

    @abstractmethod
    def stage(self, content: bytes) -> StagedFile:
        """A staged file with that content, durable under its name."""

    @abstractmethod
    def file(self, path: str) -> bytes | None:
        """The content of a file below STORE; None when there is none."""

    @abstractmethod
    def restarted(self) -> Provider:
        """The same place as another process finds it."""

    @abstractmethod
    def after_power_loss(self) -> Provider:
        """What is sure to be left of the place if the power goes now. Once for each test."""


class CutOff(BaseException):
    """The process ends here."""


class Gone(OSError):
    """The disk does not answer any more."""


LASTING = (CutOff, Gone)
"""After which no call comes through: what was begun cannot be undone."""


def contents(count: int) -> dict[bytes, bytes]:
    return {bytes(hash_bytes(content)): content for content in (b"content %d" % n for n in range(count))}


def read(blobs: Provider, digest: bytes) -> bytes | None:
    """The content of a blob, None when there is none; what `size` says agrees."""
    try:
        fd = blobs.open(digest)
    except FileNotFoundError:
        assert blobs.size(digest) is None
        return None
    with os.fdopen(fd, "rb") as file:
        content = file.read()
    assert blobs.size(digest) == len(content)
    return content


def everything(blobs: Provider) -> dict[bytes, bytes | None]:
    digests = [digest for prefix in blobs.prefixes() for digest in blobs.enumerate(prefix)]
    assert len(digests) == len(set(digests))
    return {digest: read(blobs, digest) for digest in digests}


def publish(place: Place, digest: bytes, content: bytes, way: str) -> None:
    if way == "bytes":
        place.blobs.publish_bytes({digest: content})
        return
    staged = place.stage(content)
    try:
        place.blobs.publish_file(digest, staged, keep=way == "kept file")
    finally:
        os.close(staged.fd)


@contextmanager
def fault(place: Place, number: int, error: BaseException) -> Iterator[None]:
    """The seam's call of that number, counted from now, raises; the later ones too, if the fault lasts."""
    first = len(place.seam.calls)

    def before(call: int, _: str) -> None:
        if call - first == number or (call - first > number and isinstance(error, LASTING)):
            raise error

    place.seam.before = before
    try:
        yield
    finally:
        place.seam.before = lambda number, name: None


def with_faults(place: Place, error: BaseException, act: Callable[[], None]) -> Iterator[int]:
    """Let `act` fail at each of its calls of the seam in turn; gives their numbers, after each failure. When
    it has come through, that is over."""
    for number in itertools.count():
        try:
            with fault(place, number, error):
                act()
        except (OSError, CutOff) as raised:
            if raised is not error:
                raise
            yield number
        else:
            assert number, "nothing went through the seam"
            return


ERRORS = [
    pytest.param(lambda: OSError(errno.ENOSPC, "injected"), id="full"),
    pytest.param(lambda: Gone(errno.EIO, "injected"), id="gone"),
    pytest.param(CutOff, id="cut off"),
]


class Conformance:
    """The tests."""

    # Publishing, opening

    def test_an_empty_place(self, place: Place) -> None:
        (digest,) = contents(1)
        assert everything(place.blobs) == {}
        assert read(place.blobs, digest) is None
        place.blobs.publish_bytes({})
        place.blobs.sync_all()
        place.blobs.sync_bytes([])
        place.blobs.sync_names([])

    def test_a_place_is_made_once(self, place: Place) -> None:
        with pytest.raises(OSError, match="exists"):
            place.blobs.create()

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_published_is_read_back(self, place: Place, size: int, way: str) -> None:
        content = os.urandom(size)
        digest = hash_bytes(content)
        publish(place, digest, content, way)
        assert everything(place.blobs) == everything(place.restarted()) == {digest: content}

    def test_many_at_once(self, place: Place) -> None:
        blobs = contents(300)
        place.blobs.publish_bytes(blobs)
        assert everything(place.blobs) == blobs

    @pytest.mark.parametrize("way", WAYS)
    def test_a_blob_cannot_be_written_to(self, place: Place, way: str) -> None:
        ((digest, content),) = contents(1).items()
        publish(place, digest, content, way)
        fd = place.blobs.open(digest)
        try:
            for change in (lambda: os.write(fd, b"!"), lambda: os.ftruncate(fd, 0)):
                with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
                    change()
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)
        assert read(place.blobs, digest) == content

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("there", ["a blob", "a torn one"])
    def test_what_is_there_is_replaced(self, place: Place, way: str, there: str) -> None:
        ((digest, content),) = contents(1).items()
        before = content if there == "a blob" else TORN
        place.blobs.publish_bytes({digest: before})
        fd = place.blobs.open(digest)
        publish(place, digest, content, way)
        assert everything(place.blobs) == {digest: content}
        with os.fdopen(fd, "rb") as file:
            assert file.read() == before, "who had it open reads on"

    @pytest.mark.parametrize("keep", [False, True])
    def test_a_staged_file_keeps_its_name_or_loses_it(self, place: Place, keep: bool) -> None:
        ((digest, content),) = contents(1).items()
        staged = place.stage(content)
        place.blobs.publish_file(digest, staged, keep=keep)
        assert place.file(staged.path) == (content if keep else None)
        assert os.pread(staged.fd, 100, 0) == content
        os.close(staged.fd)

    # Enumerating

    def test_each_digest_has_one_prefix(self, place: Place) -> None:
        prefixes = place.blobs.prefixes()
        assert prefixes == sorted(set(prefixes))
        digests = [bytes(32), b"\xff" * 32, *contents(300)]
        place.blobs.publish_bytes(dict.fromkeys(digests, b"content"))
        for prefix in prefixes:
            expected = [digest for digest in digests if digest.hex().startswith(prefix)]
            assert sorted(place.blobs.enumerate(prefix)) == sorted(expected)
        assert sum(1 for prefix in prefixes for _ in place.blobs.enumerate(prefix)) == len(digests)

    def test_what_stays_is_given_once_while_others_come_and_go(self, place: Place) -> None:
        """As a collection goes on while it lists."""
        prefix = place.blobs.prefixes()[0]
        digests = [bytes.fromhex(prefix.ljust(4, "0")) + n.to_bytes(30, "big") for n in range(600)]
        stays, goes, comes = set(digests[:200]), set(digests[200:400]), digests[400:]
        place.blobs.publish_bytes(dict.fromkeys([*stays, *goes], b"content"))
        seen = []
        for digest, new in zip(place.blobs.enumerate(prefix), itertools.cycle(comes), strict=False):
            seen.append(digest)
            place.blobs.publish_bytes({new: b"content"})
            if digest in goes:
                place.blobs.remove(digest)
                goes.discard(digest)
        assert len(seen) == len(set(seen))
        assert stays <= set(seen) <= set(digests)

    # Removing

    def test_remove(self, place: Place) -> None:
        first, second = contents(2)
        place.blobs.publish_bytes(contents(2))
        fd = place.blobs.open(first)
        place.blobs.remove(first)
        assert everything(place.blobs) == {second: contents(2)[second]}
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                place.blobs.remove(first)
        with os.fdopen(fd, "rb") as file:
            assert file.read() == contents(2)[first], "who had it open reads on"
        place.blobs.publish_bytes({first: b"again"})
        assert read(place.blobs, first) == b"again"

    # Another name for the file of a blob

    def test_a_linked_file_lives_on_its_own(self, place: Place) -> None:
        ((digest, content),) = contents(1).items()
        place.blobs.publish_bytes({digest: content})
        place.blobs.link(digest, "staging/linked")
        assert place.file("staging/linked") == content
        publish(place, digest, b"a copy", "file")
        assert place.file("staging/linked") == content
        assert read(place.blobs, digest) == b"a copy"
        place.blobs.remove(digest)
        assert place.file("staging/linked") == content

    def test_a_link_needs_a_blob_and_a_free_name(self, place: Place) -> None:
        ((digest, content),) = contents(1).items()
        with pytest.raises(FileNotFoundError):
            place.blobs.link(digest, "staging/linked")
        place.blobs.publish_bytes({digest: content})
        staged = place.stage(b"in the way")
        os.close(staged.fd)
        with pytest.raises(FileExistsError):
            place.blobs.link(digest, staged.path)
        assert place.file(staged.path) == b"in the way"

    # Durable

    @pytest.mark.parametrize("each", [False, True])
    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_synced_survives(self, place: Place, way: str, each: bool) -> None:
        blobs = contents(5)
        for digest, content in blobs.items():
            publish(place, digest, content, way)
        if each:
            place.blobs.sync_bytes(blobs)
            place.blobs.sync_names(blobs)
        else:
            place.blobs.sync_all()
        assert everything(place.after_power_loss()) == blobs

    @pytest.mark.parametrize("each", [False, True])
    def test_what_is_removed_and_synced_stays_away(self, place: Place, each: bool) -> None:
        gone, stays = contents(2)
        place.blobs.publish_bytes(contents(2))
        place.blobs.sync_all()
        place.blobs.remove(gone)
        if each:
            place.blobs.sync_names([gone])
        else:
            place.blobs.sync_all()
        assert everything(place.after_power_loss()) == {stays: contents(2)[stays]}

    def test_what_power_has_left_is_replaced(self, place: Place) -> None:
        blobs = contents(5)
        place.blobs.publish_bytes(blobs)
        place.blobs.sync_names(blobs)
        left = place.after_power_loss()
        left.publish_bytes(blobs)
        assert everything(left) == blobs

    @pytest.mark.parametrize("way", WAYS)
    def test_a_replacement_that_is_synced_survives(self, place: Place, way: str) -> None:
        ((digest, content),) = contents(1).items()
        place.blobs.publish_bytes({digest: TORN})
        place.blobs.sync_all()
        publish(place, digest, content, way)
        place.blobs.sync_bytes([digest])
        place.blobs.sync_names([digest])
        assert everything(place.after_power_loss()) == {digest: content}

    def test_what_is_not_there_has_no_bytes_to_sync(self, place: Place) -> None:
        place.blobs.sync_names(contents(1))
        with pytest.raises(FileNotFoundError):
            place.blobs.sync_bytes(contents(1))

    # Failing, and being cut off

    @pytest.mark.parametrize("error", ERRORS)
    def test_bytes_that_fail(self, place: Place, error: Callable[[], BaseException]) -> None:
        """Those before are there, those after are as they were; again, and all are there."""
        failure = error()
        blobs = contents(4)
        digests = list(blobs)
        place.blobs.publish_bytes({digests[2]: TORN})
        for _ in with_faults(place, failure, lambda: place.blobs.publish_bytes(blobs)):
            found = everything(place.restarted())
            done = 0
            while done < len(digests) and found.get(digests[done]) == blobs[digests[done]]:
                done += 1
            if done < len(digests):
                left = found.get(digests[done])
                assert (
                    left is None
                    or (digests[done] == digests[2] and left == TORN)
                    or isinstance(failure, LASTING)
                )
            for digest in digests[done + 1 :]:
                assert found.get(digest) == (TORN if digest == digests[2] else None)
            for digest in [digest for digest in digests if digest in found]:
                place.blobs.remove(digest)
            place.blobs.publish_bytes({digests[2]: TORN})
        assert everything(place.blobs) == blobs

    @pytest.mark.parametrize("error", ERRORS)
    @pytest.mark.parametrize("keep", [False, True])
    @pytest.mark.parametrize("there", [False, True])
    def test_a_file_that_fails(
        self, place: Place, error: Callable[[], BaseException], keep: bool, there: bool
    ) -> None:
        """The content has one of its names, at the least; a new process can go on with it."""
        ((digest, content),) = contents(1).items()
        if there:
            place.blobs.publish_bytes({digest: TORN})
        staged = place.stage(content)
        for _ in with_faults(place, error(), lambda: place.blobs.publish_file(digest, staged, keep=keep)):
            found = read(place.restarted(), digest)
            assert place.file(staged.path) == content
            assert found in ((content, TORN, None) if there and keep else (TORN if there else None,))
            os.pwrite(staged.fd, content, 0)
        assert read(place.blobs, digest) == content
        os.close(staged.fd)

    @pytest.mark.parametrize("error", ERRORS)
    def test_a_removal_that_fails(self, place: Place, error: Callable[[], BaseException]) -> None:
        blobs = contents(2)
        place.blobs.publish_bytes(blobs)
        first, second = blobs
        for _ in with_faults(place, error(), lambda: place.blobs.remove(first)):
            assert everything(place.restarted()) == blobs
        assert everything(place.blobs) == {second: blobs[second]}

    @pytest.mark.parametrize("error", ERRORS)
    def test_a_link_that_fails(self, place: Place, error: Callable[[], BaseException]) -> None:
        blobs = contents(1)
        place.blobs.publish_bytes(blobs)
        (digest,) = blobs
        for _ in with_faults(place, error(), lambda: place.blobs.link(digest, "staging/linked")):
            assert everything(place.restarted()) == blobs
            assert place.file("staging/linked") is None
        assert place.file("staging/linked") == blobs[digest]

    @pytest.mark.parametrize("error", ERRORS)
    @pytest.mark.parametrize("sync", ["sync_bytes", "sync_names", "sync_all"])
    def test_a_sync_that_fails(self, place: Place, error: Callable[[], BaseException], sync: str) -> None:
        """It is told, and nothing has changed."""
        blobs = contents(4)
        place.blobs.publish_bytes(blobs)
        arguments = [] if sync == "sync_all" else [list(blobs)]
        for _ in with_faults(place, error(), lambda: getattr(place.blobs, sync)(*arguments)):
            assert everything(place.restarted()) == blobs

    # Threads

    def test_threads_do_not_get_in_each_others_way(self, place: Place) -> None:
        blobs = contents(400)
        parts = [list(blobs)[start::4] for start in range(4)]

        def work(part: list[bytes]) -> None:
            for digest in part:
                place.blobs.publish_bytes({digest: blobs[digest]})
                assert read(place.blobs, digest) == blobs[digest]
            place.blobs.sync_bytes(part[:5])
            place.blobs.sync_names(part[:5])
            for digest in part[::2]:
                place.blobs.remove(digest)
                assert read(place.blobs, digest) is None

        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(work, part) for part in parts]:
                while not done.done():
                    listed = {
                        digest
                        for prefix in place.blobs.prefixes()
                        for digest in place.blobs.enumerate(prefix)
                    }
                    assert listed <= blobs.keys()
                done.result()
        left = {digest for part in parts for digest in part[1::2]}
        assert everything(place.blobs) == {digest: blobs[digest] for digest in left}
