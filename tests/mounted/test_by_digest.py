"""/.casfs/by-sha256 and its like, and user.casfs.sha256, as programs and other users meet them."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount, casfs
from tests.security.users import as_user

CONTENT = os.urandom(300_000)
HEX = hashlib.sha256(CONTENT).hexdigest()
SOMEBODY = 1234


@pytest.fixture
def digested(new_mount: Callable[..., Mount], scratch: Path) -> Callable[..., Mount]:
    """A mount of a store that keeps sha256, with one file that nobody else may read."""

    def mounted(options: str = "allow_other") -> Mount:
        store = scratch / "digested"
        casfs("init", store)
        casfs("repo", "create", store, "libs", "--digests", "sha256")
        mount = new_mount(store, options=options).start()
        (mount.path / "libs/file").write_bytes(CONTENT)
        (mount.path / "libs/file").chmod(0o600)
        (mount.path / "libs").chmod(0o777)
        return mount

    return mounted


def test_cp_deploys_by_checksum_without_a_byte(digested: Callable[..., Mount]) -> None:
    mount = digested()
    root = mount.path
    assert os.getxattr(root / "libs/file", "user.casfs.sha256").decode() == HEX
    before = mount.usage()["total"]["blobs"]
    for name in ("one", "two"):
        subprocess.run(["cp", root / ".casfs/by-sha256" / HEX, root / "libs" / name], check=True)
    assert (root / "libs/two").read_bytes() == CONTENT
    assert (root / "libs/two").stat().st_mode & 0o777 == 0o644
    casfs("link", mount.store, f"sha256:{HEX}", root / "libs/three")
    assert (root / "libs/three").read_bytes() == CONTENT
    assert mount.usage()["total"]["blobs"] == before
    mount.remount()
    assert (root / ".casfs/by-sha256" / HEX).read_bytes() == CONTENT


def test_what_is_removed_is_not_found_any_more(digested: Callable[..., Mount]) -> None:
    """The kernel remembers nothing of it."""
    mount = digested()
    place = mount.path / ".casfs/by-sha256" / HEX
    assert place.exists()
    (mount.path / "libs/file").unlink()
    casfs("gc", "run", mount.store, "--grace", "0s")
    assert not place.exists()
    (mount.path / "libs/again").write_bytes(CONTENT)
    assert place.read_bytes() == CONTENT


def test_who_has_a_content_open_reads_it_when_it_has_been_collected(digested: Callable[..., Mount]) -> None:
    mount = digested()
    for size in (10, 5000, 300_000, 5 << 20):
        content = os.urandom(size)
        (mount.path / "libs/short").write_bytes(content)
        place = mount.path / ".casfs/by-sha256" / hashlib.sha256(content).hexdigest()
        with place.open("rb") as file, place.open("rb") as other:
            mapped = mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ)
            (mount.path / "libs/short").unlink()
            casfs("gc", "run", mount.store, "--grace", "0s")
            assert not place.exists()
            assert file.read() == content
            assert mapped[:] == content
            mapped.close()


@pytest.mark.parametrize("options", ["allow_other", f"allow_other,uid={SOMEBODY}", "allow_other,umask=000"])
def test_nobody_else_reads_contents_by_their_digests(digested: Callable[..., Mount], options: str) -> None:
    mount = digested(options)
    directory = mount.path / ".casfs/by-sha256"

    def attempts() -> list[int | None]:
        found: list[int | None] = []
        for attempt in (
            (directory / HEX).read_bytes,
            (directory / HEX).stat,
            lambda: os.listdir(directory),
            lambda: directory.chmod(0o777),
            lambda: os.link(directory / HEX, mount.path / "libs/linked"),
        ):
            try:
                attempt()
                found.append(None)
            except OSError as error:
                found.append(error.errno)
        return found

    refused = as_user(SOMEBODY, attempts)
    assert refused == [errno.EACCES, errno.EACCES, errno.EACCES, errno.EPERM, errno.EACCES]
    if options == "allow_other":
        with pytest.raises(PermissionError):
            as_user(SOMEBODY, (mount.path / "libs/file").read_bytes)
    assert (directory / HEX).read_bytes() == CONTENT


def test_others_read_the_digests_of_what_they_may_read_only(digested: Callable[..., Mount]) -> None:
    mount = digested()
    file = mount.path / "libs/file"
    with pytest.raises(PermissionError):
        as_user(SOMEBODY, lambda: os.getxattr(file, "user.casfs.sha256"))
    file.chmod(0o644)
    assert as_user(SOMEBODY, lambda: os.getxattr(file, "user.casfs.sha256")).decode() == HEX
    assert "user.casfs.sha256" not in os.listxattr(file)
    with pytest.raises(OSError, match="No data"):
        os.getxattr(file, "user.casfs.md5")
    with pytest.raises(PermissionError):
        os.setxattr(file, "user.casfs.sha256", b"0")
