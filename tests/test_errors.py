"""One line for a person, an errno for programs, an exit code for the shell."""

from __future__ import annotations

import errno
import os

import pytest

from casfs import errors
from casfs.errors import CasfsError, ExitCode, FsError, UsageError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CasfsError)]


def test_a_hint_is_part_of_the_line() -> None:
    assert str(CasfsError("it broke")) == "it broke"
    assert str(CasfsError("it broke", "mend it")) == "it broke; mend it"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_errno_and_an_exit_code(kind: type[CasfsError]) -> None:
    assert kind.errno in errno.errorcode
    assert kind.exit_code in ExitCode
    assert kind.exit_code.meaning
    assert kind.__doc__


def test_exit_codes_are_different_and_those_a_shell_has() -> None:
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    assert all(0 <= code < 256 for code in ExitCode)
    assert ExitCode.OK == 0


def test_an_unknown_word_gets_the_nearest_one() -> None:
    known = ["allow_other", "commit_interval", "ro"]
    assert str(UsageError.unknown("mount option", "alow_other", known)) == (
        "unknown mount option 'alow_other'; did you mean 'allow_other'?"
    )
    assert str(UsageError.unknown("mount option", "zzz", known)).endswith(
        "known: allow_other, commit_interval, ro"
    )


def test_a_file_system_error_is_an_os_error() -> None:
    error = FsError(errno.ENOENT)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    assert FsError(errno.EBUSY, "because").strerror == "because"
