"""What a caller holds of a run while it is driven here.

Dropping a handle is never a decision: the run goes on (here, or by whoever
resumes it).
"""

from __future__ import annotations

from typing import Any, Protocol

from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import DecisionRecord, SignalRecord
from engine.decisions import Decision
from engine.following import EventStream, OnLoss
from engine.live import Live
from engine.queues import Delivery
from engine.result import RunResult


class Drives(Protocol):
    """What a handle asks of the executor that made it."""

    async def result(self, run_id: str, *, through_barriers: bool) -> RunResult: ...
    async def decide(self, run_id: str, barrier: str, decision: Decision) -> DecisionRecord: ...
    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord: ...
    async def cancel(self, run_id: str, *, by: str, reason: str = "") -> RunResult: ...
    async def suspend(self, run_id: str, reason: str = "") -> RunResult: ...
    def is_driving(self, run_id: str) -> bool: ...
    def live(self, run_id: str) -> Live | None: ...
    def lost(self, run_id: str, on_loss: OnLoss) -> None: ...
    @property
    def store(self) -> CheckpointStore: ...


class RunHandle:
    """A run that this process drives, or has just driven."""

    def __init__(self, executor: Drives, run_id: str, drive: object = None, *, first: int = 0) -> None:
        self._executor = executor
        self._drive = drive  # kept, so that the executor can still tell how it ended
        self._first = first  # the checkpoint with which this process took the run
        self.run_id = run_id

    async def result(self, *, through_barriers: bool = False) -> RunResult:
        """Wait until the run ends or stops.

        A run that waits for people is parked and this returns with status ``waiting``; with ``through_barriers`` it
        stays, and goes on when a decision, a deadline or a retry's time comes, from whatever process.

        Raises RunFailedError (with ``.result``), LeaseLostError, StoreUnavailableError.
        """
        return await self._executor.result(self.run_id, through_barriers=through_barriers)

    def events(
        self, after: str | None = None, *, delivery: Delivery | None = None, on_loss: OnLoss = "detach", through_barriers: bool = False
    ) -> EventStream:
        """What happens in the run, as it happens; see `trailmark.events` for the catalog.

        Args:
            after: the id of the last event you have; None begins where this process took the run.
            delivery: what happens when you are slower than the run (see `Delivery`); by default it never waits and you miss nothing.
            on_loss: what happens to the run when you leave the stream before it ends: nothing (``detach``), or it is suspended or
                cancelled.  Leave it with ``async with`` or `EventStream.aclose`, so that this happens at once.
            through_barriers: stay when the run stops, until its end; else the stream ends with ``suspended``.

        Raises BadEventIdError; what `EventStream.__anext__` raises.
        """
        return EventStream(
            self._executor,
            self.run_id,
            first=self._first,
            after=after,
            delivery=delivery,
            on_loss=on_loss,
            through_barriers=through_barriers,
        )

    async def decide(self, barrier: str, decision: Decision) -> DecisionRecord:
        """Record a decision durably and let the run go on here.  Raises what `CheckpointStore.decide` raises."""
        return await self._executor.decide(self.run_id, barrier, decision)

    async def signal(self, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        """Tell the run of an event durably and let it go on here.  Raises what `CheckpointStore.signal` raises."""
        return await self._executor.signal(self.run_id, name, payload, by=by, signal_id=signal_id)

    async def cancel(self, *, by: str, reason: str = "") -> RunResult:
        """End the run as cancelled.  Idempotent: a run that has ended stays as it ended."""
        return await self._executor.cancel(self.run_id, by=by, reason=reason)

    async def suspend(self, reason: str = "") -> RunResult:
        """Stop driving the run; it stays resumable.  Bodies in flight are cancelled and will run again."""
        return await self._executor.suspend(self.run_id, reason)

    def done(self) -> bool:
        """Whether this process no longer drives the run."""
        return not self._executor.is_driving(self.run_id)

    def __repr__(self) -> str:
        return f"<RunHandle {self.run_id}>"
