"""Staying with a run that somebody else drives, or nobody: until it can go on, and then driving it on.

Knows the store and the clock; how a run is driven is whoever's it is asked of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from checkpoint_stores.errors import LeaseHeldError, RunEndedError
from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DRIVEN, ENDED, STOPPED, RunRecord
from engine.clock import Clock
from engine.errors import ExecutorClosedError

OVER = (ENDED | STOPPED) - {"waiting"}
"""Statuses in which a run goes on only when somebody says so."""


class Takes(Protocol):
    """Drives a run here from now on."""

    def __call__(self, run_id: str, *, takeover: bool = False) -> Awaitable[object]: ...


class Attendant:
    """Waits beside the runs of one executor.

    Args:
        is_driven: whether a run is driven here.
        take: raises LeaseHeldError and RunEndedError where somebody else was faster.
        clock: the store's time.
    """

    def __init__(
        self, store: CheckpointStore, *, is_driven: Callable[[str], bool], take: Takes, clock: Callable[[], Awaitable[Clock]]
    ) -> None:
        self._store = store
        self._is_driven = is_driven
        self._take = take
        self._clock = clock

    def is_free(self, record: RunRecord) -> bool:
        """Whether nobody drives the run; this process may own one without knowing, where the answer to its start was lost."""
        is_unknown = record.owner == self._store.worker_id and not self._store.holds(record.run_id)
        return record.owner is None or record.orphaned or is_unknown

    async def can_move(self, record: RunRecord) -> bool:
        """Whether a parked run has something to go on with: a time that has come, a decision, a cancel."""
        if record.wake_at is not None and record.wake_at <= (await self._clock()).now():
            return True
        inbox = await self._store.inbox(record.run_id)
        return inbox.cancel is not None or any(barrier.status == "decided" for barrier in inbox.barriers)

    async def outlast_owner(self, run_id: str) -> None:
        """Wait while another process drives a run; drive it on where that process is gone."""
        watch = self._store.watch(run_id)
        clock = await self._clock()
        try:
            while True:
                record = await self._store.run(run_id)
                if record.status not in DRIVEN or self._is_driven(run_id):
                    return
                if self.is_free(record):
                    try:
                        await self._take(run_id, takeover=record.owner == self._store.worker_id)
                    except (LeaseHeldError, RunEndedError):
                        continue
                    return
                over = asyncio.Event()
                timer = clock.call_at(record.lease_expires_at or clock.now(), over.set)
                try:
                    await _first_of(watch.changed(), over.wait())
                finally:
                    timer.cancel()
        finally:
            watch.close()

    async def wait_to_go_on(self, run_id: str) -> None:
        """Wait until a parked run can move, and drive it on, unless somebody else does: see `outlast_owner`."""
        watch = self._store.watch(run_id)
        clock = await self._clock()
        due = asyncio.Event()
        timer = None
        try:
            while True:
                record = await self._store.run(run_id)
                if record.status in OVER | DRIVEN or self._is_driven(run_id):
                    return  # it is over, or driven: by somebody who may die, which is looked after elsewhere
                if record.owner is None and (record.status != "waiting" or await self.can_move(record)):
                    try:
                        await self._take(run_id)
                    except (LeaseHeldError, RunEndedError):
                        continue
                    return
                if timer is not None:
                    timer.cancel()
                due.clear()
                timer = clock.call_at(record.wake_at, due.set) if record.wake_at is not None and record.owner is None else None
                await _first_of(watch.changed(), due.wait())
        finally:
            watch.close()
            if timer is not None:
                timer.cancel()

    async def go_on(self, run_id: str, end: asyncio.Future[Any] | None) -> None:
        """Drive a parked run that has become able to move, unless somebody else does; ``end``: how its drive here will end."""
        run = await self._store.run(run_id)
        if run.owner is not None or run.status != "waiting":
            return
        if end is not None:
            has_ended = end.done()
            # It had parked before the decision came and is only about to say so; an owner that parks later sees the decision.
            await asyncio.wait([end])
            if not has_ended:
                run = await self._store.run(run_id)
        if await self.can_move(run):
            try:
                await self._take(run_id)
            except (LeaseHeldError, RunEndedError, ExecutorClosedError):
                pass  # what was said is recorded; somebody else goes on with it


async def _first_of(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
