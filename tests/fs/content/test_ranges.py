"""The verbs on ranges, where the file below is not what its row says."""

from __future__ import annotations

import errno
import os

import pytest

from casfs.fs.scheduler import run_inline
from tests.kernel import Kernel
from tests.session import Session

CONTENT = os.urandom(100_000)


@pytest.mark.parametrize("offset", [10, 60_000], ids=["before the cut", "behind it"])
def test_a_copy_from_a_blob_that_is_too_short_is_an_error(
    session: Session, kernel: Kernel, offset: int
) -> None:
    """It was a shorter copy, which cp(1) takes for the end of the file."""
    kernel.write_file("file", CONTENT)
    kernel.sync()
    (blob,) = (session.path / "blobs").glob("*/*")
    blob.chmod(0o600)
    blob.write_bytes(CONTENT[:50_000])
    copy_range = kernel.fs.contents.ranges.copy_range
    with kernel.open("file") as source, kernel.open("copy", os.O_WRONLY | os.O_CREAT) as target:
        with pytest.raises(OSError, match="ends after") as raised:
            run_inline(copy_range(source.handle, offset, target.handle, 0, len(CONTENT)))
        assert raised.value.errno == errno.EIO
        assert target.stat().size == 0
    blob.write_bytes(CONTENT)
    blob.chmod(0o400)
