"""What the commands that search have in common: the store, as of now, and how its paths are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from casfs.errors import NotMounted

if TYPE_CHECKING:
    from casfs.maintenance.search import Search


@contextlib.contextmanager
def search_of(path: str) -> Iterator[tuple[Search, str]]:
    """Of the store at `path` or mounted around it; and what comes before the paths of it: the mount point, if
    `path` lies below one that shows all of the store. Raises as `Store` and `find_mount` do."""
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync
    from casfs.maintenance.search import searching
    from casfs.service.mounts import find_mount

    store, prefix, pid = path, "", None
    with contextlib.suppress(NotMounted):
        mount, _ = find_mount(path)
        store, pid = mount.store, mount.pid
        prefix = mount.mountpoint.rstrip("/") if mount.root == "/" else ""
    StoreAccess(store, pid=pid).tell(Sync())
    with searching(store) as search:
        yield search, prefix
