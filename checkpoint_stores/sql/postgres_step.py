"""A step's own transaction on PostgreSQL: READ COMMITTED, on a connection of the pool; the server, too, ends it after its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from checkpoint_stores.errors import LeaseLostError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults, postgres_opening, postgres_statements, statements
from checkpoint_stores.sql.places import for_postgres
from checkpoint_stores.sql.postgres_wire import PostgresWire
from checkpoint_stores.sql.postgres_writer import arrays_of
from checkpoint_stores.sql.step_transaction import StepTransaction
from checkpoint_stores.sql.transactions import Scribe
from checkpoint_stores.sql.transitions import Transition

_LIMITS: Final = (
    "SELECT set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),"
    " set_config('lock_timeout', $1, true)"
)


class PostgresStep(StepTransaction):
    """Beside the store's own writer; nobody waits behind it but who wants the same lines.

    Args:
        engine: where connections come from.
        scribe: its clock is used.
        reread: reads with another connection, where nobody knows what became of a COMMIT.
    """

    def __init__(self, url: str, engine: AsyncEngine, scribe: Scribe, reread: Callable[..., Awaitable[list[Any]]], **options: Any) -> None:
        super().__init__(url, **options)
        self._engine = engine
        self._scribe = scribe
        self._reread = reread
        self._driver: Any
        self._transaction: Any

    async def _connect(self) -> AsyncConnection:
        for is_again in (False, True):
            connection = await self._engine.connect()
            try:
                self._driver = (await connection.get_raw_connection()).driver_connection
                await self._driver.execute("SELECT 1")  # it may have broken while it rested
            except BaseException as error:
                lost = isinstance(error, Exception) and faults.is_connection_lost(error)
                if not lost or is_again:
                    await connection.close()
                    raise
                await connection.invalidate()
                await connection.close()
                await self._engine.dispose()
            else:
                return connection
        raise AssertionError

    async def _start(self) -> None:
        self._transaction = self._driver.transaction()
        await self._transaction.start()
        # A moment more than here: while this process lives, it is the one that says what happened.
        await self._driver.execute(_LIMITS.replace("$1", f"'{int(self._seconds * 1000) + 500}ms'"))

    async def _settle_constraints(self) -> None:
        await self._driver.execute("SET CONSTRAINTS ALL IMMEDIATE")

    async def _write(self, work: Transition) -> Receipt:
        if work.asks is not None:
            return await self._connection.run_sync(lambda sync: postgres_opening.commit(PostgresWire(sync), self._scribe, work))
        now = self._scribe.time()
        try:
            if work.change is not None:
                found = await self._driver.fetch(postgres_statements.TRANSITION, now, *arrays_of([work]))
            else:
                rows = [(*row, work.rows[0][1]) for row in work.rows]
                found = await self._driver.fetch(postgres_statements.APPEND_MANY, now, *zip(*rows, strict=True))
        except Exception as error:
            if not faults.is_taken(error):
                raise
            found = []
        if not found:
            commit = work.commit
            owner, epoch = next(iter(await self._reread(for_postgres(statements.OWNER_OF), work.key)), (None, None))
            raise LeaseLostError(commit.run_id, commit.epoch, owner=owner, current_epoch=epoch)
        return Receipt(found[0][1], found[0][2])

    async def _finish(self, work: Transition) -> None:
        try:
            await self._transaction.commit()
        except Exception as error:
            if not faults.is_connection_lost(error):
                raise
            await self._connection.invalidate()
            found = await self._reread(postgres_statements.REREAD, work.key, work.rows[0][1], work.rows[-1][1])
            if [(line[0], line[1], line[2]) for line in found] != [(row[1], row[10], row[2]) for row in work.rows]:
                raise

    async def _undo(self, *, break_off: bool) -> None:
        if break_off:
            self._driver.terminate()
            await self._connection.invalidate()
        else:
            await self._transaction.rollback()
