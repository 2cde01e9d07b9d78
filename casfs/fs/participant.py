"""Who takes part in commits (commit.py)."""

from __future__ import annotations

from typing import Protocol


class Participant(Protocol):
    """Who has rows, or content, to add before what was done until now is committed. On the group's thread."""

    async def before_durable(self) -> None:
        """Somebody waits for all that was done to be durable. Raises OSError for what cannot be: the rest is
        committed all the same, and he gets its errno then."""

    async def before_commit(self) -> None:
        """While operations go on. Raises OSError."""

    def before_rows(self) -> None:
        """What was put off has to be written now, inside the transaction. Raises DatabaseError."""
