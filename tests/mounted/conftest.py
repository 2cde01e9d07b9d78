"""Fixtures for tests through the kernel. What a test leaves behind is taken away, and makes it fail."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounted.disks import SMALLEST, Disk
from tests.mounted.mounts import MODES, Mount
from tests.mounted.sides import Sides
from tests.mounted.trees import collect_tree

HERE = Path(__file__).parent
MEMORY = "/dev/shm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.mounted)


@pytest.fixture(autouse=True)
def readable(scratch: Path) -> Path:
    """Other users may walk through the test's folder to the mount points in it."""
    scratch.chmod(0o755)
    return scratch


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """With the native accelerator, or without."""
    mode: str = request.param
    return mode


@pytest.fixture
def new_mount(scratch: Path, mode: str) -> Iterator[Callable[..., Mount]]:
    """Make stores to be mounted; after the test they are unmounted, sound, and nobody has complained."""
    made: list[Mount] = []

    def new(store: Path | None = None, **options: str) -> Mount:
        number = len(made)
        mount = Mount(store or scratch / f"store{number}", scratch / f"mnt{number}", mode=mode, **options)
        made.append(mount)
        return mount

    try:
        yield new
        for mount in made:
            mount.finish()
    finally:
        for mount in made:
            mount.clear()


@pytest.fixture
def mount(new_mount: Callable[..., Mount]) -> Mount:
    """An empty store, mounted."""
    mount = new_mount().start()
    mount.assert_mode()
    return mount


@pytest.fixture
def mnt(mount: Mount) -> Path:
    """The mount point of `mount`."""
    return mount.path


@pytest.fixture(scope="module", params=MODES)
def common_mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all tests of a module, with the store on a disk, as stores are."""
    place = tmp_path_factory.mktemp("common")
    mount = Mount(place / "store", place / "mnt", mode=request.param)
    try:
        mount.start().assert_mode()
        yield mount
        mount.finish()
    finally:
        mount.clear()
        shutil.rmtree(place)


@pytest.fixture
def sides(common_mount: Mount, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """An empty directory of the common mount, and one of the disk below it."""
    name = re.sub(r"\W", "-", request.node.name)
    model = tmp_path / "model"
    for folder in (common_mount.path / name, model):
        folder.mkdir()
    yield Sides(common_mount, common_mount.path / name, model)
    assert not common_mount.complaints()


@pytest.fixture
def new_disk(scratch: Path) -> Iterator[Callable[..., Disk]]:
    """Make disks, mounted; after the test they are gone. Comes before `new_mount` in a test that has both."""
    made: list[Disk] = []

    def new(kind: str, size: int | None = None, folder: Path | None = None, inodes: int = 0) -> Disk:
        disk = Disk((folder or scratch) / f"disk{len(made)}.{kind}", kind)
        made.append(disk)
        return disk.make(size or SMALLEST[kind], inodes).mount()

    try:
        yield new
    finally:
        for disk in reversed(made):
            disk.clear()


@pytest.fixture(scope="session")
def real_tree() -> Iterator[Path]:
    """More than 5,000 real files of this machine, with every kind of entry and attribute among them."""
    with tempfile.TemporaryDirectory(prefix="casfs-tree-", dir=MEMORY) as name:
        tree = Path(name) / "tree"
        collect_tree(tree)
        yield tree
