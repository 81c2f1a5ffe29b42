"""How everything the store writes reaches a SQLite file: one thread, one connection, one hop per batch.

Since all of it goes through here, nobody in this process ever waits for the
file's lock behind a colleague.  What is waiting when the thread is free shares
one transaction; a lone commit waits for nobody.  No run's refusal touches
another's commit.  Knows commits, not why they are made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeGuard

from checkpoint_stores.errors import LeaseLostError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import sqlite_transition
from checkpoint_stores.sql.allowing import with_uses
from checkpoint_stores.sql.settling import Answer, Outcome
from checkpoint_stores.sql.sqlite_queue import Job, SQLiteQueue
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.wires import SQLiteWire, Wire

_ONE_IS_WRONG: Final = (sqlite3.IntegrityError, UnicodeError, OverflowError)
"""What a statement raises for a row that is wrong in itself; the statement then has done nothing."""


class _HalfWrittenError(Exception):
    """A job failed behind something that it had written.  Never leaves the writer."""


Written: TypeAlias = Transition | Callable[[Wire], Any]


class SQLiteWriter(SQLiteQueue[Written]):
    """Takes a `Transition`, answers with its `Receipt`; takes any function to be run in a transaction, answers with what it returns.

    Args:
        connect: opens the connection (autocommit mode); called in the thread.
        clock: microseconds; called in the thread.
    """

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection], clock: Callable[[], int]) -> None:
        super().__init__(url, connect, name="trailmark-sqlite-writer")
        self._clock = clock
        self._wire = SQLiteWire(self._execute)

    def _carry_out(self, jobs: list[Job[Written]]) -> list[Outcome]:
        work, future = jobs[0]
        if len(jobs) == 1 and _is_ordinary(work):
            try:
                # The ordinary step alone: one statement, which is its own transaction.
                return [(future, sqlite_transition.append(self._execute, work, self._clock()), None)]
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                return [(future, None, error)]
        try:
            return self._together(jobs, apart=False)
        except _HalfWrittenError:
            return self._together(jobs, apart=True)

    def _together(self, jobs: list[Job[Written]], *, apart: bool) -> list[Outcome]:
        """Carry jobs out in one transaction; ``apart``: so that what one of them wrote can be undone alone.

        Most that fail have written nothing, so nobody pays for what undoes it.  Raises _HalfWrittenError, and nothing is written, where one
        has, and they were not kept apart.
        """
        outcomes: list[Outcome] = []
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            for group in _groups(jobs):
                if len(group) > 1:
                    outcomes += self._append(group)
                else:
                    outcomes.append(self._carry_out_one(*group[0], apart=apart))
            self._raw.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")
            if isinstance(error, _HalfWrittenError):
                raise
            return [(waiting, None, error) for _, waiting in jobs]  # nothing of the batch was written; every caller gets it
        return outcomes

    def _append(self, jobs: Sequence[Job[Any]]) -> list[Outcome]:
        """Ordinary commits of different runs by one statement: Python is asked for once, however busy the loop keeps it."""
        try:
            answers = sqlite_transition.append_many(self._execute, [work for work, _ in jobs], self._clock())
        except _ONE_IS_WRONG:
            return [self._append_one(*job) for job in jobs]
        outcomes: list[Outcome] = []
        for (_, future), told in zip(jobs, answers, strict=True):
            outcomes.append((future, None, told) if isinstance(told, LeaseLostError) else (future, told, None))
        return outcomes

    def _append_one(self, work: Transition, future: Answer) -> Outcome:
        try:
            return future, sqlite_transition.append(self._execute, work, self._clock()), None  # a single statement undoes itself
        except (*_ONE_IS_WRONG, LeaseLostError) as error:
            return future, None, error

    def _carry_out_one(self, work: Any, future: Answer, *, apart: bool) -> Outcome:
        if _is_ordinary(work):
            return self._append_one(work, future)
        raw = self._raw
        if apart:
            raw.execute("SAVEPOINT one")
        before = raw.total_changes
        try:
            result = self._transition(work) if type(work) is Transition else work(self._wire)
        except BaseException as error:
            if not raw.in_transaction:
                raise  # the disk is full or the file is broken: SQLite has undone everything by itself
            if apart:
                raw.execute("ROLLBACK TO one")
                raw.execute("RELEASE one")
            elif raw.total_changes != before:
                raise _HalfWrittenError from error
            return future, None, error
        if apart:
            raw.execute("RELEASE one")
        return future, result, None

    def _transition(self, work: Transition) -> Receipt:
        now = self._clock()
        if work.asks is not None:
            work = with_uses(self._wire, work, now)
        return sqlite_transition.write(self._execute, work, now)

    def _execute(self, statement: str, values: Any) -> list[Any]:
        return self._raw.execute(statement, values).fetchall()


def _is_ordinary(work: Any) -> TypeGuard[Transition]:
    """Whether it is a commit of one row and nothing else."""
    return type(work) is Transition and work.change is None and len(work.rows) == 1


def _groups(jobs: list[Job[Any]]) -> Iterator[Sequence[Job[Any]]]:
    """The jobs in order, ordinary commits of different runs that follow each other in groups that share a statement."""
    waiting: dict[bytes, Job[Any]] = {}
    for job in jobs:
        work = job[0]
        is_ordinary = _is_ordinary(work)
        if is_ordinary and work.key not in waiting:
            waiting[work.key] = job
            continue
        if waiting:
            yield from sqlite_transition.in_groups(list(waiting.values()))
        waiting = {work.key: job} if is_ordinary else {}
        if not is_ordinary:
            yield [job]
    yield from sqlite_transition.in_groups(list(waiting.values()))
