"""How everything the store writes reaches a SQLite file: one thread, one connection, one hop per batch.

Since all of it goes through here, nobody in this process ever waits for the
file's lock behind a colleague.  What is waiting when the thread is free shares
one transaction; a lone commit waits for nobody.  No run's refusal touches
another's commit.  Knows commits, not why they are made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from checkpoint_stores.errors import LeaseLostError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import sqlite_together, sqlite_transition, statements
from checkpoint_stores.sql.allowing import with_uses
from checkpoint_stores.sql.matters import Ending, Starting
from checkpoint_stores.sql.settling import Answer, Outcome
from checkpoint_stores.sql.sqlite_queue import Job, SQLiteQueue
from checkpoint_stores.sql.transitions import Creation, Transition
from checkpoint_stores.sql.wires import Execute, SQLiteWire, Wire

_ONE_IS_WRONG: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, UnicodeError, OverflowError)
"""What a statement raises for a row that is wrong in itself; the statement then has done nothing."""


class _HalfWrittenError(Exception):
    """A job failed behind something that it, or one of those it shared a statement with, had written.  Never leaves the writer."""


Written: TypeAlias = Transition | Creation | Starting | Ending | Callable[[Wire], Any]

_OF_EFFECTS: Final[Mapping[object, Callable[[Execute, Sequence[Any], int], None]]] = {
    Starting: sqlite_together.start_effects,
    Ending: sqlite_together.end_effects,
}


class SQLiteWriter(SQLiteQueue[Written]):
    """Takes a `Transition`, answers with its `Receipt`; takes a `Creation`, answers when it was created, or None where the name is taken;
    takes a `Starting` or an `Ending`, answers with its record, or None where it is out of the ordinary: go the long way; takes any function to be run in a transaction, answers with what it returns.

    Args:
        connect: opens the connection (autocommit mode); called in the thread.
        clock: microseconds; called in the thread.
    """

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection], clock: Callable[[], int]) -> None:
        super().__init__(url, connect, name="trailmark-sqlite-writer")
        self._clock = clock
        self._wire = SQLiteWire(self._execute)

    def _carry_out(self, jobs: list[Job[Written]]) -> list[Outcome]:
        rows = _rows_alone(jobs)
        if len(rows) == len(jobs) <= statements.MOST_TOGETHER:
            try:
                # Ordinary steps and nothing else: one statement, which is its own transaction.
                return self._append(jobs, rows)
            except _ONE_IS_WRONG:
                pass  # one by one in one transaction: where the file fails half-way, nothing of what is told to have failed is in
            except BaseException as error:  # noqa: BLE001 - the callers get it
                return [(waiting, None, error) for _, waiting in jobs]
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
            for kind, group in _groups(jobs):
                if kind is _ROW:
                    outcomes += self._append_each(group)
                elif apart or len(group) == 1:
                    outcomes += [self._carry_out_one(*job, apart=apart) for job in group]
                else:
                    outcomes += self._carry_out_alike(kind, group)
            self._raw.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")
            if isinstance(error, _HalfWrittenError):
                raise
            return [(waiting, None, error) for _, waiting in jobs]  # nothing of the batch was written; every caller gets it
        return outcomes

    # --- ordinary commits -------------------------------------------------------------------------------------------
    def _append(self, jobs: Sequence[Job[Any]], rows: Mapping[bytes, tuple[Any, ...]]) -> list[Outcome]:
        """Ordinary commits of different runs by one statement; raises what `sqlite_together.append` raises, then none of them is in."""
        if len(jobs) == 1:
            return [self._append_one(*jobs[0])]
        now = self._clock()
        return self._receipts(jobs, sqlite_together.append(self._execute, rows, now), now)

    def _append_each(self, jobs: Sequence[Job[Any]]) -> list[Outcome]:
        """The same within a transaction; where one of them is wrong in itself, by a statement each."""
        try:
            return self._append(jobs, _rows_alone(jobs))
        except _ONE_IS_WRONG:
            return [self._append_one(*job) for job in jobs]

    def _append_one(self, work: Transition, future: Answer) -> Outcome:
        try:
            return future, sqlite_transition.append(self._execute, work, self._clock()), None  # a single statement undoes itself
        except (*_ONE_IS_WRONG, LeaseLostError) as error:
            return future, None, error

    def _receipts(self, jobs: Sequence[Job[Any]], revs: Sequence[int | None], now: int) -> list[Outcome]:
        receipts = {rev: Receipt(rev, now) for rev in set(revs) if rev is not None}
        if None not in revs:
            return [(future, receipts[rev], None) for (_, future), rev in zip(jobs, revs, strict=True)]  # type: ignore[index]
        return [
            (future, None, sqlite_transition.lost(self._execute, work)) if rev is None else (future, receipts[rev], None)
            for (work, future), rev in zip(jobs, revs, strict=True)
        ]

    # --- all else ---------------------------------------------------------------------------------------------------
    def _carry_out_alike(self, kind: object, jobs: Sequence[Job[Any]]) -> list[Outcome]:
        """What is alike by the same statements; raises _HalfWrittenError where one of it cannot be."""
        now = self._clock()
        works = [work for work, _ in jobs]
        try:
            if kind in _OF_EFFECTS:
                if self._of_effects(kind, works, now):
                    return [(future, work.at(now), None) for work, future in jobs]
            elif kind is _CREATION:
                if sqlite_together.create(self._execute, works, now):
                    return [(future, now, None) for _, future in jobs]
            elif revs := sqlite_together.write(self._execute, works, now):
                return self._receipts(jobs, revs, now)
        except _ONE_IS_WRONG as error:
            raise _HalfWrittenError from error
        raise _HalfWrittenError

    def _carry_out_one(self, work: Any, future: Answer, *, apart: bool) -> Outcome:
        raw = self._raw
        if apart:
            raw.execute("SAVEPOINT one")
        before = raw.total_changes
        try:
            result = self._result(work)
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

    def _result(self, work: Any) -> Any:
        if type(work) is Creation:
            return self._creation(work)
        if type(work) in _OF_EFFECTS:
            now = self._clock()
            return work.at(now) if self._of_effects(type(work), [work], now) else None
        return self._transition(work) if type(work) is Transition else work(self._wire)

    def _of_effects(self, kind: object, works: Sequence[Any], now: int) -> bool:
        """Write what is asked of effects; whether there is a line of each."""
        before = self._raw.total_changes
        _OF_EFFECTS[kind](self._execute, works, now)
        return self._raw.total_changes - before == len(works)

    def _creation(self, work: Creation) -> int | None:
        now, before = self._clock(), self._raw.total_changes
        try:
            return now if sqlite_together.create(self._execute, [work], now) else None
        except sqlite3.IntegrityError:
            if self._raw.total_changes != before:
                raise
            return None  # there is such a run, down to its first row

    def _transition(self, work: Transition) -> Receipt:
        now = self._clock()
        if work.asks is not None:
            work = with_uses(self._wire, work, now)
        return sqlite_transition.write(self._execute, work, now)

    def _execute(self, statement: str, values: Any) -> list[Any]:
        return self._raw.execute(statement, values).fetchall()


_ROW: Final = "an ordinary commit"
_CREATION: Final = "a new run"
_TRANSITION: Final = "rows, and what the run comes to with them"


def _kind(work: Any) -> object:
    """What a job has in common with those that may share its statements; None where it shares them with nobody."""
    if type(work) is Creation:
        return _CREATION
    if type(work) in _OF_EFFECTS:
        return type(work)
    if work.change is None:
        return _ROW if len(work.rows) == 1 else None
    return None if work.opened or work.nudged or not work.rows else _TRANSITION


def _rows_alone(jobs: Sequence[Job[Any]]) -> dict[bytes, tuple[Any, ...]]:
    """The rows of the ordinary commits by run; as many as there are jobs where there is nothing else, and no run twice."""
    return {work[0]: work[2][0] for work, _ in jobs if type(work) is Transition and work[3] is None and len(work[2]) == 1}


def _groups(jobs: Sequence[Job[Any]]) -> Iterator[tuple[object, Sequence[Job[Any]]]]:
    """The jobs, those of one run (or of one effect) in their order, what is alike together."""
    waiting: dict[object, Job[Any]] = {}
    for job in jobs:
        key = None if callable(job[0]) else job[0].key
        if key is None or key in waiting:
            yield from _alike(waiting.values())
            waiting = {}
        if key is None:
            yield None, [job]
        else:
            waiting[key] = job
    yield from _alike(waiting.values())


def _alike(jobs: Iterable[Job[Any]]) -> Iterator[tuple[object, Sequence[Job[Any]]]]:
    """Jobs of different runs, which may be carried out in any order."""
    by_kind: dict[object, list[Job[Any]]] = {}
    for job in jobs:
        by_kind.setdefault(_kind(job[0]), []).append(job)
    for job in by_kind.pop(None, ()):
        yield None, [job]
    for kind, alike in by_kind.items():
        for first in range(0, len(alike), statements.MOST_TOGETHER):
            yield kind, alike[first : first + statements.MOST_TOGETHER]
