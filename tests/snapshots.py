"""Snapshots made by hand: a copy of the database of a store that nobody uses."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import apsw


def take(store: Path, name: str, serial: int, *, here: bool = True, into: Path | None = None) -> Path:
    """Make a snapshot of a store, in its own folder or that of the store `into`."""
    folder = (into or store) / "snapshots" / name
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    with (
        closing(apsw.Connection(str(store / "casfs.db"), flags=apsw.SQLITE_OPEN_READONLY)) as live,
        closing(apsw.Connection(str(folder / "casfs.db"))) as copy,
    ):
        with copy.backup("main", live, "main") as backup:
            backup.step(-1)
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        copy.execute("DELETE FROM inode WHERE nlink = 0").fetchall()
    (folder / "manifest.json").write_text(json.dumps({"name": name, "serial": serial, "here": here}))
    return folder
