"""How everything the store writes reaches a SQLite file: one thread, one connection, one hop per batch.

Since all of it goes through here, nobody in this process ever waits for the
file's lock behind a colleague.  What is waiting when the thread is free shares
one transaction; a lone commit waits for nobody.  No run's refusal touches
another's commit.  Knows commits, not why they are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

from checkpoint_stores.errors import LeaseLostError, StoreUnavailableError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import statements
from checkpoint_stores.sql.settling import JOBS_AT_ONCE, Outcome, settle
from checkpoint_stores.sql.transitions import Transition

T = TypeVar("T")


def core_over(raw: sqlite3.Connection) -> sa.Connection:
    """SQLAlchemy over a bare connection whose transactions are ours: it neither begins, commits nor resets."""
    engine = sa.create_engine(
        "sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
    )
    return engine.connect()


_Job: TypeAlias = tuple["Transition | Callable[[sa.Connection], Any]", "asyncio.Future[Any]"]


class SQLiteWriter:
    """One thread, one connection, one hop per batch.

    Args:
        connect: opens the connection (autocommit mode); called in the thread.
        clock: microseconds; called in the thread.
    """

    def __init__(self, url: str, connect: Callable[[], sqlite3.Connection], clock: Callable[[], int]) -> None:
        self._url = url
        self._connect = connect
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="trailmark-sqlite-writer", daemon=True)
        self._opened: asyncio.Future[Any] = self._loop.create_future()
        self._is_closed = False
        self._raw: sqlite3.Connection
        self._core: sa.Connection

    async def open(self) -> None:
        """Start the thread; raises what opening the database raises."""
        self._thread.start()
        await self._opened

    async def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Transition | Callable[[sa.Connection], T]) -> asyncio.Future[Any]:
        """Queue a commit, or any function to be run in a transaction; the future gets the receipt, or what it returns."""
        if self._is_closed:
            raise StoreUnavailableError(self._url, "this store is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((work, future))
        return future

    # --- in the thread ----------------------------------------------------------------------------------------------
    def _work(self) -> None:
        try:
            self._raw = self._connect()
            self._core = core_over(self._raw)
        except BaseException as error:  # noqa: BLE001 - whoever opens the store gets it
            self._deliver([(self._opened, None, error)])
            return
        self._deliver([(self._opened, None, None)])
        take, take_now = self._jobs.get, self._jobs.get_nowait
        is_open = True
        while is_open:
            jobs = []
            job = take()
            try:
                while job is not None:
                    jobs.append(job)
                    if len(jobs) >= JOBS_AT_ONCE:
                        break
                    job = take_now()
                else:
                    is_open = False
            except queue.Empty:
                pass
            if jobs:
                self._deliver(self._carry_out(jobs))
        with contextlib.suppress(sqlite3.Error):
            self._raw.close()

    def _deliver(self, outcomes: list[Outcome]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle, outcomes)

    def _carry_out(self, jobs: list[_Job]) -> list[Outcome]:
        work, future = jobs[0]
        try:
            if len(jobs) == 1 and type(work) is Transition and work.change is None and len(work.rows) == 1:
                # The ordinary step alone: one statement, which is its own transaction.
                return [(future, self._append(work), None)]
            self._raw.execute("BEGIN IMMEDIATE")
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            return [(waiting, None, error) for _, waiting in jobs]
        outcomes: list[Outcome] = []
        try:
            for work, future in jobs:
                outcomes.append(self._carry_out_one(work, future))
            self._raw.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - nothing of the batch was written; every caller gets it
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")
            return [(waiting, None, error) for _, waiting in jobs]
        return outcomes

    def _carry_out_one(self, work: Any, future: asyncio.Future[Any]) -> Outcome:
        execute = self._raw.execute
        if type(work) is Transition and work.change is None and len(work.rows) == 1:
            try:
                return future, self._append(work), None  # a single statement undoes itself
            except (sqlite3.IntegrityError, LeaseLostError, UnicodeError, OverflowError) as error:
                return future, None, error
        execute("SAVEPOINT one")
        try:
            result = self._transition(work) if type(work) is Transition else work(self._core)
        except BaseException as error:
            if not self._raw.in_transaction:
                raise  # the disk is full or the file is broken: SQLite has undone everything by itself
            execute("ROLLBACK TO one")
            execute("RELEASE one")
            return future, None, error
        execute("RELEASE one")
        return future, result, None

    def _append(self, work: Transition) -> Receipt:
        now = self._clock()
        try:
            inserted = self._raw.execute(statements.SQLITE_APPEND, (*work.rows[0], now)).fetchall()
        except sqlite3.IntegrityError:
            raise self._lost(work) from None
        if not inserted:
            raise self._lost(work)
        return Receipt(inserted[0][0], now)

    def _transition(self, work: Transition) -> Receipt:
        execute, now = self._raw.execute, self._clock()
        commit, key = work.commit, work.key
        tenant = ""
        inbox_rev: int | None = None
        try:
            if work.change is not None:
                changed = execute(statements.SQLITE_CHANGE_RUN, (key, commit.epoch, *work.change, now)).fetchall()
                if not changed:
                    raise self._lost(work)
                inbox_rev, tenant = changed[0]
            for row in work.rows:
                inserted = execute(statements.SQLITE_APPEND, (*row, now)).fetchall()
                if not inserted:
                    raise self._lost(work)
                inbox_rev = inserted[0][0]
        except sqlite3.IntegrityError:
            raise self._lost(work) from None
        for barrier in work.opened:
            execute(statements.SQLITE_OPEN_BARRIER, barrier | {"tenant": tenant, "opened_at": barrier["opened_at"] or now})
        for ticket, status in work.closed:
            execute(statements.SQLITE_SET_BARRIER, (key, ticket, status))
        for vote in work.voted:
            execute(statements.SQLITE_VOTE, vote | {"decided_at": vote["decided_at"] or now})
        for decision_id, seq in work.consumed:
            execute(statements.SQLITE_CONSUME, (key, decision_id, seq))
        if inbox_rev is None:
            raise ValueError("a commit needs at least one row or a change")
        return Receipt(inbox_rev, now)

    def _lost(self, work: Transition) -> LeaseLostError:
        found = self._raw.execute(statements.for_driver(statements.OWNER_OF, "sqlite"), (work.key,)).fetchone() or (None, None)
        return LeaseLostError(work.commit.run_id, work.commit.epoch, owner=found[0], current_epoch=found[1])
