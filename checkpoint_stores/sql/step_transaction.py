"""A step's own transaction: a person's SQL and the step's checkpoint in one COMMIT.

    open ── first statement ──▶ begun ── hand_over ──▶ handed over ── take ──▶ taken ── write ──▶ committed
                                  └─────────┴── limit, exception, cancellation ──▶ rolled back

The node is given a SQLAlchemy connection that can neither commit nor roll back;
what ends the transaction is the checkpoint, or whatever keeps the step from
being one.  Knows no engine; the databases' own ways are `sqlite_step` and
`postgres_step`.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from checkpoint_stores.errors import StoreError, TransactionOverError, TransactionTimeoutError
from checkpoint_stores.records import Receipt
from checkpoint_stores.sql import faults
from checkpoint_stores.sql.transitions import Transition

if TYPE_CHECKING:  # only a step with a transaction of its own is to pay for SQLAlchemy; connecting imports it
    from sqlalchemy.ext.asyncio import AsyncConnection

_ENDS: Final = re.compile(
    r"\s*(?:commit|end|abort|begin|start\s+transaction|rollback(?!\s+(?:work\s+|transaction\s+)?to\b))\b", re.IGNORECASE
)


class StepTransaction(ABC):
    """One transaction of one step.

    Args:
        url: how errors name the database.
        seconds: how long it may take from its first statement to its commit.
        begin: awaited before it begins; waits for its turn.
        ended: called once, when it holds nothing any more.
        check: raises where the step that wants a statement carried out is over.
    """

    def __init__(
        self, url: str, *, seconds: float, begin: Callable[[], Awaitable[None]], ended: Callable[[], None], check: Callable[[], None]
    ) -> None:
        self._url = url
        self._seconds = seconds
        self._wait_for_turn = begin
        self._ended = ended
        self._check = check
        self._connection: AsyncConnection
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._is_beginning = False
        self._is_taken = False
        self._is_closed_to_the_node = False
        self.is_begun = False
        self.over: StoreError | None = None
        """Why it has ended (also where it was committed)."""

    # --- the node's side --------------------------------------------------------------------------------------------
    async def open(self) -> AsyncConnection:
        """A connection for the node; the transaction begins with its first statement.  Raises StoreUnavailableError."""
        with faults.typed_errors(self._url):
            self._connection = await self._connect()
        from sqlalchemy import event

        sync = self._connection.sync_connection
        event.listen(sync, "before_cursor_execute", self._before)
        event.listen(sync, "commit", self._refuse)
        event.listen(sync, "rollback", self._refuse)
        return self._connection

    def _before(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self.over is not None:
            raise self.over
        self._check()
        if self._is_closed_to_the_node:
            raise TransactionOverError("the block of ctx.transaction() is over; its statements belong inside")
        if _ENDS.match(statement):
            self._refuse()
        if not self.is_begun:
            from sqlalchemy.util import await_only

            await_only(self._begin())

    def _refuse(self, *_: object) -> None:
        raise TransactionOverError(
            "the step's checkpoint commits this transaction; leave the block to go on, raise out of it to roll back "
            "(connection.begin_nested() makes a savepoint)"
        )

    async def _begin(self) -> None:
        self._is_beginning = True
        try:
            await self._wait_for_turn()
            try:
                with faults.typed_errors(self._url):
                    await self._start()
            except BaseException:
                self._ended()
                raise
            self.is_begun = True
        finally:
            self._is_beginning = False
            if self.over is not None:
                self._ending = asyncio.get_running_loop().create_task(self._abandon(break_off=False))
        if self.over is not None:
            await self.roll_back("")  # the reason stands: somebody has rolled it back while it was beginning
            raise self.over
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        if self.over is None and not self._is_taken:
            self.over = TransactionTimeoutError(self._seconds)
            self._ending = asyncio.get_running_loop().create_task(self._abandon(break_off=True))

    async def hand_over(self) -> bool:
        """The node's block is over: check what the database checks late; whether there is anything to commit.

        Raises TransactionTimeoutError, or the database's own error.
        """
        if self.over is not None:
            raise self.over
        self._is_closed_to_the_node = True
        if not self.is_begun:
            await self._close()
            return False
        await self._settle_constraints()
        if self.over is not None:
            raise self.over
        return True

    async def roll_back(self, reason: str) -> None:
        """End it without a commit.  Idempotent.

        One that is just beginning is not waited for, since it may stand in line behind others: it ends as soon as it has begun.
        """
        if self.over is None:
            self.over = TransactionOverError(f"the step's transaction was rolled back: {reason}")
            if not self._is_beginning:
                self._ending = asyncio.get_running_loop().create_task(self._abandon(break_off=False))
        if self._ending is not None:
            await asyncio.shield(self._ending)

    # --- the owner's side -------------------------------------------------------------------------------------------
    def take(self) -> bool:
        """Keep it from running out of time, since it is about to be committed; False where it is over."""
        if self.over is not None:
            return False
        self._is_taken = True
        self._stop_timer()
        return True

    async def commit(self, work: Transition) -> Receipt:
        """Write a commit's rows and commit everything.  Raises LeaseLostError, or the driver's own error; then nothing is committed."""
        try:
            receipt = await self._write(work)
            await self._finish(work)
        except BaseException as error:
            await self.roll_back(f"its commit failed: {type(error).__name__}")
            raise
        self.over = TransactionOverError("the step's transaction is committed")
        await self._release()
        return receipt

    # --- ending -----------------------------------------------------------------------------------------------------
    async def _abandon(self, *, break_off: bool) -> None:
        self._stop_timer()
        try:
            if self.is_begun:
                await self._undo(break_off=break_off)
        except Exception as error:  # noqa: BLE001 - whatever the driver says, the connection is not used again
            await self._connection.invalidate(error)
        finally:
            await self._release()

    async def _release(self) -> None:
        try:
            await self._close()
        finally:
            if self.is_begun:
                self.is_begun = False
                self._ended()

    async def _close(self) -> None:
        import sqlalchemy as sa

        sync = self._connection.sync_connection
        if sync is not None and sa.event.contains(sync, "commit", self._refuse):
            for name in ("commit", "rollback"):
                sa.event.remove(sync, name, self._refuse)
        if self.over is None:
            self.over = TransactionOverError("the block of ctx.transaction() is over; its statements belong inside")
        try:
            await self._connection.close()
        except sa.exc.DBAPIError as error:
            # A statement that the node had under way met the end of its transaction and broke the connection: nobody uses it again.
            if not self._connection.closed:
                await self._connection.invalidate(error)
                await self._connection.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what a database says ---------------------------------------------------------------------------------------
    @abstractmethod
    async def _connect(self) -> AsyncConnection:
        """A connection that is whole."""

    @abstractmethod
    async def _start(self) -> None:
        """BEGIN."""

    @abstractmethod
    async def _settle_constraints(self) -> None:
        """Check now what would be checked at COMMIT, where that can be had."""

    @abstractmethod
    async def _write(self, work: Transition) -> Receipt:
        """The commit's own statements."""

    @abstractmethod
    async def _finish(self, work: Transition) -> None:
        """COMMIT; raises where it certainly is not in."""

    @abstractmethod
    async def _undo(self, *, break_off: bool) -> None:
        """ROLLBACK; ``break_off``: a statement may still be under way, and is not waited for."""
