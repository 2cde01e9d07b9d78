"""The one mapping digest <-> path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.filestore.paths import FAN_OUTS, BlobPaths

DIGESTS = st.binary(min_size=32, max_size=32)


@given(digest=DIGESTS, fan_out=st.sampled_from(FAN_OUTS))
def test_digest_to_path_and_back(digest: bytes, fan_out: int) -> None:
    paths = BlobPaths("/store/blobs", fan_out)
    path = paths.blob(digest)
    assert path == f"{paths.shard(digest)}/{digest.hex()}"
    assert paths.digest_of(path) == digest
    assert paths.shard(digest) in set(paths.shards())


@pytest.mark.parametrize(("fan_out", "count"), [(1, 16), (2, 256), (3, 4096)])
def test_shards_in_order(fan_out: int, count: int) -> None:
    shards = list(BlobPaths("/b", fan_out).shards())
    assert len(set(shards)) == count
    assert shards == sorted(shards)
    assert shards[0] == "/b/" + "0" * fan_out
    assert shards[-1] == "/b/" + "f" * fan_out


@pytest.mark.parametrize(
    "path",
    [
        "/b/ab/" + "ab" * 31,
        "/b/ab/" + "ab" * 33,
        "/b/ab/" + "AB" * 32,
        "/b/ab/" + "ab" * 31 + "g0",
        "/b/ac/" + "ab" * 32,
        "/b/a/" + "ab" * 32,
        "/b/ab/" + "ab" * 32 + ".tmp",
        "/b/ab/" + "ab" * 32 + "\n",
        "/b/ab/",
    ],
)
def test_what_is_no_blob_has_no_digest(path: str) -> None:
    assert BlobPaths("/b", 2).digest_of(path) is None
