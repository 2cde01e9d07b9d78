"""One content out of a store into a file of another one, compared with its digest on the way."""

from __future__ import annotations

import errno
import os
import secrets
from enum import Enum
from typing import NamedTuple

from casfs.filestore.directory import NO_FILE, StoreDirectory
from casfs.filestore.hashing import hash_descriptor, new_hasher
from casfs.filestore.local import BLOB_MODE, LocalBlobs
from casfs.filestore.reflink import clone_range
from casfs.maintenance.backup.pace import Pace
from casfs.maintenance.scrub.verify import MEDIUM_ERRORS
from casfs.namespace.copies import Content

CHUNK = 1 << 20
"""Bytes read at a time; what is not longer is compared before a file is made for it."""

TRIES = 3
"""So often a content is read that is another one than its name says, while its file changes: a writer may
have got it, and the blob a copy (fs/content/passthrough.py)."""

_HOLE = bytes(CHUNK)

_CANNOT_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)


class Copied(NamedTuple):
    """A file with a content: `name` below STORE, of its blob already, or one for the moment. `number`: st_ino
    of it."""

    content: Content
    name: str
    number: int


class Unreadable(NamedTuple):
    """A content whose file in the source is missing, cannot be read, or has another one."""

    content: Content
    reason: str


class Cloning(Enum):
    """Do the file systems of both share blocks?"""

    UNKNOWN = 0
    YES = 1
    NO = 2


class Copier:
    """Copies contents from `source` into the folder `folder` of `target`. From several threads, each with a
    `buffer` of its own, of CHUNK + 1 bytes.

    `places`: those of `target`'s blobs, where small files are written at once, if nothing is there: to make
    many in one folder takes twice as long, and a rename as long again. Not for contents that have a row (I1).
    `torn`: those of them that could not be written.
    """

    def __init__(
        self,
        source: LocalBlobs,
        target: StoreDirectory,
        folder: str,
        pace: Pace,
        places: LocalBlobs | None = None,
    ) -> None:
        self._places = places
        self._source = source
        self._target = target
        self._folder = folder
        self._pace = pace
        self._cloning = Cloning.UNKNOWN
        self.torn: list[Copied] = []

    def copy(self, content: Content, buffer: memoryview) -> Copied | Unreadable:
        """Not durable. Raises Stopped, and OSError for what is not the source's fault; then there is no
        file."""
        reason = ""
        for _ in range(TRIES):
            try:
                fd = self._source.open(content.digest)
            except FileNotFoundError:
                return Unreadable(content, "is missing")
            except OSError as error:
                if error.errno not in MEDIUM_ERRORS | NO_FILE:
                    raise
                return Unreadable(content, f"cannot be read: {error.strerror}")
            try:
                copied = self._copy(fd, content, buffer)
                if not isinstance(copied, str):
                    return copied
                reason = copied
                if self._is_its_file(content, fd):
                    break
            finally:
                os.close(fd)
        return Unreadable(content, reason)

    def _is_its_file(self, content: Content, fd: int) -> bool:
        try:
            return os.path.samestat(self._source.status(content.digest), os.fstat(fd))
        except OSError:
            return False

    def _copy(self, fd: int, content: Content, buffer: memoryview) -> Copied | str:
        """What is wrong with the source, in words."""
        if content.size <= CHUNK and self._cloning is not Cloning.YES:
            return self._copy_small(fd, content, buffer)
        size = os.fstat(fd).st_size
        if size != content.size:
            return f"has {size} bytes, should have {content.size}"
        return self._copy_large(fd, content, buffer)

    def _copy_small(self, fd: int, content: Content, buffer: memoryview) -> Copied | str:
        size = content.size
        try:
            count = os.readv(fd, [buffer[: size + 1]])
            while count < size and (more := os.readv(fd, [buffer[count : size + 1]])):
                count += more
        except OSError as error:
            return _unreadable(error)
        if count != size:
            return f"has {count} bytes, should have {size}" if count < size else "has too many bytes"
        data = buffer[:size]
        digest = new_hasher(data).digest()
        if digest != content.digest:
            return f"its bytes have the digest {digest.hex()}"
        self._pace.spend(size)
        in_place = self._create_in_place(content.digest)
        name, target = in_place or self._create()
        try:
            _write(target, data, 0)
            return Copied(content, name, os.fstat(target).st_ino)
        except BaseException:
            if in_place:  # by now it may be the file of somebody else, who has a row of it
                self.torn.append(Copied(content, name, os.fstat(target).st_ino))
            else:
                self._target.unlink(name)
            raise
        finally:
            os.close(target)

    def _copy_large(self, fd: int, content: Content, buffer: memoryview) -> Copied | str:
        name, target = self._create()
        kept = False
        try:
            if self._cloning is not Cloning.NO and self._clone(fd, target):
                self._pace.check()
                try:
                    wrong = _compare(hash_descriptor(target, content.size), content)
                except OSError as error:
                    wrong = _unreadable(error)
            else:
                wrong = stream(fd, target, content, buffer, self._pace)
            if wrong:
                return wrong
            kept = True
            return Copied(content, name, os.fstat(target).st_ino)
        finally:
            os.close(target)
            if not kept:
                self._target.unlink(name)

    def _clone(self, fd: int, target: int) -> bool:
        try:
            clone_range(fd, target)
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
            self._cloning = Cloning.NO
            return False
        self._cloning = Cloning.YES
        return True

    def _create_in_place(self, digest: bytes) -> tuple[str, int] | None:
        """None where there is something already, or where that may not be."""
        if self._places is None:
            return None
        name = self._places.name(digest)
        try:
            return name, self._target.create(name, BLOB_MODE)
        except FileExistsError:
            return None

    def _create(self) -> tuple[str, int]:
        name = f"{self._folder}/{secrets.token_hex(8)}"
        return name, self._target.create(name, BLOB_MODE)


def stream(fd: int, target: int, content: Content, buffer: memoryview, pace: Pace) -> str:
    """Write a content into an empty file, chunks of zeros as holes; what is wrong with it, in words. `fd`: of
    its blob, at its beginning. Raises Stopped, and OSError for what is not the blob's fault."""
    hasher, done = new_hasher(), 0
    while done < content.size:
        try:
            count = os.readv(fd, [buffer[: min(CHUNK, content.size - done)]])
        except OSError as error:
            return _unreadable(error)
        if not count:
            return f"ends after {done} of {content.size} bytes"
        data = buffer[:count]
        pace.spend(count)
        hasher.update(data)
        if data != _HOLE[:count]:
            _write(target, data, done)
        done += count
    os.ftruncate(target, done)  # it may end with a hole
    if os.fstat(fd).st_size != content.size:
        return "has too many bytes"
    return _compare(hasher.digest(), content)


def _compare(digest: bytes, content: Content) -> str:
    return "" if digest == content.digest else f"its bytes have the digest {digest.hex()}"


def _unreadable(error: OSError) -> str:
    """Raises the error again when the disk is not to blame."""
    if error.errno not in MEDIUM_ERRORS:
        raise error
    return f"cannot be read: {error.strerror}"


def _write(fd: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)
