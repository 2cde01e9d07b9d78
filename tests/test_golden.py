"""Stores of every past format can be used."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FormatError
from casfs.filestore.paths import BlobPaths
from casfs.namespace.connection import SCHEMA_VERSION
from casfs.store import Store, create_store, read_config
from tests.session import Session

GOLDEN = Path(__file__).parent / "golden"
CONTENTS = (b"content", b"orphan")


@pytest.fixture(params=range(1, SCHEMA_VERSION))
def golden(store_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store with a database of an old format."""
    for left in store_path.glob("casfs.db*"):
        left.unlink()
    with closing(sqlite3.connect(store_path / "casfs.db", isolation_level=None)) as database:
        database.executescript((GOLDEN / f"version{request.param}.sql").read_text())
        database.execute("PRAGMA journal_mode = WAL").fetchall()
    (store_path / "casfs.db").chmod(0o600)
    paths = BlobPaths(str(store_path / "blobs"), read_config(str(store_path)).fan_out)
    for content in CONTENTS:
        blob = Path(paths.blob(blake3(content).digest()))
        blob.write_bytes(content)
        blob.chmod(0o400)
    return store_path


def test_who_only_reads_leaves_an_old_format_alone(golden: Path) -> None:
    with pytest.raises(FormatError, match="older format") as raised:
        Store(str(golden), readonly=True)
    assert "mount it once" in str(raised.value)
    Session(golden).stop()


def test_what_an_old_release_wrote_is_there_and_work_goes_on(golden: Path) -> None:
    session = Session(golden)
    kernel = session.kernel
    assert kernel.read_file("top/file") == kernel.read_file("top/same") == b"content"
    assert kernel.inode("link") is kernel.inode("top/file")
    assert kernel.getxattr("top/file", b"user.a") == b"b"
    assert session.store.namespace.version == SCHEMA_VERSION
    before = kernel.tree()
    kernel.write_file("new", b"orphan")
    kernel.unlink("new")
    assert session.reopen().tree().keys() == before.keys()
    session.stop()


def test_a_migrated_database_is_as_a_new_one(golden: Path, scratch: Path) -> None:
    Session(golden).stop()
    create_store(str(scratch / "new"))

    def schema(path: Path) -> list[str]:
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            return [" ".join(re.sub(r"--.*", "", sql).split()) for (sql,) in rows]

    assert schema(golden / "casfs.db") == schema(scratch / "new" / "casfs.db")
