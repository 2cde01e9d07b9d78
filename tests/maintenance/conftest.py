"""A small store with one of everything, made once, copied for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.maintenance.offline import opened
from casfs.store import create_store
from tests.maintenance.stores import Damaged, fill

MEMORY = "/dev/shm"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where the machine has such a place: repair syncs whole file systems."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else str(tmp_path_factory.getbasetemp())
    with tempfile.TemporaryDirectory(prefix="casfs-test-", dir=place) as folder:
        path = Path(folder) / "template"
        create_store(str(path), fan_out=1)
        with opened(str(path)) as fs:
            fill(fs)
        yield path


@pytest.fixture
def store(template: Path) -> Iterator[Damaged]:
    """/a/one = /b/link; /a/deep/two, /b/two again: one content; /b/empty, /b/fifo, /b/symlink; an orphan."""
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        path = Path(folder) / "store"
        shutil.copytree(template, path)
        yield Damaged(path)
