"""How a SQLite file is read: one thread and one connection each for rows and inboxes, and for listings.

One hop for whatever waits; each reading sees one moment of the database.  Who
drives a run waits for no listing, however long that one is.  Knows no statement.
"""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from checkpoint_stores.sql.settling import Outcome
from checkpoint_stores.sql.sqlite_queue import Job, SQLiteQueue

if TYPE_CHECKING:
    from checkpoint_stores.sql.queries import Question

Work = TypeVar("Work")

Reading: TypeAlias = Callable[[sqlite3.Connection], Any]


class _OneByOne(SQLiteQueue[Work]):
    def _carry_out(self, jobs: list[Job[Work]]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for work, future in jobs:
            try:
                outcomes.append((future, self._read(work), None))
            except BaseException as error:  # noqa: BLE001 - who asked gets it
                outcomes.append((future, None, error))
        return outcomes

    @abstractmethod
    def _read(self, work: Work) -> Any: ...


class SQLiteReader(_OneByOne[Reading]):
    """Takes a function that reads, answers with what it returns."""

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(url, connect, name="trailmark-sqlite-reader")

    def _read(self, work: Reading) -> Any:
        self._raw.execute("BEGIN")
        try:
            return work(self._raw)
        finally:
            self._raw.execute("COMMIT")


class SQLiteLister(_OneByOne["Question"]):
    """Takes a question, answers with all lines of the query it chooses; ``clock`` is in microseconds, and is called in the thread."""

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection], clock: Callable[[], int]) -> None:
        super().__init__(url, connect, name="trailmark-sqlite-lister")
        self._clock = clock

    def _prepare(self) -> None:
        # Here SQLAlchemy is imported, in this thread: a server's loop does not stand still for its first listing.
        from checkpoint_stores.sql.queries import Queries
        from checkpoint_stores.sql.sqlite_core import core_over

        self._queries = Queries
        self._core = core_over(self._raw)

    def _read(self, work: Question) -> Any:
        return self._core.execute(work(self._queries(self._clock()))).all()
