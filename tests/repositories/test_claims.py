"""What a sidecar says, in the forms that programs write it."""

from __future__ import annotations

import hashlib

import pytest

from casfs.repositories.claims import claimed
from casfs.repositories.sidecars import split

MD5, SHA256, SHA512 = (hashlib.new(name, b"a").hexdigest().encode() for name in ("md5", "sha256", "sha512"))


@pytest.mark.parametrize(
    "text",
    [
        SHA256,
        SHA256 + b"\n",
        SHA256 + b"  \r\n\n",
        b"\n " + SHA256,
        SHA256.upper(),
        SHA256 + b"  file.jar\n",
        SHA256 + b" *file.jar\n",
        SHA256 + b"\tdeep/file with blanks.jar\n",
        SHA256 + b"  -\n",
        b"SHA256 (file.jar) = " + SHA256 + b"\n",
        b"SHA2-256(file (1).jar)= " + SHA256,
    ],
)
def test_a_digest_is_understood(text: bytes) -> None:
    assert claimed(text, "sha256") == bytes.fromhex(SHA256.decode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"file.jar",
        MD5,
        SHA512,
        SHA256[:-1],
        SHA256 + b"0",
        b"g" + SHA256[1:],
        SHA256 + SHA256,
        SHA256 + b"\n" + SHA256,
        SHA256 + b"  a\n" + SHA256 + b"  b\n",
        b"md5: " + SHA256,
        b"\0" * 64,
        b"\xff" * 64,
    ],
)
def test_what_says_no_digest_is_none(text: bytes) -> None:
    assert claimed(text, "sha256") is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"a.jar.sha1", (b"a.jar", "sha1")),
        (b"a.md5", (b"a", "md5")),
        (b"a.jar.asc.sha512", (b"a.jar.asc", "sha512")),
        (b".hidden.sha256", (b".hidden", "sha256")),
        (b".sha1", None),
        (b"sha1", None),
        (b"a.sha1.md5", None),
        (b"a.SHA1", None),
        (b"a.sha3", None),
        (b"a.sha1.tmp", None),
    ],
)
def test_names_of_sidecars(name: bytes, parts: tuple[bytes, str] | None) -> None:
    assert split(name) == parts
