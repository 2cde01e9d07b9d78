"""-o uid=, gid=, umask= and free_step=: what is shown is what holds, and gives nobody more for later."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.mounts import Mount
from tests.mounted.sides import outcome
from tests.security.attempts import ACCESS, DEFAULT, became, folder, opening, put
from tests.security.users import (
    GROUP_OBJ,
    MASK,
    OTHER,
    OTHERS,
    OWNER,
    TEAM,
    THIRD,
    USER,
    USER_OBJ,
    access_list,
    apart,
    as_user,
    open_by_handle,
)

MIB = 1 << 20

GENEROUS = access_list((USER_OBJ, 7), (USER, 7, OTHER), (GROUP_OBJ, 7), (MASK, 7), (OTHERS, 0))


@pytest.fixture
def place(mount: Mount) -> Path:
    """With files that have lists, which allow more to OTHER and less to THIRD than a umask of 022."""
    put(mount.path / "file", 0, 0o600, b"secret")
    folder(mount.path / "folder", 0, 0o700)
    put(mount.path / "folder" / "below", 0, 0o600)
    for name in ("file", "folder", "folder/below"):
        os.setxattr(mount.path / name, ACCESS, GENEROUS)
    os.setxattr(mount.path / "folder", DEFAULT, GENEROUS)
    return mount.path


def test_with_a_umask_lists_allow_neither_more_nor_less_than_is_shown(mount: Mount, place: Path) -> None:
    mount.remount("allow_other,umask=022")

    def tried() -> list[str]:
        return became(
            opening(place / "file"),
            opening(place / "file", os.O_WRONLY),
            lambda: os.mkdir(place / "folder" / "new"),
            opening(place / "folder" / "below"),
        )

    for who in (OTHER, THIRD):
        assert as_user(who, tried) == ["ok", "EACCES", "EACCES", "ok"]
    assert os.listxattr(place / "folder") == []
    for call in (
        lambda: os.getxattr(place / "file", ACCESS),
        lambda: os.setxattr(place / "file", ACCESS, GENEROUS),
        lambda: os.removexattr(place / "file", ACCESS),
        lambda: os.getxattr(place / "folder", DEFAULT),
    ):
        assert outcome(call) == "ENOTSUP"
    mount.remount("allow_other")
    assert os.getxattr(place / "folder", DEFAULT) == GENEROUS
    assert as_user(OTHER, tried) == ["ok"] * 4


def test_with_another_owner_lists_hold_as_they_are_shown(mount: Mount, place: Path) -> None:
    mount.remount(f"allow_other,uid={OWNER},gid={TEAM}")
    assert os.getxattr(place / "file", ACCESS) == GENEROUS
    read = opening(place / "file")
    assert as_user(OWNER, lambda: became(read)) == ["ok"]
    assert as_user(OTHER, lambda: became(read)) == ["ok"]
    assert as_user(THIRD, lambda: became(read)) == ["EACCES"]
    assert as_user(THIRD, lambda: became(read), TEAM) == ["ok"]


def test_who_is_shown_as_the_owner_makes_no_program_of_the_real_one(mount: Mount) -> None:
    file = put(mount.path / "file", 0, 0o755, b"#!/bin/sh\n")
    his = folder(mount.path / "his", 0, 0o2777, gid=THIRD)
    mount.remount(f"allow_other,suid,uid={OWNER},gid={OWNER}")

    def tries() -> None:
        file.write_bytes(b"#!/bin/sh\nid\n")
        file.chmod(0o6755)
        os.close(os.open(his / "program", os.O_CREAT | os.O_WRONLY, 0o6775))
        (his / "fifo").touch()
        os.mkfifo(his / "real fifo", 0o2775)
        (his / "program").chmod(0o6775)

    as_user(OWNER, tries)
    (his / "fifo").chmod(0o6777)
    mount.remount("allow_other,suid")
    assert stat.S_IMODE((his / "fifo").stat().st_mode) == 0o6777, "root sets what bits it likes"
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o755)
    for name in ("program", "real fifo"):
        status = (his / name).stat()
        assert status.st_gid == THIRD
        assert not status.st_mode & stat.S_ISGID, name
    assert (his / "program").stat().st_uid == OWNER


def test_by_default_set_id_programs_and_devices_are_ordinary_files(
    new_mount: Callable[..., Mount],
) -> None:
    mount = new_mount(options="allow_other").start()
    program = mount.path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o6755)
    os.mknod(mount.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    done = subprocess.run([program, "-u"], user=OWNER, group=OWNER, extra_groups=[], capture_output=True)
    assert int(done.stdout) == OWNER
    assert outcome(opening(mount.path / "null")) == "EACCES"


def test_free_space_does_not_tell_of_a_content_with_free_step(
    new_mount: Callable[..., Mount],
) -> None:
    mount = new_mount(options="allow_other,free_step=64M").start()
    folder(mount.path / "his", OWNER, 0o755)

    def free() -> tuple[int, ...]:
        status = os.statvfs(mount.path)
        return status.f_bavail, status.f_bfree, status.f_favail, status.f_ffree, status.f_files

    def seen() -> tuple[int, ...]:
        return as_user(OWNER, free)

    before, frsize = seen(), os.statvfs(mount.path).f_frsize
    assert [blocks * frsize % (64 * MIB) for blocks in before[:2]] == [0, 0]
    assert before[2:] == (0, 0, 0)
    exact = free()
    assert 0 <= exact[0] - before[0] < 64 * MIB // frsize
    assert exact[4] or not os.statvfs(mount.store).f_files
    (mount.path / "his" / "file").write_bytes(os.urandom(5 * MIB))
    assert seen()[2:] == (0, 0, 0)


def test_a_handle_opens_nothing_for_a_user_who_is_root_in_a_namespace_of_his_own(
    new_mount: Callable[..., Mount],
) -> None:
    mount = new_mount(options="allow_other").start()
    file = put(mount.path / "file", OWNER, 0o644)

    def tries() -> object:
        import ctypes

        if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER, where users may
            return "EPERM"
        return outcome(lambda: open_by_handle(str(mount.path), str(file)))

    assert as_user(OWNER, tries) in ("EPERM", errno.errorcode[errno.EPERM])
    assert apart(lambda: os.close(open_by_handle(str(mount.path), str(file)))) is None
