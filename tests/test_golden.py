"""Stores of every format there was, and is, can be used, and become the same one."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from blake3 import blake3

from casfs.errors import FormatError
from casfs.filestore.paths import BlobPaths
from casfs.maintenance.digests.migration import FAST, add_digests
from casfs.maintenance.progress import unwatched
from casfs.namespace.schema import SCHEMA_VERSION
from casfs.store import Store, create_store, read_config
from tests.session import Session

GOLDEN = Path(__file__).parent / "golden"
CONTENTS = (b"content", b"orphan")


@pytest.fixture(params=range(1, SCHEMA_VERSION + 1))
def version(request: pytest.FixtureRequest) -> int:
    """Every format. The present one is among them, so that it is not changed without a new number."""
    return int(request.param)


@pytest.fixture
def golden(store_path: Path, version: int) -> Path:
    """A store with a database of that format."""
    for left in store_path.glob("casfs.db*"):
        left.unlink()
    with closing(sqlite3.connect(store_path / "casfs.db", isolation_level=None)) as database:
        database.executescript((GOLDEN / f"version{version}.sql").read_text())
        database.execute("PRAGMA journal_mode = WAL").fetchall()
    (store_path / "casfs.db").chmod(0o600)
    paths = BlobPaths(read_config(str(store_path)).fan_out)
    for content in CONTENTS:
        blob = store_path / paths.blob(blake3(content).digest())
        blob.write_bytes(content)
        blob.chmod(0o400)
    return store_path


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
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


def test_what_an_old_release_wrote_gets_further_digests(golden: Path) -> None:
    session = Session(golden)
    session.stop()
    store = Store(str(golden), shared=True)
    with closing(store), closing(sqlite3.connect(golden / "casfs.db", isolation_level=None)) as database:
        database.execute("INSERT OR REPLACE INTO meta VALUES ('digests', 'sha256')")
        report = add_digests(store, pace=FAST, progress=unwatched, damaged=[].extend)
        assert (report.complete, report.bad) == (True, ())
        found = database.execute("SELECT blake3, value FROM blob JOIN blob_digest ON blob_id = id").fetchall()
    known = {blake3(content).digest(): sha256(content).digest() for content in CONTENTS}
    assert dict(found).items() <= known.items()
    assert (blake3(b"content").digest(), sha256(b"content").digest()) in found


def structure(store: Path) -> dict[str, object]:
    """What the tables and indexes of a store's database are made of, by name."""
    with closing(sqlite3.connect(store / "casfs.db")) as database:

        def rows(sql: str, *values: object) -> list[tuple[object, ...]]:
            return database.execute(sql, values).fetchall()

        found: dict[str, object] = {}
        for name, sql in rows("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
            found[f"{name}: sql"] = " ".join(re.sub(r"--.*", "", str(sql)).split())
        for name, *kind in rows("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main'"):
            found[f"{name}: kind"] = kind
            found[f"{name}: columns"] = rows("SELECT * FROM pragma_table_xinfo(?) ORDER BY cid", name)
            for index, *how in rows('SELECT name, "unique", origin, partial FROM pragma_index_list(?)', name):
                found[f"{index} of {name}"] = how, rows("SELECT * FROM pragma_index_xinfo(?)", index)
    return found


def test_a_migrated_database_is_as_a_new_one(golden: Path, scratch: Path) -> None:
    Session(golden).stop()
    create_store(str(scratch / "new"))
    assert structure(golden) == structure(scratch / "new")


@pytest.mark.parametrize("version", [1])
def test_the_trash_of_a_store_that_had_none_begins_as_in_a_new_one(golden: Path, scratch: Path) -> None:
    create_store(str(scratch / "new"))
    rules = []
    for path in (golden, scratch / "new"):
        session = Session(path)
        rules.append(session.store.namespace.trash.rules())
        session.stop()
    assert rules[0] == rules[1] != []
