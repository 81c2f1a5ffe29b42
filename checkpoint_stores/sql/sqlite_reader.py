"""How rows and inboxes are read from a SQLite file: one thread, one connection, one hop for whatever waits.

Each reading sees one moment of the database.  Knows no statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeAlias

from checkpoint_stores.sql.sqlite_queue import Job, Outcome, SQLiteQueue

Reading: TypeAlias = Callable[[sqlite3.Connection], Any]


class SQLiteReader(SQLiteQueue[Reading]):
    """Takes a function that reads, answers with what it returns."""

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(url, connect, name="trailmark-sqlite-reader")

    def _carry_out(self, jobs: list[Job[Reading]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for work, future in jobs:
            try:
                outcomes.append((future, self._read(work), None))
            except BaseException as error:  # noqa: BLE001 - who asked gets it
                outcomes.append((future, None, error))
        return outcomes

    def _read(self, work: Reading) -> Any:
        self._raw.execute("BEGIN")
        try:
            return work(self._raw)
        finally:
            self._raw.execute("COMMIT")
