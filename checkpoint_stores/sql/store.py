"""`SQLCheckpointStore`: the promises of the protocol on SQLite and PostgreSQL.

This file joins the parts and holds no rules: statements are in `statements`,
what a transaction does in `transactions`, how commits reach the disk in
`sqlite_writer` and `postgres_writer`, who may decide in `deciding`, what is sound in `soundness`.
Knows nothing of graphs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from checkpoint_stores.chain import Chain
from checkpoint_stores.errors import LeaseLostError, RunExistsError, RunNotFoundError, StoreError, StoreUnavailableError
from checkpoint_stores.ids import new_worker_id
from checkpoint_stores.protocol import DEFAULT_LEASE, Decides
from checkpoint_stores.records import (
    ENDED,
    BarrierRecord,
    Commit,
    DecisionRecord,
    Inbox,
    Lease,
    NewRun,
    Problem,
    Receipt,
    Row,
    RunRecord,
    Snapshot,
)
from checkpoint_stores.soundness import Stored, problems_of, sound_part, usable_snapshot
from checkpoint_stores.sql import faults, migrate, statements, transactions
from checkpoint_stores.sql.lines import barrier_of, decision_of, id_of, inbox_of, key_of, run_of, span_of, stored_of
from checkpoint_stores.sql.places import for_postgres, for_sqlite
from checkpoint_stores.sql.postgres_desk import Asked, AskingTime, Looking, PostgresDesk, Taking
from checkpoint_stores.sql.postgres_writer import PostgresWriter
from checkpoint_stores.sql.sqlite_reader import SQLiteReader
from checkpoint_stores.sql.sqlite_writer import SQLiteWriter, core_over
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import creation_of, transition_of
from checkpoint_stores.sql.watches import PostgresListener, SQLitePoller
from checkpoint_stores.watching import LocalWatch

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
"""How long SQLite waits for another process that holds the file's write lock."""

PREFIX_LENGTH: Final = 8
"""How much of a run id must be given at least."""

_NEWEST: Final = 2**31 - 1
_PAGE: Final = 500
_ATTEMPTS: Final = 20
_MANY_ROWS: Final = 300
"""From so many rows on the chain is checked in a thread, so that nobody blocks the loop for long."""

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]


class SQLCheckpointStore:
    """A `CheckpointStore` in SQLite or PostgreSQL.

    Opened by ``async with`` or by its first use; belongs to the event loop that opened it.

    Args:
        url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user@host/database``.
        lease: how long a silent process keeps its runs.
        synchronous: SQLite's PRAGMA; FULL survives a power cut, NORMAL may lose the last commits in one, never the file.
        chain_key: makes the digests HMACs, so that only a holder of the key can write a sound row.
        now: a virtual clock, microseconds since the epoch; None is the database's own.

    Raises:
        StoreUnavailableError: the URL is no such database; later also: it cannot be reached, written or read.
        SchemaVersionError: when opened, its schema is newer, or (PostgreSQL) older; `upgrade` makes it current.
    """

    def __init__(
        self,
        url: str,
        *,
        lease: timedelta = DEFAULT_LEASE,
        synchronous: Synchronous = "FULL",
        chain_key: bytes | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._sa_url = _checked(url)
        self.url: str = self._sa_url.render_as_string(hide_password=True)
        self.chain = Chain(chain_key)
        self._dialect = self._sa_url.get_backend_name()
        if synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise ValueError(f"synchronous={synchronous!r} is none of OFF, NORMAL, FULL, EXTRA")
        self._synchronous = synchronous
        # SQLite runs in this process, so its clock is this machine's.
        self._clock = now if now is not None or self._dialect == "postgresql" else machine_time
        self._is_virtual = now is not None
        self._scribe = Scribe(self._dialect, new_worker_id(), lease // timedelta(microseconds=1), self.chain, self._clock)
        self._held: set[str] = set()
        self._confirmed = float("-inf")
        self._beating: asyncio.Task[None] | None = None
        self._known_graphs: set[str] = set()
        self._opening = asyncio.Lock()
        self._registering = asyncio.Lock()
        self._is_open = False
        self._is_closed = False
        self._engine: AsyncEngine
        self._writer: SQLiteWriter | PostgresWriter
        self._desk: PostgresDesk | None = None
        self._outside: SQLitePoller | PostgresListener
        self._reader: SQLiteReader | None = None

    # --- opening and closing ----------------------------------------------------------------------------------------
    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _open(self, *, may_upgrade: bool = False) -> None:
        async with self._opening:
            if self._is_closed:
                raise StoreUnavailableError(self.url, "this store is closed")
            if self._is_open:
                return
            with faults.typed_errors(self.url):
                if self._dialect == "sqlite":
                    await self._open_sqlite()
                else:
                    await self._open_postgres(may_upgrade=may_upgrade)
            self._is_open = True

    async def _open_sqlite(self) -> None:
        writer = SQLiteWriter(self.url, self._connect_sqlite_writer, self._clock or machine_time)
        await writer.open()
        self._writer = writer
        self._engine = create_async_engine(
            self._sa_url, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, connect_args={"timeout": BUSY_SECONDS}
        )
        self._reader = SQLiteReader(self.url, self._connect_sqlite)
        await self._reader.open()
        self._outside = SQLitePoller(self._connect_sqlite)

    async def _open_postgres(self, *, may_upgrade: bool) -> None:
        self._engine = create_async_engine(self._sa_url, isolation_level="AUTOCOMMIT")
        try:
            async with self._engine.connect() as connection:
                is_current = migrate.is_current(await connection.run_sync(migrate.revision_of), self.url)
            if not is_current:
                async with self._engine.connect() as connection:
                    await connection.execution_options(isolation_level="READ COMMITTED")
                    async with connection.begin():
                        await connection.run_sync(migrate.prepare, self.url, may_upgrade=may_upgrade)
            writer = PostgresWriter(self.url, self._connect_postgres, self._clock)
            await writer.open()
        except BaseException:
            await self._engine.dispose()
            raise
        self._writer = writer
        self._desk = PostgresDesk(self.url, self._connect_postgres, self._scribe)
        self._outside = PostgresListener(self._connect_postgres)

    def _connect_sqlite(self) -> sqlite3.Connection:
        args, options = self._sa_url.get_dialect()().create_connect_args(self._sa_url)
        given: dict[str, Any] = {**options, "timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
        connection: sqlite3.Connection = sqlite3.connect(args[0], **given)
        return connection

    def _connect_sqlite_writer(self) -> sqlite3.Connection:
        connection = self._connect_sqlite()
        try:
            _use_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            self._prepare_sqlite(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare_sqlite(self, raw: sqlite3.Connection) -> None:
        connection = core_over(raw)
        if migrate.is_current(migrate.revision_of(connection), self.url):
            return
        raw.execute("BEGIN EXCLUSIVE")
        try:
            migrate.prepare(connection, self.url, may_upgrade=True)
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise

    async def _connect_postgres(self) -> Any:
        import asyncpg

        _, options = self._sa_url.get_dialect()().create_connect_args(self._sa_url)
        for name in ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "async_creator_fn"):
            options.pop(name, None)
        return await asyncpg.connect(**options)

    async def upgrade(self) -> None:
        """Bring an older schema up to date (PostgreSQL; SQLite does it by itself when opened).  Idempotent."""
        await self._open(may_upgrade=True)

    async def close(self) -> None:
        if self._is_closed:
            return
        async with self._opening:
            self._is_closed = True
            if not self._is_open:
                return
            self._is_open = False
        if self._beating is not None:
            self._beating.cancel()
        await self._outside.close()
        # What cannot be given back now is free when the lease expires.
        with contextlib.suppress(StoreUnavailableError), faults.typed_errors(self.url):
            if self._desk is not None:
                await self._desk.close()
            if isinstance(self._writer, PostgresWriter):
                await self._writer.close()
            await self._write(lambda connection: transactions.leave(connection, self._scribe))
        self._held.clear()
        await self._writer.close()
        await self._engine.dispose()
        if self._reader is not None:
            await self._reader.close()

    # --- the owner's side -------------------------------------------------------------------------------------------
    async def now(self) -> int:
        if self._clock is not None:
            return self._clock()
        if not self._is_open:
            await self._open()
        if self._desk is not None:
            with faults.typed_errors(self.url):
                now: int | None = await self._desk.submit(AskingTime())
            if now is not None:
                return now
        return int((await self._read(statements.clock_now()))[0][0])

    @property
    def worker_id(self) -> str:
        return self._scribe.worker_id

    def lease_is_fresh(self) -> bool:
        return time.monotonic() - self._confirmed < self._scribe.lease / 1_000_000 * 2 / 3

    async def heartbeat(self) -> None:
        # Taken before the database answers: the lease is never believed to be younger than it is.
        asked = time.monotonic()
        await self._transact(lambda connection: transactions.beat(connection, self._scribe))
        self._confirmed = asked

    async def create(self, run: NewRun, first: Row) -> Lease:
        if not self._is_open:
            await self._open()
        if run.hold:
            await self._register()
        store_graph = run.graph_hash not in self._known_graphs
        if run.parent_run_id is None and not isinstance(self._writer, SQLiteWriter):
            lease = await self._create_with_others(self._writer, run, first, store_graph=store_graph)
        else:
            lease = await self._transact(
                lambda connection: transactions.create(connection, self._scribe, run, first, store_graph=store_graph)
            )
        if run.definition:
            self._known_graphs.add(run.graph_hash)
        if run.hold:
            self._hold(run.run_id)
        return lease

    async def _create_with_others(self, writer: PostgresWriter, run: NewRun, first: Row, *, store_graph: bool) -> Lease:
        genesis = self.chain.genesis(run.run_id)
        new = creation_of(run, first, genesis=genesis, owner=self.worker_id, store_graph=store_graph)
        with faults.typed_errors(self.url):
            created_at: int | None = await writer.submit(new)
        if created_at is not None:
            return transactions.lease_of(new.line, first, created_at)
        await self._transact(lambda connection: transactions.check_name_free(connection, run))
        raise RunExistsError(run.run_key or run.run_id, run.run_id)  # whoever had the name is gone again

    async def acquire(self, run_id: str, *, details: Mapping[str, Any] | None = None, takeover: bool = False) -> Lease:
        if not self._is_open:
            await self._open()
        await self._register()
        if self._desk is not None:
            with faults.typed_errors(self.url):
                lease: Lease | None = await self._desk.submit(Taking(key_of(run_id), run_id, details or {}))
            if lease is not None:
                return self._taken(lease)
        for _ in range(_ATTEMPTS):
            try:
                lease = await self._transact(
                    lambda connection: transactions.acquire(connection, self._scribe, run_id, details or {}, takeover=takeover),
                    may_be_taken=True,
                )
            except _TakenError:
                continue  # the old owner's last row got in first: it is part of the run, look again
            return self._taken(lease)
        raise StoreUnavailableError(self.url, f"run {run_id} kept changing under {_ATTEMPTS} attempts to take it")

    def _taken(self, lease: Lease) -> Lease:
        self._hold(lease.run.run_id)
        self._outside.watches.wake(lease.run.run_id)
        return lease

    async def commit(self, commit: Commit) -> Receipt:
        if not self._is_open:
            await self._open()
        try:
            receipt: Receipt = await self._writer.submit(transition_of(commit, key_of(commit.run_id)))
        except RunNotFoundError:
            raise LeaseLostError(commit.run_id, commit.epoch) from None
        except LeaseLostError:
            self._drop(commit.run_id)
            raise
        except Exception as error:
            with faults.typed_errors(self.url):
                raise
            raise AssertionError from error  # typed_errors always raises
        change = commit.change
        if change is not None and change.release_at_rev in (None, receipt.inbox_rev):
            if change.release or change.status in ENDED:
                self._drop(commit.run_id)
            if change.status is not None:
                self._outside.watches.wake(commit.run_id)
        return receipt

    async def put_snapshot(self, snapshot: Snapshot, epoch: int) -> None:
        await self._transact(lambda connection: transactions.put_snapshot(connection, self._scribe, snapshot, epoch))

    async def release(self, run_id: str, epoch: int) -> None:
        await self._transact(lambda connection: transactions.release(connection, self._scribe, run_id, epoch))
        self._drop(run_id)

    # --- reading ----------------------------------------------------------------------------------------------------
    async def run(self, run_id: str) -> RunRecord:
        try:
            found = await self._read(statements.run_by_id(key_of(run_id)))
        except RunNotFoundError:
            if len(run_id) < PREFIX_LENGTH:
                raise
            found = await self._read(statements.runs_between(*span_of(run_id)))
        if len(found) != 1:
            raise RunNotFoundError(run_id)
        return run_of(found[0])

    async def run_by_key(self, flow: str, run_key: str, *, tenant: str = "") -> RunRecord | None:
        found = await self._read(statements.run_by_key(flow, run_key, tenant))
        return run_of(found[0]) if found else None

    async def runs(
        self, *, flow: str | None = None, status: str | None = None, tenant: str = "", limit: int = 50, before: str | None = None
    ) -> list[RunRecord]:
        position = None
        if before is not None:
            last = await self.run(before)
            position = (last.created_at, key_of(last.run_id))
        chosen = statements.runs_newest_first(flow=flow, status=status, tenant=tenant, limit=limit, before=position)
        return [run_of(line) for line in await self._read(chosen)]

    async def load(self, run_id: str, upto: int | None = None) -> tuple[Snapshot | None, list[Row]]:
        if not self._is_open:
            await self._open()
        key = key_of(run_id)
        last = _NEWEST if upto is None else upto
        stored, _ = stored_of(key, await self._fetch(statements.newest_part(key, last)), self.chain)
        if not _is_enough(stored, last):
            stored, _ = stored_of(key, await self._fetch(statements.whole_part(key, last)), self.chain)
        if len(stored.rows) > _MANY_ROWS:
            return await asyncio.to_thread(sound_part, self.chain, stored, upto)
        return sound_part(self.chain, stored, upto)

    async def history(self, run_id: str, *, after: int = -1) -> AsyncIterator[Row]:
        key = key_of(run_id)
        is_known = False
        while True:
            lines = (await self._fetch([(statements.LOAD_ROWS, (key, after + 1, _NEWEST, _PAGE))]))[0]
            if not lines and not is_known:
                await self.run(id_of(key))
            is_known = True
            for line in lines:
                yield Row(id_of(key), *line[1:])
            if len(lines) < _PAGE:
                return
            after = lines[-1][1]

    async def inbox(self, run_id: str) -> Inbox:
        if not self._is_open:
            await self._open()
        key = key_of(run_id)
        if self._desk is not None:
            with faults.typed_errors(self.url):
                inbox: Inbox | None = await self._desk.submit(Looking(key, run_id))
            if inbox is not None:
                return inbox
        found, barriers, decisions = await self._fetch(
            [(statements.INBOX_REVISION, (key,)), (statements.LIVE_BARRIERS, (key,)), (statements.PENDING_DECISIONS, (key,))]
        )
        if not found:
            raise RunNotFoundError(run_id)
        rev, cancel = found[0]
        return inbox_of(rev, cancel, barriers, decisions)

    async def graph(self, graph_hash: str) -> str | None:
        found = await self._read(statements.graph(graph_hash))
        return str(found[0][0]) if found else None

    async def put_graph(self, graph_hash: str, definition: str) -> None:
        if graph_hash not in self._known_graphs:
            await self._transact(lambda connection: transactions.put_graph(connection, graph_hash, definition))
            self._known_graphs.add(graph_hash)

    async def verify(self, run_id: str) -> list[Problem]:
        if not self._is_open:
            await self._open()
        key = key_of(run_id)
        stored, unsound = stored_of(key, await self._fetch(statements.whole_part(key, _NEWEST)), self.chain)
        problems = await asyncio.to_thread(problems_of, self.chain, stored)
        problems.extend(
            Problem(stored.run_id, snapshot.seq, "its snapshot was edited (or the chain key is another)") for snapshot in unsound
        )
        return problems

    async def stats(self) -> dict[str, Any]:
        by_status = {line.status: line.number for line in await self._read(statements.runs_by_status())}
        counts = (await self._read(statements.counts()))[0]._asdict()
        sizes = await self._read(sa.text(statements.SQLITE_SIZE if self._dialect == "sqlite" else statements.POSTGRES_SIZE))
        return {"runs": by_status, **counts, "bytes": int(sizes[0].bytes), "schema": migrate.HEAD}

    # --- the outsider's side ----------------------------------------------------------------------------------------
    async def barriers(
        self, *, run_id: str | None = None, status: str | None = "open", tenant: str = "", limit: int = 100
    ) -> list[BarrierRecord]:
        key = key_of(run_id) if run_id is not None else None
        found = await self._read(statements.barriers_oldest_first(run_id=key, status=status, tenant=tenant, limit=limit))
        if not found and run_id is not None:
            await self.run(run_id)
        return [barrier_of(line) for line in found]

    async def decisions(self, run_id: str) -> list[DecisionRecord]:
        found = await self._read(statements.decisions_of(key_of(run_id)))
        if not found:
            await self.run(run_id)
        return [decision_of(line) for line in found]

    async def decide(self, run_id: str, barrier: str, decision: Decides) -> DecisionRecord:
        if not self._is_open:
            await self._open()
        judged: tuple[DecisionRecord, bool] | None = None
        if self._desk is not None:
            with faults.typed_errors(self.url):
                judged = await self._desk.submit(Asked(key_of(run_id), run_id, barrier, decision))
        if judged is None:
            judged = await self._transact(lambda connection: transactions.decide(connection, self._scribe, run_id, barrier, decision))
        record, is_new = judged
        if is_new:
            self._outside.watches.wake(record.run_id)
        return record

    async def request_cancel(self, run_id: str, *, actor: str, reason: str = "") -> RunRecord:
        run, is_new = await self._transact(lambda connection: transactions.request_cancel(connection, self._scribe, run_id, actor, reason))
        if is_new:
            self._outside.watches.wake(run.run_id)
        return run

    def watch(self, run_id: str) -> LocalWatch:
        if not self._is_open:
            raise StoreUnavailableError(self.url, "this store is not open")
        return self._outside.watches.watch(id_of(key_of(run_id)))

    # --- inside: leases ---------------------------------------------------------------------------------------------
    async def _register(self) -> None:
        # Under a virtual clock the lease may have expired although no real time went by.
        if self._is_virtual:
            await self.heartbeat()
        elif not self.lease_is_fresh():
            async with self._registering:  # many begin at once; one heartbeat is theirs all
                if not self.lease_is_fresh():
                    await self.heartbeat()

    def _hold(self, run_id: str) -> None:
        self._held.add(run_id)
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._keep_beating(), name="trailmark-heartbeat")

    def _drop(self, run_id: str) -> None:
        self._held.discard(run_id)

    async def _keep_beating(self) -> None:
        pause = self._scribe.lease / 3_000_000
        while self._held:
            await asyncio.sleep(pause)
            # A failed beat needs no word here: `lease_is_fresh` turns False, and the owner's own heartbeat raises.
            with contextlib.suppress(StoreError):
                if self._held:
                    await self.heartbeat()

    # --- inside: the database ---------------------------------------------------------------------------------------
    async def _transact(self, work: Callable[[sa.Connection], T], *, may_be_taken: bool = False) -> T:
        """Run ``work`` in one write transaction; driver errors become the store's (or `_TakenError`)."""
        if not self._is_open:
            await self._open()
        with faults.typed_errors(self.url):
            try:
                return await self._write(work)
            except Exception as error:
                if may_be_taken and faults.is_taken(error):
                    raise _TakenError from error
                raise

    async def _write(self, work: Callable[[sa.Connection], T]) -> T:
        if isinstance(self._writer, SQLiteWriter):
            result: T = await self._writer.submit(work)
            return result
        # The transaction is the driver's, since most statements go to the driver itself.
        async with self._driver() as (connection, driver):
            try:
                transaction = driver.transaction()
                await transaction.start()
            except Exception as error:
                if not faults.is_connection_lost(error):
                    raise
                await connection.invalidate()
            else:
                return await self._within(transaction, connection, work)
        # Connections may have broken while they rested; nothing was asked of this one yet, so a new one is asked.
        await self._engine.dispose()
        async with self._driver() as (connection, driver):
            transaction = driver.transaction()
            await transaction.start()
            return await self._within(transaction, connection, work)

    async def _within(self, transaction: Any, connection: AsyncConnection, work: Callable[[sa.Connection], T]) -> T:
        try:
            result = await connection.run_sync(work)
        except BaseException as error:
            if faults.is_connection_lost(error):
                await connection.invalidate()
            else:
                await transaction.rollback()
            raise
        await transaction.commit()
        return result

    @contextlib.asynccontextmanager
    async def _driver(self) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        async with self._engine.connect() as connection:
            yield connection, (await connection.get_raw_connection()).driver_connection

    async def _read(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        return (await self._read_all(statement))[0]

    async def _read_all(self, *wanted: sa.Executable) -> list[Sequence[sa.Row[Any]]]:
        if not self._is_open:
            await self._open()

        async def read() -> list[Sequence[sa.Row[Any]]]:
            async with self._engine.connect() as connection:
                return [(await connection.execute(statement)).all() for statement in wanted]

        return await self._once_more(read)

    async def _once_more(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read; and read again on another connection where one had broken while it rested."""
        with faults.typed_errors(self.url):
            try:
                return await read()
            except Exception as error:
                if not faults.is_connection_lost(error):
                    raise
            await self._engine.dispose()
            return await read()

    async def _fetch(self, wanted: Sequence[tuple[str, tuple[Any, ...]]]) -> list[list[Any]]:
        """Bare tuples from the bare driver, all from one moment of the database."""
        if not self._is_open:
            await self._open()
        if self._reader is not None:
            with faults.typed_errors(self.url):
                found: list[list[Any]] = await self._reader.submit(
                    lambda raw: [raw.execute(*for_sqlite(*asked)).fetchall() for asked in wanted]
                )
                return found
        texts = [(for_postgres(text), values) for text, values in wanted]

        async def read() -> list[list[Any]]:
            async with self._driver() as (_, driver):
                if len(texts) == 1:
                    return [await driver.fetch(texts[0][0], *texts[0][1])]
                async with driver.transaction(isolation="repeatable_read", readonly=True):
                    return [await driver.fetch(text, *values) for text, values in texts]

        return await self._once_more(read)


class _TakenError(StoreError):
    """A unique key was taken in the middle of a transaction; never leaves this file."""


def machine_time() -> int:
    """This machine's clock, microseconds since the epoch."""
    return time.time_ns() // 1000


def _is_enough(stored: Stored, last: int) -> bool:
    """Whether the newest snapshot and what follows it can be used (or there is no snapshot at all)."""
    if stored.snapshots:
        return usable_snapshot(stored.snapshots, stored.rows, last) is not None
    return not stored.rows or stored.rows[0].seq <= stored.first_seq


def _checked(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError, TypeError):
        raise StoreUnavailableError(str(url).partition("://")[0], "that is no database URL; try sqlite+aiosqlite:///runs.db") from None
    name = parsed.render_as_string(hide_password=True)
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    if parsed.drivername not in {*drivers, *drivers.values()}:
        raise StoreUnavailableError(name, f"{parsed.drivername} is not supported; use {' or '.join(sorted(set(drivers.values())))}")
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or "mode=memory" in name or ":memory:" in str(parsed.database)):
        raise StoreUnavailableError(name, "a SQLite database in memory belongs to one connection; use MemoryCheckpointStore()")
    return parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))


def _use_wal(connection: sqlite3.Connection) -> None:
    # Changing the journal's mode does not wait for the lock by itself; a fresh file may be opened by two processes at once.
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return
