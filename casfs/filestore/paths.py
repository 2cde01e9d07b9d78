"""The one mapping digest <-> path below STORE: `blobs/<fan-out hex characters>/<64 hex characters>`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from casfs.types import DIGEST_SIZE, Digest

ROOT = "blobs"

_BLOB_NAME = re.compile(rf"[0-9a-f]{{{2 * DIGEST_SIZE}}}")


class BlobPaths:
    """Where the blob of a digest lies. A *prefix* is what the digests in one shard directory begin with."""

    def __init__(self, fan_out: int) -> None:
        self.fan_out = fan_out

    def blob(self, digest: bytes) -> str:
        name = digest.hex()
        return f"blobs/{name[: self.fan_out]}/{name}"

    def shard(self, prefix: str) -> str:
        return f"{ROOT}/{prefix}"

    def shard_of(self, digest: bytes) -> str:
        return f"{ROOT}/{digest.hex()[: self.fan_out]}"

    def prefixes(self) -> Iterator[str]:
        """One for each shard directory, whether it exists or not, in order."""
        for number in range(16**self.fan_out):
            yield f"{number:0{self.fan_out}x}"

    def digest_of(self, prefix: str, name: str) -> Digest | None:
        """The digest a file in a shard directory stands for; None for a name or a place no blob has."""
        return digest_of_name(name) if name[: self.fan_out] == prefix else None


def digest_of_name(name: str) -> Digest | None:
    """The digest whose text form `name` is."""
    return Digest(bytes.fromhex(name)) if _BLOB_NAME.fullmatch(name) else None
