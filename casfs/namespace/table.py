"""What the groups of tables have in common: SQLite's errors leave this package as errno values."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import apsw
import msgspec

from casfs.namespace.connection import DatabaseError, translate

Row = TypeVar("Row")


class Table:
    """A group of tables. Each of its public methods, and each iterator that one gives, raises DatabaseError
    for what SQLite complains of, and for values that no row of ours has (I9), without a word of it in the
    class itself."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if name.startswith("_"):
                continue
            if inspect.isgeneratorfunction(method):
                setattr(cls, name, _translated_iterator(method))
            elif inspect.isfunction(method):
                setattr(cls, name, _translated(method))


def _translated(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except apsw.Error as error:
            raise translate(error) from error
        except (TypeError, ValueError) as error:
            raise _no_row(error) from error

    return functools.wraps(method)(call)


def _translated_iterator(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            yield from method(*args, **kwargs)
        except apsw.Error as error:
            raise translate(error) from error
        except (TypeError, ValueError) as error:
            raise _no_row(error) from error

    return functools.wraps(method)(call)


def _no_row(error: Exception) -> DatabaseError:
    return DatabaseError(errno.EIO, f"database: a row that is none: {error}; 'casfs fsck' says more")


def typed(rows: Iterable[Sequence[Any]], kind: type[Row]) -> list[Row]:
    """Rows as the named tuples that they are. Raises DatabaseError EIO for values that a STRICT table cannot
    have: whoever writes the file writes what he likes (I9)."""
    try:
        return msgspec.convert(list(rows), list[kind], builtin_types=(bytes,))  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise _no_row(error) from error
