"""What the commands that search have in common: the store, as of now, and how its paths are shown."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from casfs.errors import NotMounted
from casfs.text import printable

if TYPE_CHECKING:
    from casfs.cli.arguments import Parser
    from casfs.maintenance.query import Query
    from casfs.maintenance.search import Search, Source


def add_where(parser: Parser, what: str) -> None:
    """Terms of a query, as `args.where`; [] without."""
    parser.add_argument(
        "--where",
        metavar="TERM",
        nargs="+",
        action="extend",
        default=[],
        help=f"{what}, as in 'prop.qa=passed' 'older=30d'; see casfs help searching",
    )


def note(line: str) -> None:
    """Tell a person what programs that read the output are not to see."""
    print(f"casfs: note: {printable(line)}", file=sys.stderr)


def notes_of(search: Search, query: Query, source: Source) -> list[str]:
    """What a person has to know of an answer. Raises NothingFound for what cannot be answered."""
    notes = []
    if source.scan:
        where = (
            ""
            if source.directories in ((), (b"/",))
            else f" below {', '.join(map(printable, source.directories))}"
        )
        what = "contents" if query.duplicates else "files"
        notes.append(f"no index answers this: all {what}{where} are looked at")
    if query.unused_ns is not None:
        notes += search.notes_on_access_times(query.unused_ns)
    return notes


@contextlib.contextmanager
def search_of(path: str, *, seal: bool = False) -> Iterator[tuple[Search, str]]:
    """Of the store at `path` or mounted around it; and what comes before the paths of it: the mount point, if
    `path` lies below one that shows all of the store. `seal`: what was closed has its digest. Raises as
    `Store` and `find_mount` do."""
    from casfs.control.access import StoreAccess
    from casfs.control.messages import Sync
    from casfs.maintenance.search import searching
    from casfs.service.mounts import find_mount

    store, prefix, pid = path, "", None
    with contextlib.suppress(NotMounted):
        mount, _ = find_mount(path)
        store, pid = mount.store, mount.pid
        prefix = mount.mountpoint.rstrip("/") if mount.root == "/" else ""
    StoreAccess(store, pid=pid).tell(Sync(seal=seal))
    with searching(store) as search:
        yield search, prefix
