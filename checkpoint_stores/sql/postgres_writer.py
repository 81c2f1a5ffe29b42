"""How commits and new runs reach PostgreSQL: one prepared statement for each batch, which is its own transaction.

No run's refusal touches another's commit.  Knows commits, not why they are made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from checkpoint_stores.errors import LeaseLostError, RunMovedError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, postgres_statements, statements
from checkpoint_stores.sql.places import for_postgres
from checkpoint_stores.sql.postgres_queue import Job, PostgresQueue
from checkpoint_stores.sql.settling import JOBS_AT_ONCE, Answer, Outcome
from checkpoint_stores.sql.statements import BARRIERS
from checkpoint_stores.sql.transitions import Creation, Transition

Written: TypeAlias = Transition | Creation


class PostgresWriter(PostgresQueue[Written]):
    """Takes a `Transition`, answers with its `Receipt`, or None where it opens what an allowance may decide: go the long way; takes a `Creation`, answers when it was created, or None where the name is taken.

    Args:
        connect: opens an asyncpg connection.
        clock: None is the database's.
        patience: for how long a lost connection is sought again, seconds.
    """

    def __init__(self, url: str, connect: Callable[[], Awaitable[Any]], clock: Callable[[], int] | None, *, patience: float = 10.0) -> None:
        super().__init__(url, connect, patience=patience)
        self._clock = clock

    async def _prepare_statements(self, connection: Any) -> None:
        self._append_one = await connection.prepare(postgres_statements.APPEND_ONE)
        self._append_many = await connection.prepare(postgres_statements.APPEND_MANY)
        self._transition = await connection.prepare(postgres_statements.TRANSITION)
        self._resumption = await connection.prepare(postgres_statements.RESUMPTION)
        self._create = await connection.prepare(postgres_statements.CREATE)

    def _now(self) -> int | None:
        return self._clock() if self._clock is not None else None

    def _batches(self) -> list[list[Job[Written]]]:
        """Take what waits: new runs, ordinary commits, transitions, then takings, each run at most once in all."""
        taken: dict[bytes, Job[Written]] = {}
        rest = []
        for job in self._waiting:
            if job[0].key in taken or len(taken) >= JOBS_AT_ONCE:
                rest.append(job)
            else:
                taken[job[0].key] = job
        self._waiting = rest
        created: list[Job[Written]] = []
        ordinary: list[Job[Written]] = []
        changing: list[Job[Written]] = []
        taking: list[Job[Written]] = []
        for job in taken.values():
            work = job[0]
            if isinstance(work, Creation):
                created.append(job)
            else:
                (ordinary if work.change is None else changing if work.taking is None else taking).append(job)
        return [batch for batch in (created, ordinary, changing, taking) if batch]

    async def _write(self, batch: list[Job[Any]]) -> list[Outcome]:
        return await (self._create_runs(batch) if isinstance(batch[0][0], Creation) else self._commit(batch))

    # --- new runs ---------------------------------------------------------------------------------------------------
    async def _create_runs(self, batch: list[Job[Creation]], *, is_again: bool = False) -> list[Outcome]:
        works = [work for work, _ in batch]
        try:
            await self._prepare()
            made = {line[0]: line[1] for line in await self._create.fetch(self._now(), *_arrays_of_runs(works))}
            if is_again:
                # What is refused now may be our own, in since before the connection broke.
                missing = [(work.key, work.line.head_digest) for work in works if work.key not in made]
                made.update(await self._connection.fetch(postgres_statements.CREATED, *_columns(missing, 2)))
        except Exception as error:  # noqa: BLE001 - sorted by what it says about the batch
            if faults.is_connection_lost(error) and not is_again:
                await self._disconnect()
                # The same again does nothing where it is in already.
                return await self._create_runs(batch, is_again=True)
            if len(batch) > 1 and (faults.is_taken(error) or faults.is_bad_value(error) or _is_race(error)):
                return [outcome for job in batch for outcome in await self._create_runs([job], is_again=is_again)]
            return [(future, None, error) for _, future in batch]
        return [(future, made.get(work.key), None) for work, future in batch]

    # --- commits ----------------------------------------------------------------------------------------------------
    async def _commit(self, batch: list[Job[Transition]]) -> list[Outcome]:
        try:
            receipts = await self._send([work for work, _ in batch])
        except Exception as error:  # noqa: BLE001 - sorted by what it says about the batch
            if faults.is_connection_lost(error):
                return await self._settle_unknown(batch, error)
            if not (faults.is_taken(error) or faults.is_bad_value(error) or _is_race(error)):
                return [(future, None, error) for _, future in batch]
            if len(batch) > 1:
                outcomes: list[Outcome] = []
                for job in batch:
                    outcomes.extend(await self._commit([job]))
                return outcomes
            work, future = batch[0]
            if _is_race(error):
                return await self._commit(batch)
            if not faults.is_taken(error):
                return [(future, None, error)]
            # It may be our own row: sent before a connection broke, and landed after we looked.
            receipt, is_known = await self._reread(work)
            return [(future, receipt, None) if is_known and receipt else await self._refused(work, future)]
        return [
            (future, Receipt(*receipts[work.key]), None) if work.key in receipts else await self._refused(work, future)
            for work, future in batch
        ]

    async def _refused(self, work: Transition, future: Answer) -> Outcome:
        if work.taking is not None:
            return future, None, RunMovedError(work.commit.run_id)
        # The long way says whether it is an allowance or a lost lease.
        return (future, None, None) if work.asks is not None else (future, None, await self._lost(work))

    async def _send(self, works: list[Transition]) -> dict[bytes, tuple[int, int]]:
        """Return (inbox_rev, committed_at) by run for the commits that are in."""
        await self._prepare()
        now = self._clock() if self._clock is not None else None
        if works[0].change is not None:
            found = await (self._transition if works[0].taking is None else self._resumption).fetch(now, *arrays_of(works))
            return {line[0]: (line[1], line[2]) for line in found}
        if len(works) == 1 and len(works[0].rows) == 1:
            line = await self._append_one.fetchrow(now, *works[0].rows[0])
            return {works[0].key: (line[0], line[1])} if line is not None else {}
        rows = [(*row, work.rows[0][1]) for work in works for row in work.rows]
        found = await self._append_many.fetch(now, *zip(*rows, strict=True))
        return {line[0]: (line[1], line[2]) for line in found}

    async def _settle_unknown(self, batch: list[Job[Transition]], lost: Exception) -> list[Outcome]:
        """The connection broke behind a batch: read again what became of each commit before anybody is told anything."""
        await self._disconnect()
        outcomes: list[Outcome] = []
        for work, future in batch:
            try:
                receipt, is_known = await self._reread(work)
                if receipt is not None:
                    outcomes.append((future, receipt, None))
                elif is_known:
                    outcomes.append((future, None, RunMovedError(work.commit.run_id) if work.taking else await self._lost(work)))
                else:
                    outcomes.extend(await self._again(work, future))
            except Exception as error:  # noqa: BLE001 - this commit's outcome stays unknown
                outcomes.append((future, None, error))
        return outcomes

    async def _again(self, work: Transition, future: Answer) -> list[Outcome]:
        try:
            receipts = await self._send([work])
        except Exception as error:
            if not faults.is_taken(error):
                raise
            receipts = {}
        if work.key in receipts:
            return [(future, Receipt(*receipts[work.key]), None)]
        receipt, _ = await self._reread(work)
        return [(future, receipt, None) if receipt else await self._refused(work, future)]

    async def _reread(self, work: Transition) -> tuple[Receipt | None, bool]:
        """(receipt, True) where the commit is in; (None, True) where other rows stand there; (None, False) where nothing does."""
        await self._prepare()
        if not work.rows:
            return None, False
        found = await self._connection.fetch(postgres_statements.REREAD, work.key, work.rows[0][1], work.rows[-1][1])
        if not found:
            return None, False
        ours = [(row[1], row[10], row[2]) for row in work.rows]
        if [(line[0], line[1], line[2]) for line in found] != ours:
            return None, True
        return Receipt(found[-1][4], found[-1][3]), True

    async def _lost(self, work: Transition) -> LeaseLostError:
        found = await self._connection.fetchrow(for_postgres(statements.OWNER_OF), work.key) or (None, None)
        return LeaseLostError(work.commit.run_id, work.commit.epoch, owner=found[0], current_epoch=found[1])


def _is_race(error: Exception) -> bool:
    """A deadlock or a serialisation failure: nothing was written, the same again may succeed."""
    return getattr(faults.cause_of(error), "sqlstate", None) in ("40P01", "40001")


def _columns(lines: Sequence[Sequence[Any]], width: int) -> list[Any]:
    return list(zip(*lines, strict=True)) if lines else [()] * width


def arrays_of(works: Sequence[Transition]) -> list[Any]:
    """What `postgres_statements.TRANSITION` (of runs that are to be taken: `RESUMPTION`) takes behind the clock."""
    is_taking = works[0].taking is not None
    rows, changes, *parts = postgres_statements.RESUMPTION_PARTS if is_taking else postgres_statements.TRANSITION_PARTS
    opened, closed, consumed, voted, nudged = parts
    return [
        *_columns([row for work in works for row in work.rows], rows),
        *_columns([_change_of(work) for work in works], changes),
        *_columns([[line[name] for name in postgres_statements.TRANSITION_BARRIER] for work in works for line in work.opened], opened),
        *_columns([(work.key, *pair) for work in works for pair in work.closed], closed),
        *_columns([(work.key, *pair) for work in works for pair in work.consumed], consumed),
        *_columns([[line[name] for name in postgres_statements.TRANSITION_DECISION] for work in works for line in work.voted], voted),
        *_columns([(work.key, *pair) for work in works for pair in work.nudged], nudged),
    ]


def _change_of(work: Transition) -> tuple[Any, ...]:
    return (work.key, work.commit.epoch, work.rows[0][1] if work.rows else None, *(work.change or ()), work.asks, *(work.taking or ()))


def _arrays_of_runs(works: Sequence[Creation]) -> list[Any]:
    runs, rows, graphs, opened = postgres_statements.CREATION_PARTS
    return [
        *_columns([work.line[:runs] for work in works], runs),
        *_columns([work.row for work in works], rows),
        *_columns(list({work.graph[0]: work.graph for work in works if work.graph}.values()), graphs),
        *_columns([[line[name] for name in BARRIERS] for work in works for line in work.opened], opened),
    ]
