"""What the driver tells whoever looks on, after each durable commit.

An observer is called in the driver's loop, after the commit, with each row and
its decoded place.  It is called, not awaited, and must be quick; what it does
never changes the run.  One that raises is detached: it is told nothing more of
this run, which goes on to its end, and an `ObserverFailedWarning` says so, at
once and in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from checkpoint_stores.records import Row


class Committed(NamedTuple):
    """One durable checkpoint."""

    row: Row
    committed_at: int
    status: str
    """The run's status after the batch the row belongs to."""
    took: int | None = None
    """Microseconds from handing the batch to the store until it was durable; None on all rows of a batch but the first."""


Observer: TypeAlias = Callable[[Committed], None]
