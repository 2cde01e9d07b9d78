"""Searches ask an index where there is one, and go through the rest one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from casfs.namespace import searches
from casfs.namespace.namespace import Namespace
from casfs.namespace.searches import (
    Digested,
    DigestRange,
    Owner,
    PropertyMatch,
    Statement,
    TokenMatch,
    Wanted,
)

ORG, MODULE = TokenMatch("organisation", "a"), TokenMatch("module", "b")
MANY = TokenMatch("organisation", "a*"), TokenMatch("module", "b*")
NO_DIGEST, NO_OWNER = Digested(b"", 0), Owner("", 0)
SHA1 = DigestRange("sha1", bytes(20), b"\xff" * 20)
BLAKE3 = DigestRange("blake3", bytes(32), b"\xff" * 32)
ALL = Wanted((SHA1, BLAKE3), (PropertyMatch("a", "b"), PropertyMatch("c")), (ORG,), (5,), artifacts=True)


@pytest.fixture
def namespace(store_path: Path) -> Iterator[Namespace]:
    with closing(Namespace(str(store_path / "casfs.db"), readonly=True)) as opened:
        yield opened


def plan(namespace: Namespace, statement: Statement) -> list[str]:
    """EXISTS is what SQLite since 3.51 says of a subquery that it has made a join of."""
    sql, values = statement
    return [row[3].replace(" EXISTS ", " ") for row in namespace.query(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(tokens=(ORG, MODULE)), "artifact_module (organisation=? AND module=?)"),
        (Wanted(tokens=(ORG, MODULE), repositories=(5,)), "artifact_module (organisation=? AND module=?)"),
        (
            Wanted(tokens=(ORG, MODULE, TokenMatch("revision", "1.*"))),
            "artifact_module (organisation=? AND module=?)",
        ),
        (Wanted(tokens=(ORG,)), "artifact_module (organisation=?)"),
        (Wanted(tokens=(MODULE,)), "artifact_module (organisation=? AND module=?)"),
        (Wanted(tokens=(MODULE,), repositories=(5,)), "artifact_module (organisation=? AND module=?)"),
        (Wanted(repositories=(5, 6)), "artifact_repository (repository=?)"),
        (Wanted(tokens=MANY, repositories=(5,)), "artifact_repository (repository=?)"),
    ],
)
def test_tokens_are_looked_up_in_an_index(namespace: Namespace, wanted: Wanted, index: str) -> None:
    lines = plan(namespace, searches.directories_query(wanted))
    assert any(index in line for line in lines), lines
    assert not any(line in ("SCAN a", "SCAN artifact") for line in lines), lines


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (
            searches.contents_query(SHA1, NO_DIGEST, 9),
            ["blob_digest_value (algorithm=? AND value>? AND value<?)"],
        ),
        (searches.contents_query(BLAKE3, NO_DIGEST, 9), ["sqlite_autoindex_blob_1 (blake3>? AND blake3<?)"]),
        (searches.inodes_of_blobs_query([1]), ["i USING COVERING INDEX inode_blob (blob_id=?)"]),
        (searches.inodes_of_blob_query(1, 0, 9), ["inode_blob (blob_id=? AND rowid>?)"]),
        (
            searches.property_query(PropertyMatch("a", "b"), NO_OWNER, 9),
            ["property_value (key=? AND value=? AND ino>?)"],
        ),
        (
            searches.property_query(PropertyMatch("a"), NO_OWNER, 9),
            [
                "p USING COVERING INDEX property_value (key=? AND (value,ino)>(?,?))",
                "(ino=? AND key=? AND value<?)",
            ],
        ),
        (
            searches.property_query(PropertyMatch("a", "b*"), NO_OWNER, 9),
            [
                "p USING COVERING INDEX property_value (key=? AND (value,ino)>(?,?))",
                "(ino=? AND key=? AND value<?)",
            ],
        ),
        (
            searches.inodes_query([1, 2], ALL),
            [
                "i USING INTEGER PRIMARY KEY (rowid=?)",
                "d USING INDEX dentry_ino (ino=?)",
                "a USING PRIMARY KEY (parent=? AND name=?)",
                "g USING PRIMARY KEY (blob_id=? AND algorithm=?)",
                "b USING INTEGER PRIMARY KEY (rowid=?)",
                "p USING PRIMARY KEY (ino=? AND key=?)",
                "p USING PRIMARY KEY (ino=? AND key=?)",
            ],
        ),
        (
            searches.directory_query(1, ALL, b"", 9),
            [
                "d USING PRIMARY KEY (parent=? AND name>?)",
                "i USING INTEGER PRIMARY KEY (rowid=?)",
                "a USING PRIMARY KEY (parent=? AND name=?)",
                "g USING PRIMARY KEY (blob_id=? AND algorithm=?)",
                "p USING PRIMARY KEY (ino=? AND key=?)",
            ],
        ),
        (
            searches.revisions_query(5, "a", "b", ALL),
            ["artifact_module (organisation=? AND module=?)", "d USING PRIMARY KEY (parent=? AND name=?)"],
        ),
    ],
)
def test_each_statement_uses_its_indexes(
    namespace: Namespace, statement: Statement, indexes: list[str]
) -> None:
    lines = plan(namespace, statement)
    assert [index for index in indexes if not any(index in line for line in lines)] == [], lines
    assert not any(line.startswith("SCAN") and "s VIRTUAL" not in line for line in lines), lines
    assert not any("TEMP B-TREE FOR ORDER BY" in line for line in lines), lines
