"""Terms of a query: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import hashlib
import re

import pytest
from blake3 import blake3

from casfs.cli import find
from casfs.errors import UsageError
from casfs.maintenance.query import (
    COLUMNS,
    DIGEST_BYTES,
    Pattern,
    Query,
    digest_range,
    literal_directory,
    parse,
)
from casfs.namespace.searches import PropertyMatch, TokenMatch

NOW = 2_000_000_000_000_000_000
DAY = 86_400_000_000_000


def parsed(*terms: str) -> Query:
    return parse(terms, NOW)


def test_each_term_has_its_meaning() -> None:
    assert parsed() == Query()
    assert parsed("prop.qa=passed", "!prop.keep", "prop.a.b") == Query(
        properties=(
            PropertyMatch("qa", "passed"),
            PropertyMatch("keep", None, True),
            PropertyMatch("a.b"),
        )
    )
    assert parsed("prop.x=a=b<c>d", "prop.y=").properties == (
        PropertyMatch("x", "a=b<c>d"),
        PropertyMatch("y", ""),
    )
    assert parsed("org=acme", "!rev=1.*", "classifier=").tokens == (
        TokenMatch("organisation", "acme"),
        TokenMatch("revision", "1.*", True),
        TokenMatch("classifier", ""),
    )
    assert parsed("repo=a", "repo=b").repositories == (b"a", b"b")
    assert parsed("name=*.jar", "!name=a").names == (Pattern("*.jar"), Pattern("a", True))
    assert parsed("path=libs/*", "path=//a").paths == (Pattern("/libs/*"), Pattern("/a"))
    assert parsed("size>10M", "size>1K", "size<2G", "size<1G") == Query(larger=10 << 20, smaller=1 << 30)
    assert parsed("older=30d", "older=1d", "unused=90d") == Query(
        before_ns=NOW - 30 * DAY, unused_ns=NOW - 90 * DAY
    )
    assert parsed("newer=2001-09-09T01:46:40Z").since_ns == 1_000_000_000_000_000_000
    assert parsed("newer=3d", "newer=5d").since_ns == NOW - 3 * DAY
    assert parsed("keep=3", "keep=2", "snapshots") == Query(keep=3, snapshot=True)
    flags = Query(snapshot=False, companions=True, duplicates=True, trash=True)
    assert parsed("releases", "companions", "duplicates", "trash") == flags


def test_artifacts_are_looked_for_where_a_term_is_about_them() -> None:
    for term in ("org=a", "repo=a", "releases", "keep=1", "companions", "!ext=jar"):
        assert parsed(term).artifacts
    for term in (
        "sha1=ab",
        "prop.a",
        "name=a",
        "path=/a",
        "size>1",
        "older=1d",
        "unused=1d",
        "duplicates",
        "trash",
    ):
        assert not parsed(term).artifacts
        assert parsed(term).needs_digests == (term in ("sha1=ab", "duplicates"))


@pytest.mark.parametrize("algorithm", DIGEST_BYTES)
def test_a_digest_may_be_whole_or_a_begin_of_any_length(algorithm: str) -> None:
    length = DIGEST_BYTES[algorithm] * 2
    whole = (hashlib.sha512(b"x").hexdigest())[:length]
    found = parsed(f"{algorithm}={whole.upper()}").digests[0]
    assert (found.algorithm, found.low, found.high) == (algorithm, bytes.fromhex(whole), bytes.fromhex(whole))
    for digits in (1, 2, 7):
        found = parsed(f"!{algorithm}={whole[:digits]}").digests[0]
        assert found.low.hex() == whole[:digits].ljust(length, "0")
        assert found.high.hex() == whole[:digits].ljust(length, "f")
        assert found.negated


def test_the_empty_content_has_a_digest() -> None:
    digests = {name: hashlib.new(name).hexdigest() for name in ("sha256", "sha1", "md5", "sha512")}
    digests |= {"crc32c": "00000000", "blake3": blake3().hexdigest()}
    for algorithm, digest in digests.items():
        assert digest_range(algorithm, digest).empty
        assert digest_range(algorithm, digest[:3]).empty
        assert not digest_range(algorithm, "1" + digest[1:]).empty


@pytest.mark.parametrize(
    ("term", "complaint"),
    [
        ("sha256=", "a digest, or its begin, is wanted"),
        ("sha256", "what is wanted? write sha256=HEX"),
        ("sha256=12g4", "'g' is no hex digit"),
        ("sha256=" + "0" * 40, "a sha256 has 64 hex digits, not 40, as sha1 has"),
        ("sha256=" + "0" * 32, "a sha256 has 64 hex digits, not 32, as md5 has"),
        ("sha512=" + "0" * 64, "a sha512 has 128 hex digits, not 64, as blake3 and sha256 has"),
        ("sha1=" + "0" * 64, "a sha1 has 40 hex digits, not 64, as blake3 and sha256 has"),
        ("sha1=" + "0" * 41, "a sha1 has 40 hex digits, not 41"),
        ("crc32c=" + "0" * 40, "a crc32c has 8 hex digits, not 40, as sha1 has"),
        ("sha255=00", "unknown term 'sha255'; did you mean 'sha256'?"),
        ("modul=a", "did you mean 'module'?"),
        ("", "unknown term ''"),
        ("=x", "unknown term ''"),
        ("!", "unknown term ''"),
        ("prop.", "there is no value"),
        ("prop.=x", "there is no value"),
        ("prop.a=\udcff", "UTF-8 is wanted"),
        ("org=\udcff", "UTF-8 is wanted"),
        ("name=", "there is no value"),
        ("repo=", "there is no value"),
        ("name<a", "'<' is for size; write name=…"),
        ("size=10M", "write size>10M or size<10M"),
        ("size", "write size>10M or size<10M"),
        ("size>many", "'many' is no size"),
        ("older=yesterday", "'yesterday' is no time"),
        ("older=99999999d", "'99999999d' is no time"),
        ("keep=-1", "'-1' is no whole number"),
        ("duplicates=yes", "'duplicates' takes no value"),
        ("!older=1d", "'!' is for digests, properties, tokens, name and path"),
        ("!releases", "'!' is for"),
    ],
)
def test_what_means_nothing_is_one_clear_line(term: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)) as raised:
        parsed("prop.qa", term)
    assert "\n" not in str(raised.value)


def test_nothing_is_a_release_and_a_snapshot() -> None:
    with pytest.raises(UsageError, match="nothing is a release and a snapshot"):
        parsed("releases", "snapshots")


def test_all_paths_that_a_pattern_fits_lie_below_a_directory() -> None:
    expected = {
        "/libs/org/*": b"/libs/org/",
        "/li*/a": b"/",
        "/a/b.jar": b"/a/",
        "/*": b"/",
        "/a/b/[cd]": b"/a/b/",
    }
    assert {pattern: literal_directory(pattern) for pattern in expected} == expected


def test_the_options_of_find_know_all_terms() -> None:
    assert set(find.DIGESTS) == set(DIGEST_BYTES)
    assert [name for name, _ in find.TOKENS] == list(COLUMNS)
