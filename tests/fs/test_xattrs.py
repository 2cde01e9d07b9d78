"""Extended attributes, with the limits and errors of ext4."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest
from blake3 import blake3

from casfs import properties
from casfs.errors import FsError
from casfs.fs import acl
from casfs.fs.acl import ACCESS, DEFAULT
from casfs.fs.scheduler import run_inline
from tests.fs.test_acl import EXTENDED, MINIMAL
from tests.kernel import Kernel
from tests.limits import set_limits
from tests.session import Session


def fails(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(FsError) as raised:
        call()
    assert raised.value.errno == number, errno.errorcode[raised.value.errno or 0]


@pytest.fixture
def kernel(kernel: Kernel) -> Kernel:
    """With one of each."""
    kernel.write_file("file", b"content")
    kernel.mkdir("directory")
    kernel.symlink("file", "symlink")
    kernel.make("fifo", stat.S_IFIFO)
    return kernel


def test_attributes_survive_a_remount(session: Session, kernel: Kernel) -> None:
    values = {
        b"user.\xff": b"",
        b"trusted.x": b"\0" * 100,
        b"security.capability": b"x",
        b"user.big": bytes(65536),
    }
    for name, value in values.items():
        kernel.setxattr("file", name, value)
    kernel.setxattr("symlink", b"trusted.x", b"of the link")
    kernel = session.reopen()
    assert {name: kernel.getxattr("file", name) for name in kernel.listxattr("file")} == values
    assert kernel.listxattr("symlink") == [b"trusted.x"]
    kernel.removexattr("file", b"user.big")
    assert b"user.big" not in session.reopen().listxattr("file")


def test_replacing_and_removing(kernel: Kernel) -> None:
    kernel.setxattr("file", b"user.x", b"one")
    kernel.setxattr("file", b"user.x", b"two")
    assert kernel.getxattr("file", b"user.x") == b"two"
    kernel.removexattr("file", b"user.x")
    fails(errno.ENODATA, lambda: kernel.getxattr("file", b"user.x"))
    fails(errno.ENODATA, lambda: kernel.removexattr("file", b"user.x"))
    assert kernel.listxattr("file") == []


def test_changes_move_ctime_and_not_mtime(kernel: Kernel) -> None:
    for change in (
        lambda: kernel.setxattr("file", b"user.x", b"one"),
        lambda: kernel.removexattr("file", b"user.x"),
        lambda: kernel.setxattr("file", ACCESS, acl.encode(EXTENDED)),
        lambda: kernel.removexattr("file", ACCESS),
    ):
        before = kernel.tree()[b"file"].times
        change()
        after = kernel.tree()[b"file"].times
        assert after[1] == before[1]
        assert after[2] > before[2]


def test_errors(kernel: Kernel) -> None:
    for path in ("symlink", "fifo"):
        fails(errno.EPERM, lambda path=path: kernel.setxattr(path, b"user.x", b""))
    for name in (b"x", b"system.x", b"user", b"com.apple"):
        fails(errno.EOPNOTSUPP, lambda name=name: kernel.setxattr("file", name, b""))
    fails(errno.EOPNOTSUPP, lambda: kernel.getxattr("file", b"system.x"))
    fails(errno.EINVAL, lambda: kernel.getxattr("file", b"user."))
    fails(errno.EINVAL, lambda: kernel.setxattr("file", b"user.", b""))
    fails(errno.EINVAL, lambda: kernel.removexattr("file", b"user."))
    fails(errno.ENODATA, lambda: kernel.getxattr("file", ACCESS))
    fails(errno.ENODATA, lambda: kernel.removexattr("file", ACCESS))
    fails(errno.ERANGE, lambda: kernel.setxattr("file", b"user." + b"x" * 251, b""))
    fails(errno.E2BIG, lambda: kernel.setxattr("file", b"user.x", bytes(65537)))
    kernel.setxattr("file", b"user." + b"x" * 250, b"")


def test_one_inode_has_room_for_a_mebibyte(kernel: Kernel) -> None:
    for number in range(15):
        kernel.setxattr("file", b"user.%d" % number, bytes(65536))
    fails(errno.ENOSPC, lambda: kernel.setxattr("file", b"user.one more", bytes(65536)))
    kernel.setxattr("file", b"user.1", b"smaller")
    kernel.setxattr("file", b"user.one more", bytes(65536))


# The digest


def test_the_digest_of_a_sealed_file_can_be_read_and_nothing_else(session: Session, kernel: Kernel) -> None:
    name = b"user.casfs.blake3"
    kernel.write_file("empty", b"")
    assert kernel.getxattr("file", name).decode() == blake3(b"content").hexdigest()
    assert kernel.getxattr("empty", name).decode() == blake3(b"").hexdigest()
    for path in ("directory", "symlink", "fifo"):
        fails(errno.ENODATA, lambda path=path: kernel.getxattr(path, name))
    assert kernel.listxattr("file") == []
    fails(errno.EPERM, lambda: kernel.setxattr("file", name, b"x"))
    fails(errno.EPERM, lambda: kernel.setxattr("file", b"user.casfs.other", b"x"))
    fails(errno.EPERM, lambda: kernel.removexattr("file", name))
    with kernel.open("file", os.O_RDWR) as file:
        file.write(b"C")
        fails(errno.ENODATA, lambda: kernel.getxattr("file", name))
    assert kernel.getxattr("file", name).decode() == blake3(b"Content").hexdigest()


# Properties

QA = properties.attribute_of("qa")


def test_a_property_is_an_attribute_of_files_and_directories(session: Session, kernel: Kernel) -> None:
    for path in ("file", "directory"):
        kernel.setxattr(path, QA, b"passed\nagain")
        assert kernel.listxattr(path) == [QA]
    for path in ("symlink", "fifo"):
        fails(errno.EPERM, lambda path=path: kernel.setxattr(path, QA, b"x"))
    kernel.setxattr("file", properties.PREFIX + b"k" * 239, b"x")
    fails(errno.ERANGE, lambda: kernel.setxattr("file", properties.PREFIX + b"k" * 240, b"x"))
    fails(errno.EINVAL, lambda: kernel.setxattr("file", properties.PREFIX, b"x"))
    fails(errno.EINVAL, lambda: kernel.setxattr("file", QA, b"\xff"))
    fails(errno.E2BIG, lambda: kernel.setxattr("file", QA, b"x" * 2049))
    fails(errno.EPERM, lambda: kernel.setxattr("file", b"user.casfs.prop", b"x"))
    kernel = session.reopen()
    assert kernel.getxattr("file", QA) == b"passed\nagain"
    kernel.removexattr("file", QA)
    fails(errno.ENODATA, lambda: kernel.removexattr("file", QA))


# Access control lists


def test_an_access_list_sets_the_mode(session: Session, kernel: Kernel) -> None:
    kernel.setxattr("file", ACCESS, acl.encode(EXTENDED))
    assert stat.S_IMODE(kernel.inode("file").mode) == 0o631
    kernel = session.reopen()
    assert kernel.getxattr("file", ACCESS) == acl.encode(EXTENDED)
    kernel.chmod("file", 0o4750)
    assert acl.mode_of(acl.decode(kernel.getxattr("file", ACCESS))) == 0o750
    assert stat.S_IMODE(kernel.inode("file").mode) == 0o4750
    kernel.removexattr("file", ACCESS)
    assert stat.S_IMODE(kernel.inode("file").mode) == 0o4750


def test_a_list_that_says_no_more_than_the_mode_is_not_kept(kernel: Kernel) -> None:
    kernel.setxattr("file", ACCESS, acl.encode(EXTENDED))
    kernel.setxattr("file", ACCESS, acl.encode(MINIMAL))
    assert kernel.listxattr("file") == []
    assert stat.S_IMODE(kernel.inode("file").mode) == 0o750
    kernel.setxattr("directory", DEFAULT, acl.encode(MINIMAL))
    assert kernel.listxattr("directory") == [DEFAULT]
    kernel.setxattr("directory", DEFAULT, acl.encode([]))
    assert kernel.listxattr("directory") == []


def test_errors_of_lists(kernel: Kernel) -> None:
    fails(errno.EINVAL, lambda: kernel.setxattr("file", ACCESS, b"nonsense"))
    fails(errno.EACCES, lambda: kernel.setxattr("file", DEFAULT, acl.encode(MINIMAL)))
    fails(errno.EOPNOTSUPP, lambda: kernel.setxattr("symlink", ACCESS, acl.encode(MINIMAL)))
    assert stat.S_IMODE(kernel.inode("file").mode) == 0o644


@pytest.mark.parametrize(("member", "mode"), [(True, 0o2631), (False, 0o631)])
def test_a_list_set_from_outside_the_group_takes_setgid(kernel: Kernel, member: bool, mode: int) -> None:
    kernel.chmod("file", 0o2755)
    kernel.chown("file", 7, 50)
    kernel.chmod("file", 0o2755)
    kernel.uid, kernel.gid = 7, 50 if member else 51
    kernel.setxattr("file", ACCESS, acl.encode(EXTENDED))
    assert stat.S_IMODE(kernel.inode("file").mode) == mode


def test_a_default_list_is_handed_down(session: Session, kernel: Kernel) -> None:
    kernel.setxattr("directory", DEFAULT, acl.encode(EXTENDED))
    kernel.open("directory/file", os.O_CREAT | os.O_RDWR, 0o666).close()
    kernel.mkdir("directory/sub", 0o777)
    kernel.symlink("x", "directory/symlink")
    kernel = session.reopen()
    assert stat.S_IMODE(kernel.inode("directory/file").mode) == 0o620
    assert stat.S_IMODE(kernel.inode("directory/sub").mode) == 0o631
    assert kernel.listxattr("directory/file") == [ACCESS]
    assert kernel.getxattr("directory/sub", DEFAULT) == acl.encode(EXTENDED)
    assert acl.mode_of(acl.decode(kernel.getxattr("directory/sub", ACCESS))) == 0o631
    assert kernel.listxattr("directory/symlink") == []


def test_a_minimal_default_list_is_a_umask(kernel: Kernel) -> None:
    kernel.setxattr("directory", DEFAULT, acl.encode(MINIMAL))
    kernel.open("directory/file", os.O_CREAT | os.O_RDWR, 0o666).close()
    assert stat.S_IMODE(kernel.inode("directory/file").mode) == 0o640
    assert kernel.listxattr("directory/file") == []


def test_attributes_go_with_their_inode(session: Session, kernel: Kernel) -> None:
    kernel.setxattr("file", b"user.x", b"one")
    kernel.setxattr("directory", DEFAULT, acl.encode(EXTENDED))
    kernel = session.reopen()
    kernel.unlink("file")
    kernel.rmdir("directory")
    run_inline(session.fs.group.durable())
    assert session.store.namespace.query("SELECT count(*) FROM xattr").get == 0


def test_large_attributes_do_not_stay_in_memory(
    session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, ATTRIBUTES_LIMIT=1_000_000)
    value = bytes(60_000)
    for number in range(50):
        kernel.write_file(f"file{number}", b"")
        kernel.setxattr(f"file{number}", b"user.x", value)
    assert in_memory(kernel) < 1_100_000
    for _ in range(2):
        for number in range(50):
            assert kernel.getxattr(f"file{number}", b"user.x") == value
            kernel.setxattr(f"file{number}", b"user.y", b"%d" % number)
        assert in_memory(kernel) < 1_200_000
    kernel = session.reopen()
    assert [kernel.getxattr(f"file{number}", b"user.y") for number in range(50)] == [
        b"%d" % number for number in range(50)
    ]


def test_attributes_that_were_dropped_from_memory_are_inherited_and_removed_as_others(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, ATTRIBUTES_LIMIT=0)
    kernel.setxattr("directory", DEFAULT, acl.encode(EXTENDED))
    kernel.setxattr("file", b"security.capability", b"x")
    kernel.setxattr("file", b"user.x", b"x")
    assert kernel.inode("directory").xattrs is None
    kernel.mkdir("directory/below")
    assert kernel.getxattr("directory/below", DEFAULT) == acl.encode(EXTENDED)
    kernel.write_file("file", b"written", flags=0)
    assert kernel.listxattr("file") == [b"user.x"]
    kernel.unlink("file")


def test_many_bytes_of_attributes_count_as_many_operations(kernel: Kernel) -> None:
    kernel.sync()
    kernel.setxattr("file", b"user.x", bytes(65536))
    assert kernel.fs.group.operations == 17


def in_memory(kernel: Kernel) -> int:
    """Bytes of attributes."""
    held = [inode.xattrs for inode in kernel.fs.inodes.in_memory.values() if inode.xattrs]
    return sum(len(value) for xattrs in held for value in xattrs.values())
