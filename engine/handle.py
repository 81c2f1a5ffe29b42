"""What a caller holds of a run while it is driven here.

Dropping a handle is never a decision: the run goes on (here, or by whoever
resumes it).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from checkpoint_stores.protocol import CheckpointStore
from checkpoint_stores.records import UNDRIVEN, DecisionRecord, RunStatus, SignalRecord
from engine.decisions import Decision
from engine.live import Live
from engine.result import RunResult
from engine.standing import reached, statuses

if TYPE_CHECKING:
    from engine.following import EventStream, OnLoss
    from engine.queues import Delivery


class Drives(Protocol):
    """What a handle asks of the executor that made it."""

    async def result(self, run_id: str, *, through_barriers: bool) -> RunResult: ...
    async def decide(self, run_id: str, barrier: str, decision: Decision) -> DecisionRecord: ...
    async def signal(self, run_id: str, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord: ...
    async def cancel(self, run_id: str, *, by: str, reason: str = "") -> RunResult: ...
    async def checkpoint(self, run_id: str) -> int: ...
    async def suspend(self, run_id: str, reason: str = "") -> RunResult: ...
    async def begin(self, run_id: str) -> Started: ...
    def drive_of(self, run_id: str) -> object: ...
    async def stop(self, run_id: str, reason: str = "", *, grace: timedelta = ...) -> RunResult: ...
    async def give_back(self, run_id: str, *, grace: timedelta = ...) -> RunResult: ...
    def is_driving(self, run_id: str) -> bool: ...
    def live(self, run_id: str) -> Live | None: ...
    def lost(self, run_id: str, on_loss: OnLoss) -> None: ...
    @property
    def store(self) -> CheckpointStore: ...


Started = Literal["started", "already_running", "rejected"]
"""What became of a request to drive a run."""

STOP_GRACE: Final = timedelta(seconds=30)
"""How long the bodies in flight may take when a run is stopped; then they are cancelled."""


class RunHandle:
    """A run, as this process sees it: mostly one that it drives, has just driven, or found under its key.

    Everything that stops a run may be asked again and again, of a run in any status, and comes back: what is in flight gets its time and
    no more.  A harder word overrides a softer one (stop, then suspend, then cancel), never the other way round.

    >>> import asyncio
    >>> from trailmark import END, Decision, Flow, GraphExecutor
    >>> from trailmark.checkpoint_stores import MemoryCheckpointStore
    >>> graph = Flow("ask", {"n": int}).add_barrier("ok").set_entry("ok").add_edge("ok", END).compile()
    >>> async def main():
    ...     async with MemoryCheckpointStore() as store, GraphExecutor(graph, store=store) as executor:
    ...         run = await executor.start({"n": 1})
    ...         parked = await run.result()
    ...         await run.decide("ok", Decision.approve(by="ana"))
    ...         return parked.waiting_for, (await run.result()).status
    >>> asyncio.run(main())
    (('ok#1',), 'completed')
    """

    def __init__(self, executor: Drives, run_id: str, drive: object = None, *, first: int = 0, created: bool = False) -> None:
        self._executor = executor
        self._drive = drive  # kept, so that the executor can still tell how it ended
        self._first = first  # the checkpoint with which this process took the run
        self.run_id = run_id
        self.created = created
        """Whether this very start made the run; False where its key named one that was there, and where it was taken over."""

    async def result(self, *, through_barriers: bool = False) -> RunResult:
        """Wait until the run ends or stops; one that another process drives is waited for, and gone on with where that process dies.

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
        from engine.following import EventStream  # the catalog of events is built for those who watch

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
        record = await self._executor.decide(self.run_id, barrier, decision)
        self._keep_drive()
        return record

    async def signal(self, name: str, payload: Any = None, *, by: str = "", signal_id: str | None = None) -> SignalRecord:
        """Tell the run of an event durably and let it go on here.  Raises what `CheckpointStore.signal` raises."""
        record = await self._executor.signal(self.run_id, name, payload, by=by, signal_id=signal_id)
        self._keep_drive()
        return record

    async def cancel(self, *, by: str, reason: str = "") -> RunResult:
        """End the run as cancelled.  Idempotent: a run that has ended stays as it ended."""
        return await self._executor.cancel(self.run_id, by=by, reason=reason)

    async def abort(self, reason: str) -> RunResult:
        """End the run at once because the program gives it up: `cancel` in the name of this process."""
        return await self._executor.cancel(self.run_id, by=self._executor.store.worker_id, reason=reason)

    async def start(self) -> Started:
        """Drive the run here, where nobody drives it and it can go on.  Idempotent.

        Returns ``started``, ``already_running`` (here or elsewhere) or ``rejected`` (it has ended).  Raises what `GraphExecutor.attach` raises
        beside that.
        """
        started = await self._executor.begin(self.run_id)
        self._keep_drive()
        return started

    async def stop(self, reason: str = "", *, grace: timedelta = STOP_GRACE) -> RunResult:
        """Start nothing more, let the bodies in flight finish and commit, then suspend the run; after ``grace`` they are cancelled.

        ``reason`` is recorded.  A run that is not driven here stays as it is.
        """
        return await self._executor.stop(self.run_id, reason, grace=grace)

    async def shutdown(self, *, grace: timedelta = STOP_GRACE) -> RunResult:
        """As `stop`, but leave the run ``ready``: whoever takes it next, a worker for example, goes on with it."""
        return await self._executor.give_back(self.run_id, grace=grace)

    async def checkpoint(self) -> int:
        """Make everything durable that has happened so far, under whatever `SavePolicy`; the number of the newest checkpoint.

        Raises LeaseLostError, StoreUnavailableError.
        """
        return await self._executor.checkpoint(self.run_id)

    async def suspend(self, reason: str = "") -> RunResult:
        """Stop driving the run; it stays resumable.  Bodies in flight are cancelled and will run again."""
        return await self._executor.suspend(self.run_id, reason)

    def watch(self) -> AsyncIterator[RunStatus]:
        """The status the run has now, then each newer one, until it has ended, from whatever process.

        Of several that come at once only the last is told.  Raises RunNotFoundError, StoreUnavailableError.
        """
        return statuses(self._executor.store, self.run_id)

    async def wait_for(self, *status: RunStatus) -> RunStatus:
        """Wait until the run has one of these statuses, and return it.  Raises RunEndedError where it ended in another one."""
        return await reached(self._executor.store, self.run_id, status)

    async def wait_ready(self) -> RunStatus:
        """Wait until a process drives the run, or did: until it is neither ``created`` nor ``ready``."""
        return await reached(self._executor.store, self.run_id, [each for each in get_args(RunStatus) if each not in UNDRIVEN])

    def done(self) -> bool:
        """Whether this process no longer drives the run."""
        return not self._executor.is_driving(self.run_id)

    def _keep_drive(self) -> None:
        self._drive = self._executor.drive_of(self.run_id) or self._drive

    def __repr__(self) -> str:
        return f"<RunHandle {self.run_id}>"
