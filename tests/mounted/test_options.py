"""What `casfs mount -o` changes, and a mount by somebody who is not root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mounted.mounts import CHECKOUT, ROOT_OPTIONS, Mount, casfs, is_mounted

NOBODY = 65534


def test_read_only(mount: Mount) -> None:
    (mount.path / "file").write_text("content")
    mount.remount(f"{ROOT_OPTIONS},ro")
    assert (mount.path / "file").read_text() == "content"
    for step in (
        (mount.path / "new").touch,
        lambda: (mount.path / "file").write_text("other"),
        lambda: os.unlink(mount.path / "file"),
        lambda: os.chmod(mount.path / "file", 0o600),
        lambda: os.setxattr(mount.path / "file", "user.note", b""),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            step()
    mount.remount(ROOT_OPTIONS)
    assert (mount.path / "file").read_text() == "content"
    (mount.path / "file").write_text("other")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may remount")
def test_a_remount_makes_it_read_only_and_writable_again(mount: Mount) -> None:
    (mount.path / "file").write_text("content")
    daemon = mount.status["pid"]
    with open(mount.path / "file", "a"):
        assert "busy" in casfs("mount", mount.store, mount.path, "-o", "remount,ro", code=32)
    # All the words that mount(8) hands to the helper of its type.
    options = "ro,nosuid,nodev,noatime,remount,user_id=0,group_id=0,default_permissions,allow_other"
    casfs("mount", mount.store, mount.path, "-o", options)
    with pytest.raises(OSError, match="Read-only file system"):
        (mount.path / "file").write_text("other")
    assert (mount.path / "file").read_text() == "content"
    assert os.statvfs(mount.path).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV
    casfs("mount", mount.store, mount.path, "-o", "remount,rw,suid,dev")
    (mount.path / "file").write_text("other")
    assert (mount.status["pid"], os.statvfs(mount.path).f_flag & os.ST_NOSUID) == (daemon, 0)
    complaint = casfs("mount", mount.store, mount.path, "-o", "remount,commit_interval=3", code=2)
    assert "cannot be changed by a remount" in complaint
    assert "is not mounted on" in casfs("mount", mount.store, mount.store, "-o", "remount,ro", code=6)


def test_uid_gid_and_umask_are_shown_and_not_stored(mount: Mount) -> None:
    (mount.path / "folder").mkdir(mode=0o700)
    (mount.path / "file").write_text("content")
    os.chown(mount.path / "file", 12, 34)
    os.chmod(mount.path / "file", 0o400)
    mount.remount(f"{ROOT_OPTIONS},uid=1000,gid=2000,umask=027")
    for name, kind in (("folder", stat.S_IFDIR), ("file", stat.S_IFREG)):
        shown = os.stat(mount.path / name)
        assert (shown.st_uid, shown.st_gid, shown.st_mode) == (1000, 2000, kind | 0o750)
    done = subprocess.run(
        ["cat", mount.path / "file"], user=1000, group=2000, extra_groups=[], capture_output=True, text=True
    )
    assert done.stdout == "content"
    mount.remount(ROOT_OPTIONS)
    kept = os.stat(mount.path / "file")
    assert (kept.st_uid, kept.st_gid, kept.st_mode) == (12, 34, stat.S_IFREG | 0o400)


def test_suid_dev_and_noexec_are_the_kernels(mount: Mount) -> None:
    shutil.copy2(shutil.which("true") or "", mount.path / "true")
    flags = {"nosuid,nodev": os.ST_NOSUID | os.ST_NODEV, "suid,dev": 0, "noexec": os.ST_NOEXEC | os.ST_NOSUID}
    mask = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    for options, expected in flags.items():
        mount.remount(options)
        assert os.statvfs(mount.path).f_flag & mask & expected == expected
        assert expected or not os.statvfs(mount.path).f_flag & mask
    with pytest.raises(PermissionError):
        subprocess.run([mount.path / "true"], check=True)


def test_without_allow_other_the_mount_is_its_owners(mount: Mount) -> None:
    def of_nobody() -> int:
        return subprocess.run(
            ["ls", mount.path], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True
        ).returncode

    assert of_nobody() == 0
    mount.remount("suid,dev")
    assert of_nobody() != 0
    assert os.listdir(mount.path) == []


MAKER = """
import os, sys
folder, who = sys.argv[1], sys.argv[2]
numbers = {}
for number in range(100):
    name = f"{folder}/{who}-{number}"
    if number % 3 == 0:
        os.mkdir(name)
    elif number % 3 == 1:
        os.symlink(who, name)
    else:
        with open(name, "w") as file:
            file.write(name)
        os.chmod(name, 0o600 + number % 8)
    numbers[name] = os.lstat(name).st_ino
for name, ino in numbers.items():
    assert os.lstat(name).st_ino == ino, f"{name} has two inode numbers"
assert len(set(numbers.values())) == len(numbers), "one inode number for several names"
"""


def test_commit_interval_0_answered_with_the_attributes_of_another_file(mount: Mount) -> None:
    """The reply was built before the commit was awaited, in an object that the next request used too."""
    mount.remount(f"{ROOT_OPTIONS},commit_interval=0")
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, mount.path, f"maker{number}"], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    assert [maker.communicate()[1].decode() for maker in makers] == [""] * 4
    names = sorted(os.listdir(mount.path))
    assert len(names) == 400
    seen = {name: (os.lstat(mount.path / name).st_ino, os.lstat(mount.path / name).st_mode) for name in names}
    mount.remount()
    assert seen == {
        name: (os.lstat(mount.path / name).st_ino, os.lstat(mount.path / name).st_mode) for name in names
    }


def test_options_that_cannot_be_meant(new_mount: Callable[..., Mount]) -> None:
    mount = new_mount()
    for options, complaint in {
        "alow_other": "did you mean 'allow_other'?",
        "umask=999": "umask takes an octal number",
        "commit_interval=soon": "commit_interval takes a number of seconds",
        "low_room=half": "low_room takes a percentage from 0 to",
        "low_room=90": "low_room takes a percentage from 0 to",
        "orphan_share=-1": "orphan_share takes a percentage from 0 to 100",
        "uid=root": "uid takes a numeric id",
        "free_step=-1": "free_step takes a size: 500M, 10G",
        "free_step=9999999T": "free_step takes a size",
        "allow_other,allow_root": "exclude each other",
    }.items():
        assert complaint in casfs("mount", mount.store, mount.path, "-o", options, code=2)
        assert not is_mounted(mount.path)


def test_options_of_fstab_are_accepted(new_mount: Callable[..., Mount]) -> None:
    new_mount(options="rw,nofail,_netdev,x-systemd.automount,noatime,noauto,user,comment=mine").start()


# Somebody who is not root


@pytest.fixture
def fuse_for_everybody() -> Iterator[None]:
    """/dev/fuse is for everybody where udev runs; elsewhere make it so while the test runs."""
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", mode | 0o666)
    yield
    os.chmod("/dev/fuse", mode)


def _nobodys_casfs(scratch: Path) -> list[str]:
    """A command line that runs casfs as nobody, who may not be able to read this checkout and its Python."""
    run_as = ["runuser", "-u", "nobody", "--"]
    here = [
        *run_as,
        "env",
        f"PYTHONPATH={CHECKOUT}",
        "PYTHONDONTWRITEBYTECODE=1",
        sys.executable,
        "-m",
        "casfs",
    ]
    if subprocess.run([*here, "--version"], capture_output=True).returncode == 0:
        return here
    packages = scratch / "packages"
    shutil.copytree(CHECKOUT / "casfs", packages / "casfs")
    shutil.copytree(Path(pytest.__file__).parents[1], packages, dirs_exist_ok=True, symlinks=True)
    python = os.path.realpath(sys.executable)
    there = [*run_as, "env", f"PYTHONPATH={packages}", python, "-m", "casfs"]
    subprocess.run([*there, "--version"], check=True, capture_output=True)
    return there


@pytest.mark.usefixtures("fuse_for_everybody")
def test_an_ordinary_user_mounts_through_fusermount3(new_mount: Callable[..., Mount], scratch: Path) -> None:
    command = _nobodys_casfs(scratch)

    def run(*words: str | Path, code: int = 0) -> str:
        done = subprocess.run([*command, *words], capture_output=True, text=True, cwd="/")
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    home = scratch / "home"
    home.mkdir()
    (home / "mnt").mkdir()
    os.chown(home, NOBODY, NOBODY)
    os.chown(home / "mnt", NOBODY, NOBODY)
    run("init", home / "store")
    run("mount", home / "store", home / "mnt", "-o", "commit_interval=0.2")
    try:
        program = "cp -r /etc/alternatives mnt/one && cp -r mnt/one mnt/two && diff -r mnt/one mnt/two"
        program += " && echo kept > mnt/kept"
        shell = ["runuser", "-u", "nobody", "--", "sh", "-c", program]
        done = subprocess.run(shell, cwd=home, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert '"serving": true' in run("status", "--json", home / "store")
        # Root is kept out of a user's mount, and so are its commands on paths in it.
        with pytest.raises(PermissionError):
            os.listdir(home / "mnt")
        refused = run("mount", home / "store", home / "mnt", "-o", "allow_other", code=4)
        assert f"is mounted on {home / 'mnt'} already" in refused
        run("umount", home / "mnt")
        assert not is_mounted(home / "mnt")
        assert "user_allow_other in /etc/fuse.conf" in run(
            *("mount", home / "store", home / "mnt", "-o", "allow_other"), code=32
        )
    finally:
        if is_mounted(home / "mnt"):
            subprocess.run(["umount", "-l", home / "mnt"], check=True)
    mount = new_mount(home / "store").start()
    mount.expect("user_allow_other in /etc/fuse.conf")
    assert (mount.path / "kept").read_text() == "kept\n"
    assert os.stat(mount.path / "kept").st_uid == NOBODY
