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
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar

from checkpoint_stores.errors import StoreUnavailableError
from checkpoint_stores.sql import faults, postgres_statements
from checkpoint_stores.sql.errand import Errand
from checkpoint_stores.sql.settling import Answer, Outcome, answer

Work = TypeVar("Work")

Job: TypeAlias = "tuple[Work, Answer]"

CLOSING_SECONDS: Final = 20.0
"""So long who is at a connection is waited for when the store is closed."""

_CROWD: Final = 32
"""From so many on nobody notices if half of them are told a moment later, and the database need not wait for Python."""


class PostgresQueue(ABC, Generic[Work]):
    """A connection, what waits for it, and the errand that brings the two together.

    Args:
        connect: opens an asyncpg connection.
        patience: for how long a lost connection is sought again, seconds.
    """

    def __init__(self, url: str, connect: Callable[[], Awaitable[Any]], *, patience: float = 10.0) -> None:
        self._url = url
        self._connect = connect
        self._patience = patience
        self._waiting: list[Job[Work]] = []
        self._idle: Answer | None = None
        self._is_closed = False
        self._connection: Any = None
        self._errand: Errand | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect, so that a wrong URL is told at once."""
        await self._prepare()

    async def close(self) -> None:
        """Carry out what is queued, then disconnect."""
        self._is_closed = True
        self._wake()
        if self._errand is not None:
            _, pending = await asyncio.wait([self._errand.ended], timeout=CLOSING_SECONDS)
            if pending and self._connection is not None:
                self._connection.terminate()  # nobody answers: what waits is told so
                await asyncio.wait(pending)
        await self._disconnect()

    def submit(self, work: Work) -> Answer:
        """Queue a piece of work; the future gets its result."""
        if self._is_closed:
            raise StoreUnavailableError(self._url, "this store is closed")
        waiting = Answer(loop=self._loop)
        self._waiting.append((work, waiting))
        self._wake()
        if self._errand is None or self._errand.ended.done():
            self._errand = Errand(self._work(), self._loop)
        return waiting

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

    # --- the errand -------------------------------------------------------------------------------------------------
    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.answer(None, None)

    async def _work(self) -> None:
        while not (self._is_closed and not self._waiting):
            if not self._waiting:
                self._idle = Answer(loop=self._loop)
                await self._idle
            batches = deque(self._batches())
            while batches:
                batch = batches.popleft()
                try:
                    outcomes = await self._write(batch)
                except Exception as error:  # noqa: BLE001 - whoever waits gets it
                    outcomes = [(waiting, None, error) for _, waiting in batch]
                except BaseException as error:
                    taken, self._waiting = [*batch, *chain.from_iterable(batches), *self._waiting], []
                    refused: list[Outcome] = [(waiting, None, error) for _, waiting in taken]
                    self._loop.call_soon(answer, refused)
                    raise
                self._tell(outcomes)

    def _tell(self, outcomes: list[Outcome]) -> None:
        at_once = len(outcomes) if len(outcomes) < _CROWD else len(outcomes) // 2
        if at_once < len(outcomes):
            # Half of a crowd goes on and brings its next work, which is sent while the other half goes on.
            self._loop.call_soon(answer, outcomes[at_once:])
        try:
            answer(outcomes[:at_once])
        except BaseException as error:  # noqa: BLE001 - who went on ends the loop; what comes while the program ends is written all the same
            self._loop.call_soon(_raise, error)

    # --- the connection ---------------------------------------------------------------------------------------------
    async def _prepare(self) -> None:
        """Connect if there is no connection; try again for a while."""
        if self._connection is None or self._connection.is_closed():
            # What has a time limit of its own wants a task of its own.
            self._connection = await self._loop.create_task(self._connected())

    async def _connected(self) -> Any:
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
                if self._errand is None or time.monotonic() + pause > until or not faults.is_connection_lost(error):
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await self._loop.create_task(connection.close(timeout=2))


def _raise(error: BaseException) -> NoReturn:
    raise error
