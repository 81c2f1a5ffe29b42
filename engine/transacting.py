"""Steps' own transactions: a node's SQL on the store's database, committed by the step's checkpoint.

One transaction of a run at a time, and never beside a commit of the same run:
on a SQLite file the transaction holds the only write lock, and the driver must
not wait for a lock that only it can free.  So the driver lends its turn to
write while it waits for bodies, takes what a transaction's body returned
before anything else, and commits that alone.  Decides nothing about the run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol

from checkpoint_stores.errors import TransactionError
from checkpoint_stores.protocol import CheckpointStore, Transaction


class Place(NamedTuple):
    """The node entry whose body it is."""

    path: str
    node: str
    visit: int


class Asks(Protocol):
    """The step that asks."""

    def check(self) -> None: ...


class Held:
    """A transaction that has begun: the only one of its run."""

    __slots__ = ("is_handed_over", "is_known", "place", "transaction")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.is_handed_over = False
        self.is_known = False
        """Whether the driver knows what becomes of it: it took it, or rolled it back."""
        self.transaction: Transaction


class Transacting:
    """The transactions of one run's steps, in the process that drives it.

    Args:
        wake: tells the driver that a transaction has ended.
    """

    __slots__ = ("_store", "_waiting", "_wake", "broken", "clear_the_way", "held", "is_lent")

    def __init__(self, store: CheckpointStore, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.is_lent = False
        """Whether the driver writes nothing for now, so that a transaction may begin.  Set by the driver; see `lend`."""
        self.clear_the_way: Callable[[], Awaitable[None]]
        """Makes durable what must not wait behind a transaction.  Set by the driver."""
        self.held: Held | None = None
        """What has begun and is neither committed nor rolled back."""
        self.broken: dict[Place, Exception | None] = {}
        """What was rolled back behind the block of a body that knows nothing of it: what that body returns must not be committed."""

    # --- the driver's side ------------------------------------------------------------------------------------------
    def lend(self) -> None:
        """The driver writes nothing for now: a transaction may begin, and one that waits for its turn does."""
        self.is_lent = True
        if self._waiting:
            self._call_next()

    def take(self, held: Held) -> bool:
        """Keep it until it is committed; False where it is over."""
        held.is_known = held.transaction.take()
        return held.is_known

    def retire(self) -> None:
        """The run is no longer driven here: no turn to write comes any more."""
        self.clear_the_way = _nothing_waits

    async def roll_back(self, reason: str) -> None:
        """End the transaction that has begun, if one has."""
        if self.held is not None:
            self.held.is_known = True
            await self.held.transaction.roll_back(reason)

    # --- the node's side --------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def transaction(self, step: Asks, place: Place, limit: timedelta | None) -> AsyncIterator[Any]:
        """See `StepContext.transaction`."""
        held = Held(place)
        transaction = held.transaction = self._store.transaction(
            limit=limit, begin=partial(self._take_turn, held), ended=partial(self._end, held), check=step.check
        )
        connection = await transaction.open()
        try:
            yield connection
            held.is_handed_over = await transaction.hand_over()
        except BaseException as error:
            over = transaction.over
            await asyncio.shield(transaction.roll_back(f"the node raised {type(error).__name__}"))
            if isinstance(over, TransactionError) and isinstance(error, Exception) and error is not over:
                raise over from error  # what the database said of a connection that was taken from it
            raise

    async def _take_turn(self, held: Held) -> None:
        while not self.is_lent or self.held is not None:
            called = asyncio.get_running_loop().create_future()
            self._waiting.append(called)
            await called
        self.held = held
        try:
            await self.clear_the_way()  # later would be too late: a transaction may hold the only lock there is
        except BaseException:
            self._end(held)
            raise

    def _end(self, held: Held) -> None:
        if held.is_handed_over and not held.is_known:
            self.broken[held.place] = held.transaction.over
        if self.held is held:
            self.held = None
            self._wake()
            if self.is_lent:
                self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            called = self._waiting.popleft()
            if not called.done():
                called.set_result(None)


async def _nothing_waits() -> None:
    """What stands in the way of a transaction once the run is no longer driven."""
