"""A store's directory and filestore, with the durable seam watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.filestore.directory import StoreDirectory
from casfs.filestore.filestore import FileStore
from tests.faults import FaultyDurable

pytest.register_assert_rewrite("tests.filestore.conformance")


@pytest.fixture
def seam() -> FaultyDurable:
    return FaultyDurable()


@pytest.fixture
def directory(scratch: Path, seam: FaultyDurable) -> Iterator[StoreDirectory]:
    directory = StoreDirectory(str(scratch), seam)
    yield directory
    directory.close()


@pytest.fixture
def filestore(directory: StoreDirectory, seam: FaultyDurable) -> Iterator[FileStore]:
    filestore = FileStore(directory, 1)
    filestore.create()
    seam.calls.clear()
    yield filestore
    filestore.staging.close()
    assert filestore.staging.names() == []
