"""What SQLite complains of, as errno values."""

from __future__ import annotations

import errno

import apsw
import pytest

from casfs.namespace import connection


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (apsw.FullError, errno.ENOSPC),
        (apsw.ReadOnlyError, errno.EROFS),
        (apsw.BusyError, errno.EBUSY),
        (apsw.LockedError, errno.EBUSY),
        (apsw.NoMemError, errno.ENOMEM),
        (apsw.IOError, errno.EIO),
        (apsw.CorruptError, errno.EIO),
    ],
)
def test_every_error_has_an_errno(error: type[apsw.Error], number: int) -> None:
    translated = connection.translate(error("why"))
    assert translated.errno == number
    assert "why" in str(translated)
    assert connection.database_errno(error("why")) == number


def test_other_errors_are_not_the_databases() -> None:
    assert connection.database_errno(OSError(errno.ENOENT, "")) is None
