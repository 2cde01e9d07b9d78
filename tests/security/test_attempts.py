"""The table of attempts: a user gets on a mount what he gets on a disk, whatever is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.mounted.sides import Sides
from tests.security.attempts import TABLE
from tests.security.users import apart


@pytest.mark.parametrize("name", TABLE)
def test_a_user_gets_what_he_gets_on_a_disk(sides: Sides, name: str) -> None:
    attempt, expected = TABLE[name]

    def outcome(side: Path) -> Any:
        return apart(lambda: attempt(side))

    assert outcome(sides.model) == expected
    assert outcome(sides.tested) == expected
