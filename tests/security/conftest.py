"""Fixtures for what users try who are not to be let in. They need root, and several users."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.conftest import mode, mount, new_mount, readable  # noqa: F401 (fixtures)
from tests.mounted.mounts import MODES, Mount
from tests.mounted.sides import Sides

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mounted)


@pytest.fixture(scope="module", params=MODES)
def shared(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount, as root makes it for everybody, with the store on a disk; one for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="casfs-users-") as name:
        place = Path(name)
        place.chmod(0o755)
        mount = Mount(place / "store", place / "mnt", "allow_other", mode=request.param)
        (place / "disk").mkdir()
        try:
            mount.start().assert_mode()
            yield mount
            mount.finish()
        finally:
            mount.clear()


@pytest.fixture
def sides(shared: Mount, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """An empty directory of root's in the mount, and one on the disk below it."""
    name = re.sub(r"\W+", "-", request.node.name)
    model = shared.store.parent / "disk" / name
    for folder in (shared.path / name, model):
        folder.mkdir(mode=0o755)
    yield Sides(shared, shared.path / name, model)
    assert not shared.complaints()
    shutil.rmtree(model)
