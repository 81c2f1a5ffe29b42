"""A step's own transaction in a SQLite file: it holds the file's only write lock from its first statement on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import sqlite_transition
from checkpoint_stores.sql.allowing import with_uses
from checkpoint_stores.sql.step_transaction import StepTransaction
from checkpoint_stores.sql.transitions import Transition
from checkpoint_stores.sql.wires import SQLiteWire

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class SQLiteStep(StepTransaction):
    """Waits behind the other steps of this process, then for the file's lock; the writer waits behind it.

    Args:
        engine: tells where connections come from.
        line: held from BEGIN to the end.
        clock: microseconds.
    """

    def __init__(
        self, url: str, engine: Callable[[], Awaitable[AsyncEngine]], line: asyncio.Lock, clock: Callable[[], int], **options: Any
    ) -> None:
        super().__init__(url, **options)
        self._engine = engine
        self._line = line
        self._clock = clock
        self._driver: Any
        self._stands_in_line = False

    async def _connect(self) -> AsyncConnection:
        connection = await (await self._engine()).connect()
        self._driver = (await connection.get_raw_connection()).driver_connection
        return connection

    async def _start(self) -> None:
        await self._line.acquire()
        self._stands_in_line = True
        try:
            await self._driver.execute_fetchall("PRAGMA foreign_keys = ON")
            await self._driver.execute_fetchall("BEGIN IMMEDIATE")
        except BaseException:
            self._leave_line()
            raise

    async def _settle_constraints(self) -> None:
        """SQLite has no word for it: a deferred foreign key is checked at COMMIT."""

    async def _write(self, work: Transition) -> Receipt:
        def write(connection: Connection) -> Receipt:
            adapted: Any = connection.connection.dbapi_connection

            def execute(statement: str, values: Any) -> list[Any]:
                return list(adapted.run_async(lambda driver: driver.execute_fetchall(statement, values)))

            now = self._clock()
            asked = work if work.asks is None else with_uses(SQLiteWire(execute), work, now)
            return sqlite_transition.write(execute, asked, now)

        return await self._connection.run_sync(write)

    async def _finish(self, work: Transition) -> None:
        await self._driver.execute_fetchall("COMMIT")

    async def _undo(self, *, break_off: bool) -> None:
        if break_off:
            await self._driver.interrupt()
        if self._driver.in_transaction:
            await self._driver.execute_fetchall("ROLLBACK")

    async def _release(self) -> None:
        try:
            await super()._release()
        finally:
            self._leave_line()

    def _leave_line(self) -> None:
        if self._stands_in_line:
            self._stands_in_line = False
            self._line.release()
