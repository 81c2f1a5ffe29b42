"""What a caller holds of a run: its handle while it is driven here, its result when it stops.

Dropping a handle is never a decision: the run goes on (here, or by whoever
resumes it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checkpoint_stores.records import DecisionRecord, RunStatus
from engine.decisions import Decision

if TYPE_CHECKING:
    from engine.executor import GraphExecutor


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run stands after this process stopped driving it."""

    run_id: str
    status: RunStatus
    """completed, failed, cancelled; or resumable: waiting, limit_reached, suspended."""
    state: Any
    """The final (or latest) state: an instance of the flow's state class, read-only."""
    values: Mapping[str, Any]
    """The same as a plain dict of the keys that hold something."""
    steps: int
    """Node entries over the life of the run."""
    attempt: int
    """How many times a process took the run."""
    error: Mapping[str, Any] | None = None
    """Of a failed run: type, message, node, path, kinds, causes."""
    waiting_for: tuple[str, ...] = ()
    """Open tickets of a waiting run, e.g. ``("manager_approval#1",)``."""
    seq: int = 0
    """The newest checkpoint."""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    """Of a failed run: the exception, where this process saw it happen."""


class RunHandle:
    """A run that this process drives, or has just driven."""

    def __init__(self, executor: GraphExecutor, run_id: str) -> None:
        self._executor = executor
        self.run_id = run_id

    async def result(self, *, through_barriers: bool = False) -> RunResult:
        """Wait until the run ends or stops.

        A run that waits for people is parked and this returns with status ``waiting``; with ``through_barriers`` it
        stays, and goes on when a decision, a deadline or a retry's time comes, from whatever process.

        Raises RunFailedError (with ``.result``), LeaseLostError, StoreUnavailableError.
        """
        return await self._executor._result(self.run_id, through_barriers=through_barriers)  # noqa: SLF001

    async def decide(self, barrier: str, decision: Decision) -> DecisionRecord:
        """Record a decision durably and let the run go on here.  Raises what `CheckpointStore.decide` raises."""
        return await self._executor._decide(self.run_id, barrier, decision)  # noqa: SLF001

    async def cancel(self, *, by: str, reason: str = "") -> RunResult:
        """End the run as cancelled.  Idempotent: a run that has ended stays as it ended."""
        return await self._executor.cancel(self.run_id, by=by, reason=reason)

    async def suspend(self, reason: str = "") -> RunResult:
        """Stop driving the run; it stays resumable.  Bodies in flight are cancelled and will run again."""
        return await self._executor._suspend(self.run_id, reason)  # noqa: SLF001

    def done(self) -> bool:
        """Whether this process no longer drives the run."""
        return self._executor._task(self.run_id) is None  # noqa: SLF001

    def __repr__(self) -> str:
        return f"<RunHandle {self.run_id}>"


async def outlast(task: asyncio.Task[Any]) -> None:
    """Wait for a task without cancelling it when the waiter is cancelled, and without raising what it raised."""
    await asyncio.wait([task])
