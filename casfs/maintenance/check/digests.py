"""fsck of further digests of blobs: told as problems, and mended.

All of them can be computed again from the blobs, which is what `check --deep`, and of some any check, does.
"""

from __future__ import annotations

from casfs.filestore.hashing import ALGORITHMS
from casfs.maintenance.check.problems import PATHS, Findings, Kind
from casfs.namespace.checks import Checks
from casfs.namespace.damage import BlobToRead
from casfs.namespace.digest_checks import DigestChecks
from casfs.namespace.digests import DigestRow
from casfs.namespace.namespace import Namespace

SAMPLE = 100
"""Blobs whose further digests any check computes again ..."""

SAMPLE_BYTES = 64 << 20
"""... unless they have more bytes than this together."""


def digest_checks(namespace: Namespace) -> DigestChecks:
    """Those for the algorithms that there are."""
    return DigestChecks(namespace, {name: algorithm.size for name, algorithm in ALGORITHMS.items()})


def check_digests(namespace: Namespace, checks: Checks, findings: Findings) -> None:
    """What the rows alone tell. Inside a snapshot. Raises DatabaseError."""
    rows = digest_checks(namespace)
    for blob_id, algorithm, is_stray in rows.bad():
        shown = algorithm if isinstance(algorithm, str) else repr(algorithm)
        if is_stray:
            detail = f"a digest {shown:.40} is of blob {blob_id}, which is not in the database"
            findings.add(Kind.STRAY_FURTHER_DIGEST, detail)
        else:
            detail = f"what blob {blob_id} has for its digest {shown:.40} is none"
            findings.add(Kind.BAD_FURTHER_DIGEST, detail, checks.paths_of_blob, blob_id, PATHS)
    for name in rows.unknown_wanted():
        findings.add(Kind.BAD_FURTHER_DIGEST, f"every content is to get a digest that is none: {name:.40}")


def sample(namespace: Namespace) -> list[BlobToRead]:
    """Some blobs to be read, with the digests to be compared. Raises DatabaseError."""
    found: list[BlobToRead] = []
    left = SAMPLE_BYTES
    for blob in digest_checks(namespace).sample(SAMPLE):
        left -= blob.size
        if left < 0:
            break
        found.append(blob)
    return found


def mend_digests(namespace: Namespace, right: tuple[DigestRow, ...]) -> None:
    """`right`: values of those that were found to be wrong. Inside a write transaction. Raises
    DatabaseError."""
    rows = digest_checks(namespace)
    rows.remove_bad()
    rows.correct(right)
