"""The statements of the open transaction, kept for running them again.

SQLite rolls back what it cannot commit, for want of room too (sqlite.org/lang_transaction.html, "Response To
Errors"): the verbs of the group were answered long ago, and what they did would be gone.
"""

from __future__ import annotations

from typing import Any

import apsw

_CONTROL = ("SAVEPOINT", "ROLLBACK TO", "RELEASE")
"""Statements that change nothing by themselves (sqlite.org/c3ref/stmt_readonly.html) and are repeated."""


class Redo:
    """Those of one connection. Owned by its thread."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._version: int | None = None

    def start(self) -> None:
        """A transaction has begun: keep what comes."""
        self._version = self._data_version()
        self._connection.exec_trace = self._keep

    def end(self) -> None:
        """It has ended."""
        if self._version is not None:
            self._connection.exec_trace = self._version = None
            self._statements = []

    def run_again(self) -> None:
        """SQLite has rolled the transaction back: bring it to where it was. If that cannot be, because
        another process has changed the database meanwhile, or nothing was kept, none is open afterwards."""
        if self._version is None:
            return
        self._connection.exec_trace = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._data_version() != self._version:
                raise apsw.BusyError("the database was changed meanwhile")
            for statement, bindings in self._statements:
                self._run(statement, bindings)
        except apsw.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self.end()
            return
        self._connection.exec_trace = self._keep

    def _run(self, statement: str, bindings: tuple[Any, ...]) -> None:
        try:
            for _ in self._connection.execute(statement, bindings):
                pass
        except apsw.ConstraintError:
            return  # as the first time: nothing was changed by it, and who asked has dealt with that

    def _keep(self, cursor: apsw.Cursor, statement: str, bindings: Any) -> bool:
        if not cursor.is_readonly or statement.startswith(_CONTROL):
            self._statements.append((statement, tuple(bindings or ())))
        return True

    def _data_version(self) -> int:
        """Changed by the commits of others only (sqlite.org/pragma.html#pragma_data_version)."""
        return int(self._connection.execute("PRAGMA data_version").get)
