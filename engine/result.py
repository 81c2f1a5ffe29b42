"""Where a run stands after a process stopped driving it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from checkpoint_stores.records import RunStatus
from engine.decisions import moment
from engine.notices import TrailmarkWarning


class PendingRetry(NamedTuple):
    """A node that failed and is to be tried again.

    >>> retry = PendingRetry("pay", "", 2, {"type": "TimeoutError", "message": "no answer"}, 1_800_000_000_000_000)
    >>> f"{retry.node} failed {retry.failed} times, again at {retry.due:%H:%M:%S}: {retry.error['message']}"
    'pay failed 2 times, again at 08:00:00: no answer'
    """

    node: str
    path: str
    """The branch it stands in; "" at the root."""
    failed: int
    """How many attempts have failed."""
    error: Mapping[str, Any]
    """Why the newest one failed: type, message, node, path, kinds, causes."""
    due_at: int
    """When it is tried again: microseconds since the epoch, by the store's clock."""

    @property
    def due(self) -> datetime:
        """The same as an aware datetime, UTC."""
        return moment(self.due_at)


class PendingWait(NamedTuple):
    """A node that waits for a signal, or for a time.

    >>> PendingWait("await_payment", "", "paid", None).signal
    'paid'
    """

    node: str
    path: str
    """The branch it stands in; "" at the root."""
    signal: str
    """The signal it waits for (`CheckpointStore.signal` sends it); "" where it only waits for a time."""
    due_at: int | None
    """Until when: microseconds since the epoch, by the store's clock; None = for ever."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run stands after this process stopped driving it."""

    run_id: str
    status: RunStatus
    """completed, failed, cancelled; or resumable: waiting, ready, limit_reached, suspended (or created, of a run nobody has driven yet)."""
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
    retries: tuple[PendingRetry, ...] = ()
    """Failed nodes that wait to be tried again, the next one first; a run that waits for nothing else has no ticket to decide."""
    waits: tuple[PendingWait, ...] = ()
    """Nodes that wait for a signal or a time, in declared order."""
    seq: int = 0
    """The newest checkpoint."""
    warnings: tuple[TrailmarkWarning, ...] = field(default=(), compare=False)
    """What went wrong beside the run while this process drove it: an observer that raised, a node that ignored its cancellation."""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    """Of a failed run, and of one suspended because a side effect is in doubt: the exception, where this process saw it happen."""
