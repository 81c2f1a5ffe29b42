"""How commits reach the disk: one writer per store, which batches whatever waits.

`SQLiteWriter` owns one thread and one connection; everything the store writes
goes through it, so nobody in this process ever waits for the file's lock behind
a colleague.  `PostgresWriter` owns one asyncpg connection and a task.  Both
take what is waiting at the moment they are free: a lone commit waits for
nobody, many share one transaction.  Neither lets one run's refusal touch
another's commit.  They know commits, not why they are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import sqlalchemy as sa

from checkpoint_stores.errors import LeaseLostError, StoreUnavailableError
from checkpoint_stores.records import ENDED, Commit, Receipt
from checkpoint_stores.sql import faults, statements
from checkpoint_stores.sql.lines import barrier_line, decision_line, encoded

T = TypeVar("T")

ROWS_AT_ONCE: Final = 1_000
"""The most commits in one batch, so that the first of them does not wait for thousands."""


class Transition(NamedTuple):
    """A commit, converted to lines before it reaches the writer: whatever cannot be converted fails alone and early."""

    key: bytes
    commit: Commit
    rows: tuple[tuple[Any, ...], ...]
    """All columns but committed_at."""
    change: tuple[Any, ...] | None = None
    """(status, wake_at, clear_wake_at, error, gives_back, head_seq, head_digest, release_at_rev); None for an ordinary commit."""
    opened: Sequence[dict[str, Any]] = ()
    closed: Sequence[tuple[str, str]] = ()
    consumed: Sequence[tuple[str, int]] = ()
    voted: Sequence[dict[str, Any]] = ()


def transition_of(commit: Commit, key: bytes) -> Transition:
    """Convert a commit; UnserialisableError where a barrier or a vote holds no data."""
    rows = tuple((key, *row[1:11]) for row in commit.rows)
    if rows and commit.change is None and not (commit.opened or commit.closed or commit.consumed or commit.voted):
        return Transition(key, commit, rows)
    # What is opened and closed, or voted and consumed, in one go is written as it ends: one statement cannot change
    # on PostgreSQL what it has itself inserted.
    closed, consumed = dict(commit.closed), dict(commit.consumed)
    opened = [barrier_line(barrier, tenant="", status=closed.pop(barrier.ticket, None)) for barrier in commit.opened]
    voted = [decision_line(vote, consumed_seq=consumed.pop(vote.id, None)) for vote in commit.voted]
    change = commit.change
    values: tuple[Any, ...] = (None, None, False, None, False, None, None, None)
    if change is not None:
        gives_back = change.release or change.status in ENDED
        last = commit.rows[-1] if commit.rows and (change.status is not None or gives_back) else None
        values = (
            change.status,
            change.wake_at,
            change.clear_wake_at,
            encoded(change.error),
            gives_back,
            last.seq if last else None,
            last.digest if last else None,
            change.release_at_rev,
        )
    return Transition(key, commit, rows, values, opened, tuple(closed.items()), tuple(consumed.items()), voted)


def core_over(raw: sqlite3.Connection) -> sa.Connection:
    """SQLAlchemy over a bare connection whose transactions are ours: it neither begins, commits nor resets."""
    engine = sa.create_engine(
        "sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
    )
    return engine.connect()


# --- SQLite ---------------------------------------------------------------------------------------------------------
_Job: TypeAlias = tuple["Transition | Callable[[sa.Connection], Any]", "asyncio.Future[Any]"]
_Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, "BaseException | None"]


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
                    if len(jobs) >= ROWS_AT_ONCE:
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

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, outcomes)

    def _carry_out(self, jobs: list[_Job]) -> list[_Outcome]:
        work, future = jobs[0]
        try:
            if len(jobs) == 1 and type(work) is Transition and work.change is None and len(work.rows) == 1:
                # The ordinary step alone: one statement, which is its own transaction.
                return [(future, self._append(work), None)]
            self._raw.execute("BEGIN IMMEDIATE")
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            return [(waiting, None, error) for _, waiting in jobs]
        outcomes: list[_Outcome] = []
        try:
            for work, future in jobs:
                outcomes.append(self._carry_out_one(work, future))
            self._raw.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - nothing of the batch was written; every caller gets it
            with contextlib.suppress(sqlite3.Error):
                self._raw.execute("ROLLBACK")
            return [(waiting, None, error) for _, waiting in jobs]
        return outcomes

    def _carry_out_one(self, work: Any, future: asyncio.Future[Any]) -> _Outcome:
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


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue  # the caller was cancelled; what it asked for was done all the same
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------
class PostgresWriter:
    """One held asyncpg connection and one task; one prepared statement per batch, each its own transaction.

    Args:
        connect: opens an asyncpg connection.
        clock: None is the database's.
        patience: for how long a lost connection is sought again, seconds.
    """

    def __init__(self, url: str, connect: Callable[[], Awaitable[Any]], clock: Callable[[], int] | None, *, patience: float = 10.0) -> None:
        self._url = url
        self._connect = connect
        self._clock = clock
        self._patience = patience
        self._waiting: list[tuple[Transition, asyncio.Future[Receipt]]] = []
        self._idle: asyncio.Future[None] | None = None
        self._is_closed = False
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect and start the task."""
        await self._prepare()
        self._task = self._loop.create_task(self._work(), name="trailmark-postgres-writer")

    async def close(self) -> None:
        """Carry out what is queued, then disconnect."""
        self._is_closed = True
        self._wake()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._disconnect()

    def submit(self, work: Transition) -> asyncio.Future[Receipt]:
        """Queue a commit."""
        if self._is_closed:
            raise StoreUnavailableError(self._url, "this store is closed")
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self._waiting.append((work, future))
        self._wake()
        return future

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                if self._is_closed:
                    return
                self._idle = self._loop.create_future()
                await self._idle
                self._idle = None
                continue
            for batch in self._batches():
                try:
                    _settle(await self._write(batch))
                except BaseException as error:
                    _settle([(future, None, error) for _, future in batch])
                    if not isinstance(error, Exception):
                        _settle([(future, None, error) for _, future in self._waiting])
                        raise

    def _batches(self) -> list[list[tuple[Transition, asyncio.Future[Receipt]]]]:
        """Take what waits: the ordinary commits, then the transitions, each run at most once in all."""
        taken: dict[bytes, tuple[Transition, asyncio.Future[Receipt]]] = {}
        rest = []
        for position, job in enumerate(self._waiting):
            if job[0].key in taken or len(taken) >= ROWS_AT_ONCE:
                rest.append(job)
            else:
                taken[job[0].key] = self._waiting[position]
        self._waiting = rest
        ordinary = [job for job in taken.values() if job[0].change is None]
        changing = [job for job in taken.values() if job[0].change is not None]
        return [batch for batch in (ordinary, changing) if batch]

    async def _write(self, batch: list[tuple[Transition, asyncio.Future[Receipt]]]) -> list[_Outcome]:
        try:
            receipts = await self._send([work for work, _ in batch])
        except Exception as error:  # noqa: BLE001 - sorted by what it says about the batch
            if faults.is_connection_lost(error):
                return await self._settle_unknown(batch, error)
            if not (faults.is_taken(error) or faults.is_bad_value(error) or _is_race(error)):
                return [(future, None, error) for _, future in batch]
            if len(batch) > 1:
                outcomes: list[_Outcome] = []
                for job in batch:
                    outcomes.extend(await self._write([job]))
                return outcomes
            work, future = batch[0]
            if _is_race(error):
                return await self._write(batch)
            if not faults.is_taken(error):
                return [(future, None, error)]
            # It may be our own row: sent before a connection broke, and landed after we looked.
            receipt, is_known = await self._reread(work)
            return [(future, receipt, None) if is_known and receipt else (future, None, await self._lost(work))]
        return [
            (future, Receipt(*receipts[work.key]), None) if work.key in receipts else (future, None, await self._lost(work))
            for work, future in batch
        ]

    async def _send(self, works: list[Transition]) -> dict[bytes, tuple[int, int]]:
        """Return (inbox_rev, committed_at) by run for the commits that are in."""
        await self._prepare()
        now = self._clock() if self._clock is not None else None
        if works[0].change is not None:
            found = await self._transition.fetch(now, *_arrays_of(works))
            return {line[0]: (line[1], line[2]) for line in found}
        if len(works) == 1 and len(works[0].rows) == 1:
            line = await self._append_one.fetchrow(now, *works[0].rows[0])
            return {works[0].key: (line[0], line[1])} if line is not None else {}
        rows = [(*row, work.rows[0][1]) for work in works for row in work.rows]
        found = await self._append_many.fetch(now, *zip(*rows, strict=True))
        return {line[0]: (line[1], line[2]) for line in found}

    async def _settle_unknown(self, batch: list[tuple[Transition, asyncio.Future[Receipt]]], lost: Exception) -> list[_Outcome]:
        """The connection broke behind a batch: read again what became of each commit before anybody is told anything."""
        await self._disconnect()
        outcomes: list[_Outcome] = []
        for work, future in batch:
            try:
                receipt, is_known = await self._reread(work)
                if receipt is not None:
                    outcomes.append((future, receipt, None))
                elif is_known:
                    outcomes.append((future, None, await self._lost(work)))
                else:
                    outcomes.extend(await self._again(work, future))
            except Exception as error:  # noqa: BLE001 - this commit's outcome stays unknown
                outcomes.append((future, None, error))
        return outcomes

    async def _again(self, work: Transition, future: asyncio.Future[Receipt]) -> list[_Outcome]:
        try:
            receipts = await self._send([work])
        except Exception as error:
            if not faults.is_taken(error):
                raise
            receipts = {}
        if work.key in receipts:
            return [(future, Receipt(*receipts[work.key]), None)]
        receipt, _ = await self._reread(work)
        return [(future, receipt, None) if receipt else (future, None, await self._lost(work))]

    async def _reread(self, work: Transition) -> tuple[Receipt | None, bool]:
        """(receipt, True) where the commit is in; (None, True) where other rows stand there; (None, False) where nothing does."""
        await self._prepare()
        if not work.rows:
            return None, False
        found = await self._connection.fetch(statements.POSTGRES_REREAD, work.key, work.rows[0][1], work.rows[-1][1])
        if not found:
            return None, False
        ours = [(row[1], row[10], row[2]) for row in work.rows]
        if [(line[0], line[1], line[2]) for line in found] != ours:
            return None, True
        return Receipt(found[-1][4], found[-1][3]), True

    async def _lost(self, work: Transition) -> LeaseLostError:
        found = await self._connection.fetchrow(statements.for_driver(statements.OWNER_OF, "postgresql"), work.key) or (None, None)
        return LeaseLostError(work.commit.run_id, work.commit.epoch, owner=found[0], current_epoch=found[1])

    async def _prepare(self) -> None:
        """Connect if there is no connection; try again for a while."""
        if self._connection is not None and not self._connection.is_closed():
            return
        until = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                connection = await self._connect()
                self._append_one = await connection.prepare(statements.POSTGRES_APPEND_ONE)
                self._append_many = await connection.prepare(statements.POSTGRES_APPEND_MANY)
                self._transition = await connection.prepare(statements.POSTGRES_TRANSITION)
            except Exception as error:
                # The first connection is not sought for: a wrong URL should say so at once.
                if self._task is None or time.monotonic() + pause > until or not faults.is_connection_lost(error):
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self._connection = connection
                return

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)


def _is_race(error: Exception) -> bool:
    """A deadlock or a serialisation failure: nothing was written, the same again may succeed."""
    return getattr(faults.cause_of(error), "sqlstate", None) in ("40P01", "40001")


def _columns(lines: Sequence[Sequence[Any]], width: int) -> list[Any]:
    return list(zip(*lines, strict=True)) if lines else [()] * width


def _arrays_of(works: Sequence[Transition]) -> list[Any]:
    rows, changes, opened, closed, consumed, voted = statements.TRANSITION_PARTS
    return [
        *_columns([row for work in works for row in work.rows], rows),
        *_columns([(work.key, work.commit.epoch, work.rows[0][1] if work.rows else None, *(work.change or ())) for work in works], changes),
        *_columns([[line[name] for name in statements.TRANSITION_BARRIER] for work in works for line in work.opened], opened),
        *_columns([(work.key, *pair) for work in works for pair in work.closed], closed),
        *_columns([(work.key, *pair) for work in works for pair in work.consumed], consumed),
        *_columns([[line[name] for name in statements.TRANSITION_DECISION] for work in works for line in work.voted], voted),
    ]
