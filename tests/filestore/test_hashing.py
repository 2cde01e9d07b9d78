"""Every way of making a digest."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from casfs.filestore import hashing
from casfs.filestore.hashing import hash_bytes, hash_descriptor, new_hasher


@given(content=st.binary(max_size=300), chunk=st.integers(1, 64))
def test_every_way_of_hashing_agrees(content: bytes, chunk: int) -> None:
    expected = blake3(content).digest()
    assert hash_bytes(content) == hash_bytes(bytearray(content)) == expected
    hasher = new_hasher(content[:chunk])
    hasher.update(memoryview(content)[chunk:])
    assert hasher.digest() == expected
    fd = os.memfd_create("test")
    with pytest.MonkeyPatch.context() as patch, os.fdopen(fd, "r+b") as file:
        patch.setattr(hashing, "HASH_CHUNK", chunk)
        file.write(content)
        file.flush()
        assert hash_descriptor(file.fileno(), len(content)) == expected


def test_hashing_more_than_there_is_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        assert isinstance(file, io.BufferedIOBase)
        with pytest.raises(OSError, match="3 of 4") as raised:
            hash_descriptor(file.fileno(), 4)
    assert raised.value.errno == errno.EIO
