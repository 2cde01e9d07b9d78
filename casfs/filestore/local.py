"""Blobs in a local directory: STORE/blobs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from casfs.filestore import paths
from casfs.filestore.directory import NO_FOLDER, StoreDirectory
from casfs.filestore.durable import Folders
from casfs.filestore.provider import Provider
from casfs.filestore.staging import StagedFile
from casfs.types import Digest

FAN_OUTS = (1, 2, 3)
"""Accepted numbers of hex characters in a shard directory's name: 16, 256 or 4096 directories."""

BLOB_MODE = 0o400
"""Blobs are private to the store's owner and never written again (I2)."""


class Found(NamedTuple):
    """What lies in the folder of some blobs: a file, or anything else.

    `name`: below STORE. `digest`: the one that it stands for, None when it is not named like a blob.
    `is_in_place`: does the blob of that digest belong there?
    """

    name: str
    digest: Digest | None
    is_in_place: bool
    status: os.stat_result


class LocalBlobs(Provider):
    """A store's own blobs: one file each, under the digest in hex, in a shard directory.

    It has no state of its own, and does not tell a torn blob from a whole one: a file is a blob once its
    row is committed, and it is durable before that (I1). The second half is for those who look after the
    files, and find whatever may lie there.
    """

    def __init__(self, directory: StoreDirectory, fan_out: int) -> None:
        self._directory = directory
        self._paths = paths.BlobPaths(fan_out)

    def create(self) -> None:
        for folder in self.folders():
            self._directory.make_folder(folder)
        self._directory.sync(paths.ROOT)
        self._directory.sync(".")

    def open(self, digest: bytes) -> int:
        return self._directory.open(self._paths.blob(digest))

    def size(self, digest: bytes) -> int | None:
        try:
            status = self._directory.status(self._paths.blob(digest))
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def prefixes(self) -> list[str]:
        return list(self._paths.prefixes())

    def enumerate(self, prefix: str) -> Iterator[Digest]:
        try:
            names = self._directory.names(self._paths.shard(prefix))
        except OSError as error:
            if error.errno not in NO_FOLDER:
                raise
            return
        for name in names:
            digest = self._paths.digest_of(prefix, name)
            if digest is not None:
                yield digest

    def publish_bytes(self, blobs: Mapping[bytes, bytes | bytearray]) -> None:
        # Written where they stay: a rename would cost as much again, and until its row is committed, which is
        # after it is durable (I1), a blob file is nobody's anyhow.
        blob = self._paths.blob
        self._directory.write_files([(blob(digest), data, BLOB_MODE) for digest, data in blobs.items()])

    def publish_file(self, digest: bytes, staged: StagedFile, *, keep: bool) -> None:
        source, target = staged.path, self._paths.blob(digest)
        os.fchmod(staged.fd, BLOB_MODE)
        if not keep:
            self._directory.rename(source, target)
            return
        try:
            self._directory.link(source, target)
        except FileExistsError:
            self._directory.unlink(target)
            self._directory.link(source, target)

    def adopt(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Make files below STORE, given by their names, the blobs of digests; what is there is replaced.
        Quick when the names lie in one folder, and the digests are in order. Not durable. Raises OSError."""
        self._directory.durable.rename_all(
            ((name, self._paths.blob(digest)) for name, digest in files), dir_fd=self._directory.fd
        )

    def numbers(self, digests: Iterable[bytes]) -> Iterator[int | None]:
        """st_ino of the file of each; None where there is none. Quick when they are in order."""
        with Folders(self._directory.fd) as folders:
            for digest in digests:
                above, name = folders.find(self._paths.blob(digest))
                try:
                    yield os.stat(name, dir_fd=above, follow_symlinks=False).st_ino
                except FileNotFoundError:
                    yield None

    def link(self, digest: bytes, target: str) -> None:
        self._directory.link(self._paths.blob(digest), target)

    def remove(self, digest: bytes) -> None:
        self._directory.unlink(self._paths.blob(digest))

    def sync_bytes(self, digests: Iterable[bytes]) -> None:
        for digest in digests:
            self._directory.sync(self._paths.blob(digest))

    def sync_names(self, digests: Iterable[bytes]) -> None:
        for shard in sorted({self._paths.shard_of(digest) for digest in digests}):
            self._directory.sync(shard)

    def sync_all(self) -> None:
        self._directory.sync_all()

    # Looking after the files

    def name(self, digest: bytes) -> str:
        """Where the file of a blob is, or would be, below STORE."""
        return self._paths.blob(digest)

    def path(self, digest: bytes) -> str:
        """The same, for people to read."""
        return f"{self._directory.path}/{self._paths.blob(digest)}"

    def status(self, digest: bytes) -> os.stat_result:
        """What lies where the file of a blob should be: also a link, a fifo, a folder. Raises OSError."""
        return self._directory.status(self._paths.blob(digest))

    def hold(self, digest: bytes) -> int:
        """A descriptor that keeps the file's space while its name goes. Nothing can be read by it, and it
        stands in the way of no lease."""
        return self._directory.place(self._paths.blob(digest))

    def folders(self) -> list[str]:
        """Every folder that has to be there, below STORE, outer ones first."""
        return [paths.ROOT, *map(self._paths.shard, self._paths.prefixes())]

    def found(self, prefix: str) -> Iterator[Found]:
        """Whatever lies in the folder of a prefix; nothing if there is no folder."""
        shard = self._paths.shard(prefix)
        for name, status in self._directory.entries(shard):
            digest = paths.digest_of_name(name)
            yield Found(f"{shard}/{name}", digest, name.startswith(prefix), status)

    def foreign_entries(self) -> Iterator[str]:
        """What lies among the folders of the prefixes, and is none, below STORE."""
        known = set(self._paths.prefixes())
        for name, status in self._directory.entries(paths.ROOT):
            if name not in known or not _is_folder(status):
                yield f"{paths.ROOT}/{name}"


def _is_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)
