"""How a SQLite file is read: a thread and a connection for rows and inboxes, and another pair for listings.

One hop for whatever waits; each reading sees one moment of the database.  Who
drives a run waits for no listing, however long that one is.  Knows no statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeAlias

from checkpoint_stores.sql.settling import Outcome
from checkpoint_stores.sql.sqlite_queue import Job, SQLiteQueue

Reading: TypeAlias = Callable[[sqlite3.Connection], Any]


class SQLiteReader(SQLiteQueue[Reading]):
    """Takes a function that reads, answers with what it returns."""

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
