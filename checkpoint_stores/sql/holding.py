"""The runs this process holds, and the heartbeat that keeps them.

One lease stands for all of them, in the table ``workers``; whether it is fresh
is judged by this process's monotonic clock alone.  Knows no run's content.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import Context

from checkpoint_stores.errors import StoreError
from checkpoint_stores.sql import transactions
from checkpoint_stores.sql.database import Database


class Holding:
    """What is held, and since when the database knows that we live.

    Args:
        is_virtual: the clock is a test's: a lease may expire although no real time went by.
    """

    def __init__(self, database: Database, *, is_virtual: bool) -> None:
        self._database = database
        self._lease = database.scribe.lease
        self._is_virtual = is_virtual
        self._runs: set[str] = set()
        self._coming: Counter[str] = Counter()
        self._fresh_until = float("-inf")
        """By this process's own clock."""
        self.expires_at = 0
        """The end of the lease by the database's clock, as it last told."""
        self._beating: asyncio.Task[None] | None = None
        self._registering = asyncio.Lock()

    def is_fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    async def beat(self) -> None:
        """Extend the lease now."""
        # Taken before the database answers: the lease is never believed to be younger than it is.
        asked = time.monotonic()
        self.expires_at = await self._database.transact(transactions.beat)
        self._fresh_until = asked + self._lease / 1_000_000 * 2 / 3

    async def register(self) -> None:
        """Make sure of a fresh lease before a run is taken under it."""
        if self._is_virtual:
            await self.beat()
        elif not self.is_fresh():
            async with self._registering:  # many begin at once; one heartbeat is theirs all
                if not self.is_fresh():
                    await self.beat()

    def holds(self, run_id: str) -> bool:
        return run_id in self._runs or run_id in self._coming

    @contextlib.contextmanager
    def coming(self, run_id: str) -> Iterator[None]:
        """While a run is asked for: the database may have given it to us before we hear of it, and nobody here is to take it for lost."""
        self._coming[run_id] += 1
        try:
            yield
        finally:
            self._coming[run_id] -= 1
            if not self._coming[run_id]:
                del self._coming[run_id]

    def hold(self, run_id: str) -> None:
        self._runs.add(run_id)
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._keep_beating(), name="trailmark-heartbeat", context=Context())

    def drop(self, run_id: str) -> None:
        self._runs.discard(run_id)

    def close(self) -> None:
        """Let the leases expire, or be given back by somebody else."""
        if self._beating is not None:
            self._beating.cancel()
        self._runs.clear()

    async def _keep_beating(self) -> None:
        pause = self._lease / 3_000_000
        while self._runs:
            await asyncio.sleep(pause)
            # A failed beat needs no word here: `is_fresh` turns False, and the owner's own heartbeat raises.
            with contextlib.suppress(StoreError):
                if self._runs:
                    await self.beat()
