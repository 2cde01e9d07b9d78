"""The mount table, and where a path lies."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from casfs.service import mounttable
from casfs.service.mounttable import locate, mount_at, read_table

TABLE = rb"""36 35 0:45 / /mnt\040a rw,nosuid shared:1 - fuse.casfs /srv/a%2Cb rw,user_id=1001,allow_other
37 35 8:1 /a\012b /x rw - ext4 /dev/sda1 rw,user_id=7
38 35 0:46 / /y rw - fuse.casfs  rw,user_id=0
39 35 0:47 / /z rw master:3 propagate_from:2 - fuseblk.x \134\040\011 rw,user_id=3
"""


def test_lines_are_read_as_the_kernel_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounttable, "open", lambda *_: BytesIO(TABLE), raising=False)
    first, second, third, fourth = read_table()
    assert (first.id, first.device, first.mountpoint, first.store) == (36, "0:45", "/mnt a", "/srv/a,b")
    assert (first.user, first.is_fuse) == (1001, True)
    assert (second.root, second.store, second.user, second.is_fuse) == ("/a\nb", None, None, False)
    assert (third.source, third.store, third.user) == ("", "", 0)
    assert (fourth.source, fourth.store, fourth.user) == ("\\ \t", None, 3)


def test_a_path_is_found_whatever_is_missing_of_it(tmp_path: Path) -> None:
    real = Path(os.path.realpath(tmp_path))
    (real / "folder").mkdir()
    (real / "link").symlink_to("folder")
    (real / "file").touch()
    for path, found in (
        (real / "folder", real / "folder"),
        (real / "link", real / "link"),
        (real / "link" / "x", real / "folder" / "x"),
        (real / "link" / "x" / "y", real / "folder" / "x" / "y"),
        (real / "file" / "x", real / "file" / "x"),
        (real / "folder" / ".." / "file", real / "file"),
        (Path("/"), Path("/")),
        (Path("/absent"), Path("/absent")),
    ):
        assert locate(path).path == str(found)
    assert locate(real).mount == locate(real / "absent" / "x").mount


def test_the_mount_of_a_path_is_the_one_the_kernel_says() -> None:
    entry, location = mount_at("/proc/self/status")
    assert entry is not None
    assert (entry.type, entry.mountpoint) == ("proc", "/proc")
    assert location.path == f"/proc/{os.getpid()}/status"
