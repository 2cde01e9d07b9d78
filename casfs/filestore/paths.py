"""The one mapping digest <-> path: `blobs/<fan-out hex characters>/<64 hex characters>`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from casfs.types import DIGEST_SIZE, Digest

FAN_OUTS = (1, 2, 3)
"""Accepted numbers of hex characters in a shard directory's name: 16, 256 or 4096 directories."""

_BLOB_NAME = re.compile(rf"[0-9a-f]{{{2 * DIGEST_SIZE}}}")


class BlobPaths:
    """Where the blob of a digest lies below `root` (absolute path of `blobs/`)."""

    def __init__(self, root: str, fan_out: int) -> None:
        self.root = root
        self.fan_out = fan_out

    def blob(self, digest: bytes) -> str:
        name = digest.hex()
        return f"{self.root}/{name[: self.fan_out]}/{name}"

    def shard(self, digest: bytes) -> str:
        return f"{self.root}/{digest.hex()[: self.fan_out]}"

    def shards(self) -> Iterator[str]:
        """Every shard directory, whether it exists or not, in order."""
        for number in range(16**self.fan_out):
            yield f"{self.root}/{number:0{self.fan_out}x}"

    def digest_of(self, path: str) -> Digest | None:
        """The digest a file at `path` stands for; None for a name or a place no blob has."""
        shard, name = os.path.split(path)
        if not _BLOB_NAME.fullmatch(name) or os.path.basename(shard) != name[: self.fan_out]:
            return None
        return Digest(bytes.fromhex(name))
