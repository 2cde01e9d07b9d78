"""Further digests of blobs."""

from __future__ import annotations

import hashlib

from casfs.filestore.hashing import ALGORITHMS, hash_bytes, other_digests
from casfs.namespace.collecting import Collecting
from casfs.namespace.damage import BlobToRead
from casfs.namespace.digests import DigestRow, DigestRun, Kept
from casfs.namespace.namespace import Namespace


def blob(namespace: Namespace, content: bytes, algorithms: tuple[str, ...] = ("sha256",)) -> int:
    made = namespace.blobs.insert(hash_bytes(content), len(content), 0)
    namespace.digests.add(
        DigestRow(made, name, value) for name, value in other_digests(content, algorithms).items()
    )
    return made


def test_a_digest_is_found_whole_and_by_its_beginning(writing: Namespace) -> None:
    made = blob(writing, b"a")
    blob(writing, b"b")
    value = hashlib.sha256(b"a").digest()
    assert writing.digests.find("sha256", value, value) == [DigestRow(made, "sha256", value)]
    low, high = value[:1] + bytes(31), value[:1] + b"\xff" * 31
    assert [row.blob_id for row in writing.digests.find("sha256", low, high)] == [made]
    assert not writing.digests.find("md5", bytes(16), b"\xff" * 16)


def test_what_lacks_a_digest_is_found_in_steps(writing: Namespace) -> None:
    blob(writing, b"a")
    second = blob(writing, b"b", ())
    third = blob(writing, b"c", ("md5",))
    digests = writing.digests
    assert [row.id for row in digests.lacking(["sha256"], 0, 10)] == [second, third]
    assert digests.lacking(["sha256"], 0, 1) == [BlobToRead(second, hash_bytes(b"b"), 1)]
    assert [row.id for row in digests.lacking(["sha256"], second, 10)] == [third]
    assert [row.id for row in digests.lacking(["md5", "sha256"], 0, 10)] == [1, second, third]
    writing.damage.note(second, "torn", 0)
    assert [row.id for row in digests.lacking(["sha256"], 0, 10)] == [third]


def test_what_is_kept_is_counted_by_algorithm(writing: Namespace) -> None:
    blob(writing, b"a", ("md5", "sha1"))
    blob(writing, b"bb", ("sha1",))
    blob(writing, b"c", ())
    assert writing.digests.kept() == [Kept("md5", 1, 1), Kept("sha1", 2, 3)]


def test_a_run_is_kept(writing: Namespace) -> None:
    assert writing.digests.last_run() is None
    writing.digests.save_run(DigestRun(7, 1, 2, 3))
    writing.digests.save_run(DigestRun(7, 2, 3, 4, 9))
    assert writing.digests.last_run() == DigestRun(7, 2, 3, 4, 9)


def test_the_digests_of_a_blob_go_with_it(writing: Namespace) -> None:
    made = blob(writing, b"a", tuple(ALGORITHMS))
    assert writing.digests.of(made).keys() == ALGORITHMS.keys()
    assert writing.blobs.delete_unused(made, -1)
    assert not writing.digests.of(made)
    made = blob(writing, b"a")
    Collecting(writing).delete([made])
    assert not writing.digests.of(made)


def test_a_blob_that_was_collected_gets_no_digest(writing: Namespace) -> None:
    writing.digests.add_to_present([DigestRow(7, "md5", bytes(16))])
    assert not writing.digests.of(7)
    made = blob(writing, b"a", ())
    row = DigestRow(made, "md5", hashlib.md5(b"a").digest())
    writing.digests.add_to_present([row, row])
    assert writing.digests.of(made) == {"md5": row.value}


def test_what_every_content_gets_is_kept_in_order(writing: Namespace) -> None:
    assert writing.digests.wanted() == ()
    writing.digests.set_wanted(["sha256", "md5"])
    assert writing.digests.wanted() == ("md5", "sha256")
