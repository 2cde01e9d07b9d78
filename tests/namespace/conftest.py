"""A namespace of its own for each test: no store around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from casfs.namespace import schema
from casfs.namespace.namespace import Namespace


@pytest.fixture
def database(scratch: Path) -> Path:
    """A new, closed database."""
    path = scratch / "casfs.db"
    schema.create(str(path), 1234, 5, 6)
    return path


@pytest.fixture
def namespace(database: Path) -> Iterator[Namespace]:
    """An open namespace."""
    namespace = Namespace(str(database))
    yield namespace
    namespace.close()


@pytest.fixture
def writing(namespace: Namespace) -> Namespace:
    """An open namespace in a transaction."""
    assert namespace.try_begin()
    return namespace
