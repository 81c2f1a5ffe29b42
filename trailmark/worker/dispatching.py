"""How a worker learns which runs to drive.

`Dispatcher` is all that a worker knows of it.  `StoreDispatcher` asks the store
itself, which is enough for the workers of one database; a queue that spreads
runs over many machines is another dispatcher.  Neither decides who drives a
run: that is the lease, whoever was told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import RunRecord
from engine.clock import Clock

_SOON: Final = 1_000_000
"""In so many microseconds whoever had no use for what a look found looks again."""


class Dispatcher(Protocol):
    """Tells of runs that are to be driven.  May tell of one that somebody else takes first, and of the same one twice; forgets none."""

    async def look(self, room: int, aside: Collection[str]) -> Sequence[RunRecord]:
        """At most ``room`` runs that are to be driven now, without those ``aside``; at once, perhaps none.

        Raises StoreUnavailableError.
        """
        ...

    async def changed(self) -> None:
        """Return when another `look` may find more than the last one did.  May return for nothing.  Raises StoreUnavailableError."""
        ...

    def let_go(self, run_id: str) -> None:
        """This worker is done with the run: it has ended, was parked, given back, or could not be driven."""
        ...

    def close(self) -> None: ...


class StoreDispatcher:
    """Asks the store: one look finds what is due, its watch tells of what becomes due, its clock of what time makes due.

    Args:
        store: where the runs are.
        flows: names of the flows that can be driven.
        clock: the store's time.
    """

    def __init__(self, store: CheckpointStore, flows: Collection[str], clock: Clock) -> None:
        self._store = store
        self._flows = tuple(flows)
        self._clock = clock
        self._watch = store.watch_due()
        self._next = 0

    async def look(self, room: int, aside: Collection[str]) -> Sequence[RunRecord]:
        found = await self._due(room, aside)
        self._next = self._clock.now() + _SOON
        if not found:
            # In this order: what becomes due between the two is found now or waited for, never neither.
            self._next = await self._store.next_due()
            found = await self._due(room, aside)
        return found

    async def _due(self, room: int, aside: Collection[str]) -> Sequence[RunRecord]:
        return await self._store.due(flows=self._flows, limit=room, aside=aside)

    async def changed(self) -> None:
        come = asyncio.Event()
        timer = self._clock.call_at(self._next, come.set)
        waits = [asyncio.ensure_future(wait) for wait in (self._watch.changed(), come.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            for wait in waits:
                wait.cancel()

    def let_go(self, run_id: str) -> None:
        pass  # the lease was given back, and that is all there is to it

    def close(self) -> None:
        self._watch.close()
