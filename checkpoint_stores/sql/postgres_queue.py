"""One held PostgreSQL connection that carries out, batch by batch, whatever waits for it.

What is waiting at the moment the connection is free goes together: a lone
piece of work waits for nobody, many share a statement.  This file knows
connecting, queueing and telling who waits; what a piece of work is and how a
batch is written is the subclasses'.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.sql import faults, postgres_statements
from checkpoint_stores.sql.settling import Outcome, settle

Work = TypeVar("Work")

Job: TypeAlias = "tuple[Work, asyncio.Future[Any]]"

_CROWD: Final = 32
"""From so many on nobody notices if half of them are told a moment later, and the database need not wait for Python."""


class PostgresQueue(ABC, Generic[Work]):
    """A connection, what waits for it, and the task that brings the two together.

    Args:
        connect: opens an asyncpg connection.
        patience: for how long a lost connection is sought again, seconds.
    """

    def __init__(self, url: str, connect: Callable[[], Awaitable[Any]], *, patience: float = 10.0) -> None:
        self._url = url
        self._connect = connect
        self._patience = patience
        self._waiting: list[Job[Work]] = []
        self._idle: asyncio.Future[None] | None = None
        self._is_closed = False
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect, so that a wrong URL is told at once."""
        await self._prepare()

    async def close(self) -> None:
        """Carry out what is queued, then disconnect."""
        self._is_closed = True
        self._wake()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._disconnect()

    def submit(self, work: Work) -> asyncio.Future[Any]:
        """Queue a piece of work; the future gets its result."""
        if self._is_closed:
            raise StoreUnavailableError(self._url, "this store is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((work, future))
        if self._task is None:
            self._task = self._loop.create_task(self._work(), name=f"trailmark-{type(self).__name__}")
        self._wake()
        return future

    # --- what a subclass says ---------------------------------------------------------------------------------------
    @abstractmethod
    async def _prepare_statements(self, connection: Any) -> None:
        """Prepare on a fresh connection what will be asked of it."""

    @abstractmethod
    def _batches(self) -> list[list[Job[Work]]]:
        """Take from what waits what goes now, in batches."""

    @abstractmethod
    async def _write(self, batch: list[Job[Work]]) -> list[Outcome]:
        """Carry a batch out."""

    # --- the task ---------------------------------------------------------------------------------------------------
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
                    outcomes = await self._write(batch)
                except BaseException as error:
                    settle((future, None, error) for _, future in batch)
                    if not isinstance(error, Exception):
                        settle((future, None, error) for _, future in self._waiting)
                        raise
                else:
                    await self._tell(outcomes)

    async def _tell(self, outcomes: list[Outcome]) -> None:
        if len(outcomes) < _CROWD:
            settle(outcomes)
            return
        # Half of a crowd goes on and brings its next work, which is sent while the other half goes on.
        half = len(outcomes) // 2
        settle(outcomes[:half])
        try:
            await asyncio.sleep(0)
        finally:
            settle(outcomes[half:])

    # --- the connection ---------------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """Connect if there is no connection; try again for a while."""
        if self._connection is not None and not self._connection.is_closed():
            return
        until = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                connection = await self._connect()
                try:
                    await connection.execute(postgres_statements.PLANNING)
                    await self._prepare_statements(connection)
                except BaseException:
                    connection.terminate()
                    raise
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
