"""Snapshots as tests want them: of a store in this process, some of them as if they came from elsewhere."""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec

from casfs.fs.scheduler import run_inline
from casfs.maintenance.snapshots.create import create
from casfs.namespace.opening import name_database
from tests.session import Session


def take(session: Session, name: str, **fields: object) -> Path:
    """Make a snapshot, whose manifest has these fields otherwise; its folder."""
    run_inline(create(session.fs, name))
    folder = session.path / "snapshots" / name
    if fields:
        change_manifest(folder, **fields)
    return folder


def change_manifest(folder: Path, **fields: object) -> None:
    """Have the manifest of a snapshot say something else."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest | fields))


def change_database(folder: Path, sql: str, *bindings: object) -> None:
    """Have the database of a snapshot, or what lies in its place, be another one."""
    path = str(folder / "casfs.db")
    name_database(path)
    with apsw.Connection(path) as database:
        database.pragma("journal_mode", "memory")
        database.execute(sql, bindings)
    database.close()
