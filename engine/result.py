"""Where a run stands after a process stopped driving it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checkpoint_stores.records import RunStatus
from engine.notices import TrailmarkWarning


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
    warnings: tuple[TrailmarkWarning, ...] = field(default=(), compare=False)
    """What went wrong beside the run while this process drove it: an observer that raised, a node that ignored its cancellation."""
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    """Of a failed run: the exception, where this process saw it happen."""
