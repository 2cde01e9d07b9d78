"""What users try beside root: each attempt works in a fresh directory of root's, on a mount and on a disk.

It is called as root, in a process of its own, and gives what became of each step: "ok", or an errno. Both
sides have to say what the table says: what is refused on a disk is refused on a mount.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mounted.sides import LARGE
from tests.security.users import (
    GROUP,
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
    acting,
    link_descriptor,
    open_by_handle,
    renameat2,
)

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

Attempt = Callable[[Path], list[Any]]


def became(*calls: Callable[[], object]) -> list[str]:
    """Of each call "ok", or the name of its errno."""
    outcomes = []
    for call in calls:
        try:
            call()
        except OSError as error:
            outcomes.append(errno.errorcode[error.errno or 0])
        else:
            outcomes.append("ok")
    return outcomes


def opening(path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Callable[[], None]:
    return lambda: os.close(os.open(path, flags, mode))


def put(path: Path, uid: int, mode: int, content: bytes = b"secret", gid: int | None = None) -> Path:
    """A file of somebody's."""
    path.write_bytes(content)
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def folder(path: Path, uid: int, mode: int, gid: int | None = None) -> Path:
    path.mkdir()
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# Who he is


def groups(place: Path) -> list[Any]:
    file = put(place / "file", 0, 0o640, gid=TEAM)
    inside = put(folder(place / "team", 0, 0o710, gid=TEAM) / "file", 0, 0o644)
    done = []
    for who in ((OWNER,), (OWNER, TEAM), (OWNER, THIRD)):
        with acting(*who):
            done += became(opening(file), opening(inside), opening(file, os.O_RDWR))
    return done


def ids_of_a_process(place: Path) -> list[Any]:
    """The file system's id decides, as for access(2) the real one."""
    file = put(place / "file", OWNER, 0o600)
    with acting(OWNER):
        return [
            *became(opening(file)),
            os.access(file, os.R_OK),
            os.access(file, os.R_OK, effective_ids=True),
        ]


# Lists


def mask(place: Path) -> list[Any]:
    file = put(place / "file", OWNER, 0o600)
    entries = (USER_OBJ, 6), (USER, 7, OTHER), (GROUP_OBJ, 0), (GROUP, 7, TEAM), (MASK, 4), (OTHERS, 0)
    os.setxattr(file, ACCESS, access_list(*entries))
    done: list[Any] = [mode_of(file)]
    for who in ((OTHER,), (THIRD,), (THIRD, TEAM)):
        with acting(*who):
            done += became(opening(file), opening(file, os.O_WRONLY))
    file.chmod(0o600)
    for who in ((OTHER,), (THIRD, TEAM)):
        with acting(*who):
            done += became(opening(file))
    return done


def list_that_denies(place: Path) -> list[Any]:
    file = put(place / "file", OWNER, 0o644)
    os.setxattr(
        file, ACCESS, access_list((USER_OBJ, 6), (USER, 0, OTHER), (GROUP_OBJ, 4), (MASK, 4), (OTHERS, 4))
    )
    done = []
    for who in (OTHER, THIRD):
        with acting(who):
            done += became(opening(file))
    os.removexattr(file, ACCESS)
    with acting(OTHER):
        return done + became(opening(file))


def list_taken_back(place: Path) -> list[Any]:
    file = put(place / "file", OWNER, 0o600, LARGE)
    allowed = access_list((USER_OBJ, 6), (USER, 4, OTHER), (GROUP_OBJ, 0), (MASK, 4), (OTHERS, 0))
    done = []
    for change in (
        lambda: os.setxattr(file, ACCESS, allowed),
        lambda: os.removexattr(file, ACCESS),
        lambda: os.setxattr(file, ACCESS, allowed),
        lambda: file.chmod(0o600),
    ):
        change()
        with acting(OTHER):
            done += became(*[opening(file)] * 3)
    return done


def inherited_list(place: Path) -> list[Any]:
    above = folder(place / "above", OWNER, 0o777)
    entries = (USER_OBJ, 7), (USER, 6, OTHER), (GROUP_OBJ, 0), (MASK, 6), (OTHERS, 0)
    os.setxattr(above, DEFAULT, access_list(*entries))
    with acting(OWNER):
        (above / "file").write_bytes(b"x")
        (above / "folder").mkdir(0o777)
        put(above / "folder" / "file", OWNER, 0o600)
    done: list[Any] = [mode_of(path) for path in (above / "file", above / "folder")]
    for who in (OTHER, THIRD):
        with acting(who):
            done += became(
                opening(above / "file", os.O_RDWR),
                lambda: os.listdir(above / "folder"),
                opening(above / "folder" / "file"),
            )
    return done


def lists_of_others(place: Path) -> list[Any]:
    file = put(place / "file", OWNER, 0o666)
    everything = access_list((USER_OBJ, 7), (USER, 7, OTHER), (GROUP_OBJ, 7), (MASK, 7), (OTHERS, 7))
    with acting(OTHER):
        return became(
            lambda: os.setxattr(file, ACCESS, everything),
            lambda: os.removexattr(file, ACCESS),
            lambda: os.setxattr(place, DEFAULT, everything),
        )


# Groups of directories


def set_group(place: Path) -> list[Any]:
    """What is made in a directory of another group does not become a program of that group."""
    shared = folder(place / "shared", 0, 0o2777, gid=TEAM)
    done: list[Any] = []
    for number, who in enumerate(((OWNER,), (OWNER, TEAM))):
        with acting(*who):
            program, below = shared / f"program{number}", shared / f"below{number}"
            os.close(os.open(program, os.O_CREAT | os.O_WRONLY, 0o2775))
            os.mkdir(below, 0o755)
            os.mkfifo(shared / f"fifo{number}", 0o2775)
            done += became(lambda: program.chmod(0o2755))  # noqa: B023
            done += [oct(mode_of(path)) for path in (program, below, shared / f"fifo{number}")]
            done += [program.stat().st_gid, below.stat().st_gid]
    return done


def given_away(place: Path) -> list[Any]:
    file = put(place / "file", OWNER, 0o6755)
    with acting(OWNER, TEAM):
        done = became(
            lambda: os.chown(file, OTHER, -1),
            lambda: os.chown(file, -1, OTHER),
            lambda: os.chown(file, -1, TEAM),
        )
    return [*done, oct(mode_of(file)), file.stat().st_gid]


# Sticky directories


def sticky(place: Path) -> list[Any]:
    common = folder(place / "common", 0, 0o1777)
    his, mine = put(common / "his", OTHER, 0o666), put(common / "mine", OWNER, 0o600)
    folder(common / "his folder", OTHER, 0o777)
    elsewhere = folder(place / "elsewhere", OWNER, 0o755)
    with acting(OWNER):
        return became(
            lambda: os.unlink(his),
            lambda: os.rename(his, common / "new"),
            lambda: os.rename(his, elsewhere / "his"),
            lambda: os.rename(mine, his),
            lambda: renameat2(str(mine), str(his), EXCHANGE),
            lambda: renameat2(str(his), str(mine), EXCHANGE),
            lambda: renameat2(str(mine), str(common / "new"), WHITEOUT),
            lambda: os.rmdir(common / "his folder"),
            lambda: os.rename(common / "his folder", elsewhere / "folder"),
            lambda: os.rename(mine, common / "renamed"),
            lambda: renameat2(str(common / "renamed"), str(his), NOREPLACE),
            lambda: os.unlink(common / "renamed"),
        )


def sticky_of_his_own(place: Path) -> list[Any]:
    common = folder(place / "common", OWNER, 0o1777)
    his, other = put(common / "his", OTHER, 0o600), put(common / "other", THIRD, 0o600)
    with acting(OTHER):
        done = became(lambda: renameat2(str(his), str(other), EXCHANGE))
    with acting(OWNER):
        return done + became(
            lambda: renameat2(str(his), str(other), EXCHANGE),
            lambda: os.unlink(his),
            lambda: os.unlink(other),
        )


def folders_of_others(place: Path) -> list[Any]:
    """A directory is not moved by who may not write `..` in it."""
    mine = folder(place / "mine", OWNER, 0o755)
    folder(mine / "a", OWNER, 0o755)
    folder(mine / "b", OWNER, 0o755)
    folder(mine / "a" / "his", OTHER, 0o755)
    with acting(OWNER):
        return became(
            lambda: os.rename(mine / "a" / "his", mine / "b" / "his"),
            lambda: os.rename(mine / "a" / "his", mine / "a" / "renamed"),
            lambda: os.rename(mine / "a", place / "a"),
            lambda: os.mkdir(mine / "a" / "renamed" / "new"),
        )


# Links, and descriptors


def hard_links(place: Path) -> list[Any]:
    mine = folder(place / "mine", OWNER, 0o755)
    secret, shown = put(place / "secret", 0, 0o600), put(place / "shown", 0, 0o644)
    program = put(place / "program", 0, 0o4777)
    fd = os.open(secret, os.O_PATH)
    with acting(OWNER):
        return became(
            lambda: os.link(secret, mine / "secret"),
            lambda: os.link(shown, mine / "shown"),
            lambda: os.link(program, mine / "program"),
            lambda: link_descriptor(fd, str(mine / "by descriptor")),
            opening(f"/proc/self/fd/{fd}"),
        )


def descriptors(place: Path) -> list[Any]:
    secret = put(place / "secret", 0, 0o600, LARGE)
    read, write = os.open(secret, os.O_RDONLY), os.open(secret, os.O_WRONLY)
    path = os.open(secret, os.O_PATH)
    with acting(OWNER):
        null = os.open("/dev/null", os.O_RDWR)
        return became(
            opening(secret),
            lambda: os.copy_file_range(path, write, 100),
            lambda: os.copy_file_range(write, write, 100, 0, 4096),
            lambda: os.copy_file_range(read, read, 100, 0, 4096),
            lambda: os.sendfile(null, path, 0, 100),
            lambda: os.posix_fallocate(read, 0, 100),
            lambda: os.ftruncate(read, 0),
            lambda: os.pread(write, 1, 0),
            lambda: os.pwrite(read, b"x", 0),
            lambda: mmap.mmap(read, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
            lambda: mmap.mmap(write, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ),
        )


def handles(place: Path) -> list[Any]:
    """A handle leads past the directories: only who may go past all of them opens by one."""
    hidden = put(folder(place / "closed", 0, 0o700) / "file", 0, 0o644)
    shown = put(place / "shown", OWNER, 0o644)
    with acting(OWNER):
        return became(
            lambda: open_by_handle(str(place), str(hidden)), lambda: open_by_handle(str(place), str(shown))
        )


def closing(place: Path, content: bytes) -> list[Any]:
    """What was opened stays open, what comes later is refused, however often it was opened before."""
    file = put(folder(place / "way", OWNER, 0o755) / "file", OWNER, 0o644, content)
    with acting(OTHER):
        held = os.open(file, os.O_RDONLY)
        done = became(*[opening(file)] * 4)
    for close, reopen in (
        (lambda: file.chmod(0), lambda: file.chmod(0o644)),
        (lambda: file.parent.chmod(0o700), lambda: file.parent.chmod(0o755)),
        (lambda: file.parent.chmod(0o744), lambda: file.parent.chmod(0o755)),
        (lambda: os.rename(file, place / "secret"), lambda: os.rename(place / "secret", file)),
        (lambda: file.chmod(0o640), lambda: os.chown(file, -1, OTHER)),
    ):
        close()
        with acting(OTHER):
            done += became(opening(file), opening(file), opening(f"/proc/self/fd/{held}"))
            done += became(lambda: os.pread(held, 10, 0), opening(f"/proc/self/fd/{held}", os.O_WRONLY))
        reopen()
        with acting(OTHER):
            done += became(opening(file))
    return done


def closing_small(place: Path) -> list[Any]:
    return closing(place, b"small")


def closing_large(place: Path) -> list[Any]:
    return closing(place, LARGE)


def replaced(place: Path) -> list[Any]:
    """Another file under the name is asked for its own mode."""
    file = put(place / "file", OWNER, 0o644, LARGE)
    done = []
    for number in range(3):
        with acting(OTHER):
            done += became(opening(file), opening(file))
        os.rename(put(place / "new", OWNER, 0o600, LARGE + b"%d" % number), file)
        with acting(OTHER):
            done += became(opening(file), opening(file))
        file.chmod(0o644)
    return done


def listing(place: Path) -> list[Any]:
    """Names that the kernel has cached for others are not shown to who may not list them."""
    drawer = folder(place / "drawer", OWNER, 0o755)
    put(drawer / "name", OWNER, 0o644)
    done = []
    with acting(OTHER):
        held = os.open(drawer, os.O_RDONLY)
        done += became(lambda: os.listdir(drawer), lambda: os.stat(drawer / "name"))
    for mode in (0o700, 0o711, 0o744):
        drawer.chmod(mode)
        with acting(OWNER):
            done += became(lambda: os.listdir(drawer), lambda: os.stat(drawer / "name"))
        with acting(OTHER):
            done += became(
                lambda: os.listdir(drawer),
                lambda: os.stat(drawer / "name"),
                lambda: os.stat(drawer / "none"),
                opening(drawer / "name"),
                lambda: os.stat("name", dir_fd=held),
            )
    return done


# Attributes


def times(place: Path) -> list[Any]:
    shown, open_to_all = put(place / "shown", OWNER, 0o644), put(place / "open to all", OWNER, 0o666)
    with acting(OTHER):
        return became(
            opening(shown, os.O_RDONLY | os.O_NOATIME),
            opening(open_to_all, os.O_RDWR | os.O_NOATIME),
            lambda: os.utime(shown),
            lambda: os.utime(open_to_all),
            lambda: os.utime(open_to_all, (1, 2)),
            lambda: shown.chmod(0o666),
            lambda: os.chown(shown, OTHER, OTHER),
            lambda: os.truncate(shown, 0),
            opening(shown, os.O_RDONLY | os.O_TRUNC),
        )


def attributes(place: Path) -> list[Any]:
    mine, his = put(place / "mine", OWNER, 0o644), put(place / "his", OTHER, 0o644)
    secret = put(place / "secret", OTHER, 0o600)
    for name in ("trusted.x", "user.x", "security.x"):
        os.setxattr(mine, name, b"root's")
        os.setxattr(secret, name, b"root's")
    capability = b"\x01\0\0\2" + bytes(16)
    common = folder(place / "common", 0, 0o1777)
    with acting(OWNER):
        done = became(
            lambda: os.setxattr(mine, "user.y", b""),
            lambda: os.setxattr(mine, "trusted.y", b""),
            lambda: os.removexattr(mine, "trusted.x"),
            lambda: os.getxattr(mine, "trusted.x"),
            lambda: os.setxattr(mine, "security.y", b""),
            lambda: os.removexattr(mine, "security.x"),
            lambda: os.setxattr(mine, "security.capability", capability),
            lambda: os.setxattr(his, "user.y", b""),
            lambda: os.removexattr(his, "user.y"),
            lambda: os.getxattr(secret, "user.x"),
            lambda: os.removexattr(secret, "user.x"),
            lambda: os.setxattr(common, "user.x", b""),
        )
        return [*done, sorted(set(os.listxattr(mine)) - {"security.x"})]


def devices(place: Path) -> list[Any]:
    mine = folder(place / "mine", OWNER, 0o755)
    os.mknod(mine / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with acting(OWNER):
        return became(
            lambda: os.mknod(mine / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5)),
            lambda: os.mknod(mine / "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0)),
            lambda: os.mkfifo(mine / "fifo"),
        )


NO, EPERM, EBADF = "EACCES", "EPERM", "EBADF"

_OPEN = ["ok", "ok", "ok", "ok"]
_NO_WAY = [NO, NO, "ok", "ok", NO, "ok"]
_MODE = [NO, NO, NO, "ok", NO, "ok"]
_MOVED = ["ENOENT", "ENOENT", "ok", "ok", NO, "ok"]
_CLOSING = [*_OPEN, *_MODE, *_NO_WAY, *_NO_WAY, *_MOVED, *_MODE]

_FOR_THE_OWNER = ["ok", "ok"]
_NAMES = [
    *_FOR_THE_OWNER,
    *(*_FOR_THE_OWNER, NO, NO, NO, NO, NO),
    *(*_FOR_THE_OWNER, NO, "ok", "ENOENT", "ok", "ok"),
    *(*_FOR_THE_OWNER, "ok", NO, NO, NO, NO),
]

TABLE: dict[str, tuple[Attempt, list[Any]]] = {
    "supplementary groups": (groups, [NO, NO, NO, "ok", "ok", NO, NO, NO, NO]),
    "real and effective ids": (ids_of_a_process, ["ok", True, True]),
    "mask of a list": (mask, [0o640, "ok", NO, NO, NO, "ok", NO, NO, NO]),
    "list that denies": (list_that_denies, [NO, "ok", "ok"]),
    "list taken back": (list_taken_back, (["ok"] * 3 + [NO] * 3) * 2),
    "inherited list": (inherited_list, [0o660, 0o760, "ok", "ok", NO, NO, NO, NO]),
    "lists of others": (lists_of_others, [EPERM] * 3),
    "programs of a directory's group": (
        set_group,
        ["ok", "0o755", "0o2755", "0o775", TEAM, TEAM, "ok", "0o2755", "0o2755", "0o2775", TEAM, TEAM],
    ),
    "giving away": (given_away, [EPERM, EPERM, "ok", "0o755", TEAM]),
    "sticky directory": (sticky, [*[EPERM] * 6, "ok", EPERM, EPERM, "ok", "EEXIST", "ok"]),
    "sticky directory of his own": (sticky_of_his_own, [EPERM, "ok", "ok", "ok"]),
    "folders of others": (folders_of_others, [NO, "ok", NO, NO]),
    "hard links": (hard_links, [*[EPERM] * 4, NO]),
    "descriptors": (descriptors, [NO, *[EBADF] * 5, "EINVAL", EBADF, EBADF, NO, NO]),
    "file handles": (handles, [NO, EPERM]),
    "small file closed to him": (closing_small, _CLOSING),
    "large file closed to him": (closing_large, _CLOSING),
    "replaced file": (replaced, ["ok", "ok", NO, NO] * 3),
    "names that are cached": (listing, _NAMES),
    "times, modes, sizes": (times, [EPERM, EPERM, NO, "ok", EPERM, EPERM, EPERM, NO, NO]),
    "attributes": (
        attributes,
        ["ok", EPERM, EPERM, "ENODATA", EPERM, EPERM, EPERM, NO, NO, NO, NO, EPERM, ["user.x", "user.y"]],
    ),
    "devices": (devices, [EPERM, EPERM, "ok"]),
}
