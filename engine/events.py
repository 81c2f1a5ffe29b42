"""What happened: the inputs of `engine.decide`, in the past tense.

Events are values.  Those of the first group come from outside (node bodies,
people, clocks); those of the second follow from a checkpoint and are fed back
by `engine.walk` until nothing follows any more.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from checkpoint_stores.ops import Op
from checkpoint_stores.records import DecisionRecord, SignalRecord


class BodyReturned(NamedTuple):
    """A node's body came to its end."""

    path: str
    node: str
    visit: int
    value: Any
    """What it returned, untouched."""
    started_at: int
    said: Op | None = None
    """What it said on the way."""


class BodyFailed(NamedTuple):
    """A node's body raised, or its timeout ended."""

    path: str
    node: str
    visit: int
    error: BaseException
    started_at: int
    said: Op | None = None
    """What it said on the way."""


class BodyWaits(NamedTuple):
    """A node's body cannot go on before a signal comes: it was ended, and will run again when it has come."""

    path: str
    node: str
    visit: int
    name: str
    timeout: int | None
    """How long it waits at most (microseconds)."""
    started_at: int
    said: Op | None = None
    """What it said on the way."""


class Signalled(NamedTuple):
    """A signal that the scope waits for was read from the inbox."""

    path: str
    record: SignalRecord


class WaitOver(NamedTuple):
    """The time until which a scope waits has come."""

    path: str
    due: int
    """That time (microseconds): a scope may wait several times."""


class RetryDue(NamedTuple):
    """The time of a failed node's next attempt has come."""

    path: str


class DeadlinePassed(NamedTuple):
    """Nobody decided a barrier in time."""

    path: str
    ticket: str


class NudgeDue(NamedTuple):
    """Nobody has decided a barrier for so long that people are to be reminded, or others asked."""

    path: str
    ticket: str
    due: int
    """That time (microseconds): a ticket may have several."""


class BranchTimedOut(NamedTuple):
    """A branch was still going on when its time was over."""

    path: str


class Voted(NamedTuple):
    """Decisions on an open barrier were read from the inbox (all that were taken on it so far)."""

    path: str
    ticket: str
    records: tuple[DecisionRecord, ...]


class CancelAsked(NamedTuple):
    """Somebody wants the run to end."""

    actor: str
    reason: str


class SuspendAsked(NamedTuple):
    """The run shall stop here and be resumable."""

    reason: str


class QuarantineAsked(NamedTuple):
    """The run shall not be taken by itself any more: it has brought down whoever drove it."""

    reason: str


class ReleaseAsked(NamedTuple):
    """Somebody wants a run that stands still to be taken by whoever comes."""

    actor: str
    reason: str


class LimitReached(NamedTuple):
    """Nothing can move because the step limit is used up."""


class Arrived(NamedTuple):
    """A scope stands before its node."""

    path: str


class BranchEnded(NamedTuple):
    """A branch of the open parallel node at ``path`` is over."""

    path: str


class Unstorable(NamedTuple):
    """The step that ``path``'s node was about to take holds a value that cannot be stored."""

    path: str
    node: str
    entered: bool
    error: Exception
    started_at: int


Event: TypeAlias = (
    BodyReturned
    | BodyFailed
    | BodyWaits
    | Signalled
    | WaitOver
    | RetryDue
    | DeadlinePassed
    | NudgeDue
    | BranchTimedOut
    | Voted
    | CancelAsked
    | SuspendAsked
    | QuarantineAsked
    | ReleaseAsked
    | LimitReached
    | Arrived
    | BranchEnded
    | Unstorable
)
