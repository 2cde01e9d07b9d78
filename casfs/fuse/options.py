"""Mount options: what `casfs mount -o` takes, and what the kernel and libfuse are told."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from casfs.errors import UsageError
from casfs.fs import acl

if TYPE_CHECKING:
    import pyfuse3

SUBTYPE = "casfs"
"""The mount table shows type `fuse.casfs`."""

_PLAIN = "/-_.~+@:"


ACLS = (acl.ACCESS, acl.DEFAULT)


@dataclass(frozen=True, slots=True)
class Presentation:
    """-o uid=, gid=, umask=: what every file is shown with, whatever its row says.

    The kernel decides by what is shown. So with a umask there are no access lists: they would allow more, or
    less.
    """

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None

    def apply(self, entry: pyfuse3.EntryAttributes) -> None:
        if self.uid is not None:
            entry.st_uid = self.uid
        if self.gid is not None:
            entry.st_gid = self.gid
        if self.umask is not None:
            entry.st_mode = entry.st_mode & ~0o777 | 0o777 & ~self.umask

    @property
    def has_lists(self) -> bool:
        """Are there access lists?"""
        return self.umask is None

    def foreign_bits(self, uid: int, gid: int) -> int:
        """The set-id bits that nobody but root may give to what has that owner and group: who is shown as
        them would make a program that runs as somebody else where it is shown as it is."""
        bits = stat.S_ISUID if self.uid not in (None, uid) else 0
        return bits | (stat.S_ISGID if self.gid not in (None, gid) else 0)


AS_IT_IS = Presentation()
"""Files are shown as their rows say."""


def source_name(store: str) -> str:
    """A store's path as the mount table's source: percent-encoded, so that no comma or byte is lost."""
    return quote(store.encode(errors="surrogateescape"), safe=_PLAIN)


def store_of_source(source: str) -> str:
    """The inverse of `source_name`."""
    return unquote(source, errors="surrogateescape")


_FLAGS = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "allow_other": ("allow_other", True),
    "allow_root": ("allow_root", True),
    "suid": ("suid", True),
    "nosuid": ("suid", False),
    "dev": ("dev", True),
    "nodev": ("dev", False),
    "exec": ("exec", True),
    "noexec": ("exec", False),
    "native": ("native", True),
    "no_native": ("native", False),
}

_ACCEPTED = (
    *("default_permissions", "noatime", "nodiratime", "relatime"),
    *("auto", "noauto", "nofail", "_netdev", "user", "nouser", "users"),
)
"""What mount(8) and fstab(5) pass on and that changes nothing here; `x-…` and `comment=…` too."""

REMOUNT = "remount"

REMOUNTED = frozenset({"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec"})
"""What the kernel changes in a mount; the rest it ignores (fuse_parse_param, fs/fuse/inode.c)."""

_PASSED_ON = frozenset({REMOUNT, "default_permissions", "noatime", "allow_other", "allow_root"})
"""What mount(8) says of the mount as it is; `user_id=…` and `group_id=…` too."""

_VALUES = ("uid", "gid", "umask", "commit_interval", "low_room", "orphan_share", "free_step")

MAX_INTERVAL = 300.0

MAX_LOW = 50.0
"""Percent of the disk: who wants to have more than half of it free at all times has another need."""

_MOST = {"commit_interval": MAX_INTERVAL, "low_room": MAX_LOW, "orphan_share": 100.0}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """-o of `casfs mount`. `commit_interval` in seconds; 0 makes each operation durable before it returns.

    `low_room`: percent of the disk; with less of it free, what nobody needs goes at once
    (service/pressure.py). `orphan_share`: percent of the store that orphans may take before they are
    collected early (service/collector.py); 0: any. `free_step`: bytes; free space is shown to others than
    root and who has mounted it in such steps; 0: as it is.
    """

    read_only: bool = False
    allow_other: bool = False
    allow_root: bool = False
    suid: bool = False
    dev: bool = False
    exec: bool = True
    native: bool = True
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    commit_interval: float = 1.0
    low_room: float = 5.0
    orphan_share: float = 10.0
    free_step: int = 0

    @classmethod
    def parse(cls, words: list[str]) -> MountOptions:
        """Raises UsageError, with the nearest known option for an unknown one."""
        given: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if key in _FLAGS and not equals:
                field, setting = _FLAGS[key]
                given[field] = setting
            elif key in _VALUES:
                given[key] = _number(key, value)
            elif word in _ACCEPTED or key == "comment" or key.startswith("x-"):
                continue
            else:
                raise UsageError.unknown("mount option", word, (*_FLAGS, *_VALUES, *_ACCEPTED))
        options = cls(**given)
        if options.allow_other and options.allow_root:
            raise UsageError("allow_other and allow_root exclude each other")
        return options


def remount_options(words: list[str]) -> list[str]:
    """What is to change, of the options of a remount. Raises UsageError for what cannot."""
    changed = [word for word in words if word in REMOUNTED]
    for word in words:
        key = word.partition("=")[0]
        if (
            word not in REMOUNTED | _PASSED_ON
            and word not in _ACCEPTED
            and key not in ("user_id", "group_id")
        ):
            raise UsageError(
                f"mount option {word} cannot be changed by a remount", "unmount it and mount it so"
            )
    return changed


_SIZE = re.compile(r"([0-9]{1,6})([KMGT]?)", re.ASCII)


def _number(key: str, value: str) -> int | float:
    try:
        if key == "free_step":
            size = _SIZE.fullmatch(value)
            if size is None:
                raise ValueError
            return int(size[1]) << 10 * " KMGT".index(size[2] or " ")
        if key in _MOST:
            figure = float(value)
            if not 0 <= figure <= _MOST[key]:
                raise ValueError
            return figure
        number = int(value, 8 if key == "umask" else 10)
        if not 0 <= number <= (0o777 if key == "umask" else (1 << 32) - 2):
            raise ValueError
        return number
    except ValueError:
        wanted = {
            "umask": "an octal number from 0 to 777",
            "commit_interval": f"a number of seconds from 0 to {MAX_INTERVAL:.0f}",
            "low_room": f"a percentage from 0 to {MAX_LOW:.0f}",
            "orphan_share": "a percentage from 0 to 100",
            "free_step": "a size: 500M, 10G",
        }.get(key, "a numeric id")
        raise UsageError(f"mount option {key}={value} is not valid", f"{key} takes {wanted}") from None
