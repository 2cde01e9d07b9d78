"""What can go wrong, each kind with its errno (for programs in the mount) and exit code (for the shell).

A `CasfsError` carries one line for a person: what is wrong, and a hint what to do about it. Anything else
that reaches the top of a command is either an `OSError`, told by its own text, or a bug.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """What a `casfs` command leaves to its caller; the one table that `casfs --help` prints."""

    meaning: str

    OK = 0, "done"
    FAILED = 1, "the operation failed"
    USAGE = 2, "the command line is wrong"
    STORE = 3, "the store is absent, not a store, damaged, of a newer format, or (init) there already"
    LOCKED = 4, "the store is in use by another process"
    PROBLEMS = 5, "problems or damage were found and are still there"
    NOT_MOUNTED = 6, "the path lies in no casfs mount, or nothing serves it"
    MOUNT = 32, "mounting or unmounting failed (as in mount(8))"
    INTERNAL = 70, "a bug in casfs; --debug shows where"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"
    BROKEN_PIPE = 141, "whoever read the output went away"

    def __new__(cls, value: int, meaning: str) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


def exit_code(number: int) -> ExitCode:
    """The code of a number that came from another process."""
    return next((code for code in ExitCode if code == number), ExitCode.FAILED)


class CasfsError(Exception):
    """`message` says what is wrong, `hint` (may be empty) what to do; together they make one line."""

    errno: int = errno.EIO
    exit_code: ExitCode = ExitCode.FAILED
    hint: str = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled without `__init__`, whose arguments differ by kind."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class UsageError(CasfsError):
    """A command line, mount option or configuration key that cannot be meant."""

    errno = errno.EINVAL
    exit_code = ExitCode.USAGE

    @classmethod
    def unknown(cls, kind: str, word: str, known: Iterable[str]) -> Self:
        """`word` is no `kind` ("command", "mount option", …): name the nearest one, or all of them."""
        from difflib import get_close_matches

        names = sorted(known)
        near = get_close_matches(word, names, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
        return cls(f"unknown {kind} '{word}'", hint)


class LayoutError(UsageError):
    """A layout that cannot be meant, or an artifact that a layout has no path for.

    `key` is the entry of the layout's definition that is wrong, and `column` (from 1) the place in its text;
    empty and 0 where there is none.
    """

    def __init__(self, message: str, hint: str = "", *, key: str = "", column: int = 0) -> None:
        super().__init__(message, hint)
        self.key = key
        self.column = column


class RepositoryError(CasfsError):
    """A repository or a layout cannot become what it shall be, since others are as they are."""

    errno = errno.EBUSY


class PermissionDenied(CasfsError):
    """The caller may not do this, by the store's or the control socket's rules."""

    errno = errno.EACCES


class StoreNotFound(CasfsError):
    """There is nothing at the path, or what is there is no store."""

    errno = errno.ENOENT
    exit_code = ExitCode.STORE


class StoreExists(CasfsError):
    """A store was to be made where something is already."""

    errno = errno.EEXIST
    exit_code = ExitCode.STORE


class StoreLocked(CasfsError):
    """Somebody else uses the store; the message says who (process id and command)."""

    errno = errno.EBUSY
    exit_code = ExitCode.LOCKED


class FormatError(CasfsError):
    """The store's own files do not say what they should."""

    errno = errno.EINVAL
    exit_code = ExitCode.STORE


class FormatTooNew(FormatError):
    """Written by a newer casfs; this one keeps its hands off."""

    errno = errno.EPROTONOSUPPORT


class MountError(CasfsError):
    """The kernel, fusermount3 or the mount point refused."""

    exit_code = ExitCode.MOUNT


class NotMounted(CasfsError):
    """The path lies in no casfs mount, or no daemon answers for the store."""

    errno = errno.ENOTCONN
    exit_code = ExitCode.NOT_MOUNTED


class FsError(OSError):
    """A file system operation ends with `errno`, as the system call's man page says."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(number, message or os.strerror(number))
