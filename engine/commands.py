"""What shall be done: the outputs of `engine.decide`, in the imperative.

The walk collects them; the driver carries them out after the checkpoint they
come with is durable.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from checkpoint_stores.records import BarrierRecord, BarrierStatus, DecisionRecord
from engine.events import BranchTimedOut, DeadlinePassed, NudgeDue, RetryDue, WaitOver


class StartBody(NamedTuple):
    """Run a node's body."""

    path: str
    node: str
    visit: int
    failed: int
    """Attempts that failed before this one."""


class SetTimer(NamedTuple):
    """Feed ``event`` back at ``due`` (microseconds, the store's clock)."""

    due: int
    event: RetryDue | DeadlinePassed | NudgeDue | BranchTimedOut | WaitOver


class OpenBarrier(NamedTuple):
    """Let people decide a ticket."""

    record: BarrierRecord


class CloseBarrier(NamedTuple):
    """Set a ticket's status: resolved, withdrawn, or open again after a refused decision."""

    ticket: str
    status: BarrierStatus


class NudgePeople(NamedTuple):
    """Let the open ticket show that people were reminded of it, and who may decide it now."""

    record: BarrierRecord


class Consume(NamedTuple):
    """Mark a decision as used by the checkpoint it comes with."""

    decision_id: str


class Hear(NamedTuple):
    """Mark a signal as used by the checkpoint it comes with."""

    signal_id: str


class Vote(NamedTuple):
    """Record a decision the flow itself makes (a timeout default)."""

    record: DecisionRecord


class BeginItems(NamedTuple):
    """Begin the child scopes of the map or subflow node that is open at ``path``, as places become free."""

    path: str


class CancelBelow(NamedTuple):
    """Cancel every body in flight below ``path`` (the root: every body)."""

    path: str


class CancelBody(NamedTuple):
    """Cancel the body in flight at ``path``, if there is one."""

    path: str


class Starve(NamedTuple):
    """``path`` may not move: the step limit is used up."""

    path: str


class Fail(NamedTuple):
    """The run failed, or stopped in doubt, with this exception (kept for whoever asked, beside the stored data)."""

    error: BaseException


Command: TypeAlias = (
    StartBody
    | BeginItems
    | SetTimer
    | OpenBarrier
    | CloseBarrier
    | NudgePeople
    | Consume
    | Hear
    | Vote
    | CancelBelow
    | CancelBody
    | Starve
    | Fail
)
