"""The one mapping digest <-> path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.filestore.local import FAN_OUTS
from casfs.filestore.paths import BlobPaths, digest_of_name

DIGESTS = st.binary(min_size=32, max_size=32)


@given(digest=DIGESTS, fan_out=st.sampled_from(FAN_OUTS))
def test_digest_to_path_and_back(digest: bytes, fan_out: int) -> None:
    paths = BlobPaths(fan_out)
    path = paths.blob(digest)
    blobs, prefix, name = path.split("/")
    assert (blobs, name) == ("blobs", digest.hex())
    assert paths.digest_of(prefix, name) == digest
    assert paths.shard_of(digest) == paths.shard(prefix) == f"blobs/{prefix}"
    assert prefix in set(paths.prefixes())


@pytest.mark.parametrize(("fan_out", "count"), [(1, 16), (2, 256), (3, 4096)])
def test_prefixes_in_order(fan_out: int, count: int) -> None:
    prefixes = list(BlobPaths(fan_out).prefixes())
    assert len(set(prefixes)) == count
    assert prefixes == sorted(prefixes)
    assert (prefixes[0], prefixes[-1]) == ("0" * fan_out, "f" * fan_out)


@pytest.mark.parametrize(
    "name",
    ["ab" * 31, "ab" * 33, "AB" * 32, "ab" * 31 + "g0", "ab" * 32 + ".tmp", "ab" * 32 + "\n", ""],
)
def test_what_is_named_otherwise_has_no_digest(name: str) -> None:
    assert digest_of_name(name) is None
    assert BlobPaths(2).digest_of("ab", name) is None


def test_in_another_shard_there_is_no_blob() -> None:
    assert BlobPaths(2).digest_of("ac", "ab" * 32) is None
    assert digest_of_name("ab" * 32) == b"\xab" * 32
