"""POSIX access control lists against acl(5)."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casfs.errors import FsError
from casfs.fs import acl
from casfs.fs.acl import Entry

NO_ID = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
MINIMAL = [Entry(USER_OBJ, 7, NO_ID), Entry(GROUP_OBJ, 5, NO_ID), Entry(OTHER, 0, NO_ID)]
EXTENDED = [
    Entry(USER_OBJ, 6, NO_ID),
    Entry(USER, 7, 1000),
    Entry(GROUP_OBJ, 4, NO_ID),
    Entry(GROUP, 5, 50),
    Entry(MASK, 3, NO_ID),
    Entry(OTHER, 1, NO_ID),
]


def test_a_list_comes_back_as_it_was() -> None:
    for entries in (MINIMAL, EXTENDED, []):
        assert acl.decode(acl.encode(entries)) == entries


def test_the_kernel_understands_the_encoding(tmp_path: Path) -> None:
    """On the machine's own disk, with getfacl(1) to read it."""
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "system.posix_acl_access", acl.encode(EXTENDED))
    assert (tmp_path / "file").stat().st_mode & 0o777 == acl.mode_of(EXTENDED) == 0o631
    told = subprocess.run(["getfacl", "-cnp", tmp_path / "file"], capture_output=True, text=True).stdout
    assert re.search(r"user:1000:rwx\s+#effective:-wx", told)
    assert "group:50:r-x" in told


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02",
        struct.pack("<I", 1),
        acl.encode(MINIMAL)[:-1],
        acl.encode([Entry(USER_OBJ, 8, NO_ID), *MINIMAL[1:]]),
        acl.encode([*MINIMAL, MINIMAL[0]]),
        acl.encode([*MINIMAL, Entry(64, 1, NO_ID)]),
        acl.encode(MINIMAL[:2]),
        acl.encode([*MINIMAL[:1], Entry(USER, 7, 5), *MINIMAL[1:]]),
    ],
)
def test_what_is_no_list_is_refused(value: bytes) -> None:
    with pytest.raises(FsError) as raised:
        acl.decode(value)
    assert raised.value.errno == errno.EINVAL


@given(value=st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(value: bytes) -> None:
    try:
        entries = acl.decode(value)
    except FsError:
        return
    assert acl.encode(entries) == value


def test_list_and_mode() -> None:
    assert acl.mode_of(MINIMAL) == 0o750
    assert acl.is_minimal(MINIMAL)
    assert not acl.is_minimal(EXTENDED)
    assert acl.mode_of(acl.with_mode(MINIMAL, 0o124)) == 0o124
    changed = acl.with_mode(EXTENDED, 0o172)
    assert acl.mode_of(changed) == 0o172
    assert {entry.tag: entry.perm for entry in changed}[GROUP_OBJ] == 4


@given(mode=st.integers(0, 0o777))
def test_a_new_file_gets_no_more_than_it_asked_for_and_the_default_gives(mode: int) -> None:
    entries, got = acl.inherit(EXTENDED, 0o100000 | mode)
    assert got == 0o100000 | mode & acl.mode_of(EXTENDED)
    assert acl.mode_of(entries) == got & 0o777
    assert [entry.tag for entry in entries] == [entry.tag for entry in EXTENDED]
