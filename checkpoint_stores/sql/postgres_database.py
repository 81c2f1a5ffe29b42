"""A PostgreSQL database: one connection that writes commits, one where many are answered together, one that listens, a pool for the rest.

Knows how it is opened, made current and closed; no statement of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, migrate, postgres_opening, stamp, statements
from checkpoint_stores.sql.addresses import Address
from checkpoint_stores.sql.database import Database, Wanted
from checkpoint_stores.sql.matters import Matter, OnlyRead
from checkpoint_stores.sql.places import for_postgres
from checkpoint_stores.sql.postgres_desk import PostgresDesk
from checkpoint_stores.sql.postgres_queue import CLOSING_SECONDS
from checkpoint_stores.sql.postgres_step import PostgresStep
from checkpoint_stores.sql.postgres_wire import PostgresWire
from checkpoint_stores.sql.postgres_writer import PostgresWriter
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import Creation, Transition
from checkpoint_stores.sql.watches import PostgresListener
from checkpoint_stores.sql.wires import Wire

T = TypeVar("T")


_BEFORE_THE_DESK: Final = 3
"""So many readings go the long way before there is a desk: many a program asks for no more, and to connect takes as long as twenty of them."""

_IDLE_SECONDS: Final = 30.0
"""So long the server keeps a transaction in which nobody says anything: of a machine that is gone it would hold the locks for hours."""

CONNECTIONS: Final = 15
"""How many connections are used at most beside the writer's, the desk's and the listener's."""


class PostgresDatabase(Database):
    """A database of a server."""

    size = statements.POSTGRES_SIZE

    def __init__(self, address: Address, scribe: Scribe) -> None:
        super().__init__(address.url, scribe)
        self._address = address
        self._engine: AsyncEngine
        self._asked = 0
        """How many readings have gone the long way because there was no desk yet."""
        self._lent = 0
        """How many readings and writings have one of the pool's connections, or wait for one."""
        self._all_back = asyncio.Event()
        self.writer: PostgresWriter
        self.desk: PostgresDesk

    async def _open(self, *, may_upgrade: bool) -> None:
        # As many as there may be are kept: one that is opened for a moment and closed again costs more than what it is opened for.
        self._engine = create_async_engine(self._address.for_core(), isolation_level="AUTOCOMMIT", pool_size=CONNECTIONS, max_overflow=0)
        sa.event.listen(self._engine.sync_engine, "connect", _bound_in_time)
        try:
            async with self._engine.connect() as connection:
                is_current = stamp.is_current(await connection.run_sync(migrate.revision_of, self.url), self.url)
            if not is_current:
                async with self._engine.connect() as connection:
                    await connection.execution_options(isolation_level="READ COMMITTED")
                    async with connection.begin():
                        await connection.run_sync(migrate.prepare, self.url, may_upgrade=may_upgrade)
            writer = PostgresWriter(self.url, self.connect, self.scribe.now)
            await writer.open()
        except BaseException:
            await self._engine.dispose()
            raise
        self.writer = writer
        self.desk = PostgresDesk(self.url, self.connect, self.scribe)
        self.outside = PostgresListener(self.connect)

    async def _close(self, last: Callable[[Wire], object]) -> None:
        await self.outside.close()
        # What cannot be given back now is free when the lease expires.
        with contextlib.suppress(StoreUnavailableError), faults.typed_errors(self.url):
            await self.desk.close()
            await self.writer.close()
            await self._write(last)
        await self.writer.close()
        await self._dispose()

    async def connect(self) -> Any:
        """A connection of the driver's own, beside SQLAlchemy's pool."""
        import asyncpg

        _, options = self._address.arguments()
        for name in ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "async_creator_fn"):
            options.pop(name, None)
        return await asyncpg.connect(**options)

    def _step(self, **options: Any) -> PostgresStep:
        async def reread(text: str, *values: Any) -> list[Any]:
            async with self._driver() as (_, driver):
                return list(await driver.fetch(text, *values))

        return PostgresStep(self.url, self._engine, self.scribe, reread, **options)

    # --- together with others ---------------------------------------------------------------------------------------
    async def commit(self, work: Transition) -> Receipt:
        # None: a ticket that it opens may be decided already, which takes a transaction of its own.
        written = self.writer.submit(work)
        receipt: Receipt | None = await (written if work.taking is None else _outlasted(written))
        return receipt if receipt is not None else await self.transact(postgres_opening.commit, work)

    async def at_once(self, matter: Matter) -> Any:
        if not self.is_open:
            await self.open()
        if self._asked < _BEFORE_THE_DESK and isinstance(matter, OnlyRead):
            self._asked += 1
            return None
        with faults.typed_errors(self.url):
            return await self.desk.submit(matter)

    async def create_at_once(self, new: Creation) -> int | None:
        with faults.typed_errors(self.url):
            created_at: int | None = await self.writer.submit(new)
            return created_at

    # --- alone ------------------------------------------------------------------------------------------------------
    async def _write(self, work: Callable[[Wire], T]) -> T:
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
                return await _within(transaction, connection, work)
        # Connections may have broken while they rested; nothing was asked of this one yet, so a new one is asked.
        await self._engine.dispose()
        async with self._driver() as (connection, driver):
            transaction = driver.transaction()
            await transaction.start()
            return await _within(transaction, connection, work)

    @contextlib.asynccontextmanager
    async def _driver(self) -> AsyncIterator[tuple[AsyncConnection, Any]]:
        self._lent += 1
        try:
            async with self._engine.connect() as connection:
                try:
                    yield connection, (await connection.get_raw_connection()).driver_connection
                except asyncio.CancelledError:
                    # It may have been about to begin a transaction, which nobody ends: whoever got the connection next would be in it.
                    await connection.invalidate()
                    raise
        finally:
            self._lent -= 1
            if not self._lent:
                self._all_back.set()

    async def _dispose(self) -> None:
        """Close the pool.  Who is at it still is waited for: what came back behind this would never be closed."""
        self._all_back.clear()
        if self._lent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_back.wait(), CLOSING_SECONDS)
        await self._engine.dispose()

    async def _vacuum(self) -> None:
        async with self._engine.connect() as connection:
            for table in statements.TABLES:
                await connection.execute(sa.text(f"VACUUM (ANALYZE) {table}"))

    async def _fetch(self, wanted: Wanted) -> list[list[Any]]:
        texts = [(for_postgres(text), values) for text, values in wanted]

        async def read() -> list[list[Any]]:
            async with self._driver() as (_, driver):
                if len(texts) == 1:
                    return [await driver.fetch(texts[0][0], *texts[0][1])]
                async with driver.transaction(isolation="repeatable_read", readonly=True):
                    return [await driver.fetch(text, *values) for text, values in texts]

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


def _bound_in_time(connection: Any, _record: object) -> None:
    """Called for each connection of the pool when it is new."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {int(_IDLE_SECONDS * 1000)}")
    cursor.close()


async def _outlasted(taking: asyncio.Future[T]) -> T:
    """What a taking comes to.  Who is cancelled meanwhile comes back behind it: what gives the run back goes over another connection, and
    would find nothing to give back yet."""
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        await asyncio.wait([taking])
        if not taking.cancelled():
            taking.exception()  # asked for, so that nobody is warned that nobody asked
        raise


async def _within(transaction: Any, connection: AsyncConnection, work: Callable[[Wire], T]) -> T:
    try:
        result = await connection.run_sync(lambda sync: work(PostgresWire(sync)))
    except BaseException as error:
        if faults.is_connection_lost(error):
            await connection.invalidate()
        else:
            await transaction.rollback()
        raise
    await transaction.commit()
    return result
