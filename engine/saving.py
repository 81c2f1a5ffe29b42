"""When checkpoints are made durable: at every step, or some at a time.

A policy delays rows and never merges them: what is written in the end is what would have been written at once.  Where a run must be
durable (a ticket opens, a decision or a signal is used, a step has a transaction of its own, a branch or the run fails, it is cancelled,
suspended, parked, over) everything that was held back is written in the same transaction, whatever the policy says.  Knows no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from checkpoint_stores.codec import unpack
from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.records import Row
from engine.walk import Batch

When = Literal["every_step", "every_n", "on_barrier", "on_completion", "on_side_effect", "adaptive", "manual"]

WHENS: Final = ("every_step", "every_n", "on_barrier", "on_completion", "on_side_effect", "adaptive", "manual")

MUST_BE_SAVED: Final = frozenset({"barrier", "decision", "decision_refused", "failure", "limit", "suspended", "cancelled", "wait", "heard"})
"""Kinds of rows that are never held back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavePolicy:
    """When a run's steps become durable, and what a crash may therefore make it do again.

    A process that lost its run to another one notices when it saves next, and can have begun bodies until then that come to nothing.
    While somebody listens to the run's events, each step is saved as it ends.

    The run always saves everything where it opens a ticket, uses a decision or a signal, commits a step's own transaction, fails, is
    cancelled or suspended, parks, stops or ends; a policy speaks of the steps in between.  Whatever is lost is done again with the same idempotency keys.

    >>> SavePolicy(when="every_n", n=10).when
    'every_n'

    Raises:
        ArgumentError: an option is of a wrong kind, or out of range.
    """

    when: When = "every_step"
    """
    ``every_step``: a crash loses no step that ended (the default).
    ``every_n``: a crash may lose up to ``n`` - 1 checkpoints of steps that ended.
    ``on_side_effect``: a crash may lose the steps that ended since the last one that called a tool.
    ``adaptive``: a crash may lose steps whose score together is below ``threshold``.
    ``on_barrier``, ``on_completion``, ``manual``: a crash may lose everything since the run last had to save, or was told to
    by `RunHandle.checkpoint`.
    """
    n: int = 10
    """Of ``every_n``: after so many checkpoints."""
    threshold: float = 1000.0
    """Of ``adaptive``: saved when the score of what is held back reaches it."""
    per_ms: float = 1.0
    """Of ``adaptive``: what a millisecond of a node's body adds to the score."""
    per_token: float = 1.0
    per_tool_call: float = 1000.0
    if_unavailable: Literal["fail", "degrade"] = "fail"
    """What happens where the store cannot be written: ``fail`` stops driving the run with StoreUnavailableError; ``degrade`` warns
    (`NotSavedWarning`), keeps the steps and tries again with the next, until the run must save: then it fails."""

    def __post_init__(self) -> None:
        if self.when not in WHENS:
            raise ArgumentError("when", self.when, " or ".join(map(repr, WHENS)))
        if self.if_unavailable not in ("fail", "degrade"):
            raise ArgumentError("if_unavailable", self.if_unavailable, "'fail' or 'degrade'")
        if not isinstance(self.n, int) or self.n < 1:
            raise ArgumentError("n", self.n, "a whole number from 1")
        if min(self.threshold, self.per_ms, self.per_token, self.per_tool_call) < 0:
            raise ArgumentError("threshold and weights", self.threshold, "numbers from 0")

    @property
    def holds(self) -> bool:
        """Whether it does anything that the default does not."""
        return self.when != "every_step" or self.if_unavailable != "fail"


class HeldBack:
    """The rows of one run that are not durable yet, in order."""

    def __init__(self, policy: SavePolicy) -> None:
        self.policy = policy
        self.rows: list[Row] = []
        self._score = 0.0
        self._is_due = False

    def add(self, rows: Sequence[Row], now: int) -> None:
        """Take rows that have just been made."""
        self.rows += rows
        policy = self.policy
        for row in rows:
            calls, score = _weighed(row, now, policy) if policy.when in ("adaptive", "on_side_effect") else (0, 0.0)
            self._score += score
            self._is_due = self._is_due or (policy.when == "on_side_effect" and calls > 0)

    @property
    def is_due(self) -> bool:
        """Whether the policy says that what is held back is to be saved now."""
        match self.policy.when:
            case "every_step":
                return bool(self.rows)
            case "every_n":
                return len(self.rows) >= self.policy.n
            case "adaptive":
                return self._score >= self.policy.threshold and bool(self.rows)
            case _:
                return self._is_due

    def saved(self) -> None:
        """All of it is durable."""
        self.rows = []
        self._score = 0.0
        self._is_due = False


def must_save(batch: Batch) -> bool:
    """Whether a batch says something that is never held back."""
    said = batch.opened or batch.closed or batch.consumed or batch.voted or batch.cancels or batch.error is not None
    return bool(said) or any(row.kind in MUST_BE_SAVED for row in batch.rows)


def _weighed(row: Row, now: int, policy: SavePolicy) -> tuple[int, float]:
    """How many tools the step called, and its score."""
    said = next((op for op in unpack(row.payload) if op[0] == "said"), None)
    calls = sum(1 for entry in said[2] if entry[0] == "tool") if said else 0
    tokens = said[3] + said[4] if said else 0
    ms = (now - row.started_at) / 1000 if row.started_at else 0.0
    return calls, policy.per_ms * ms + policy.per_token * tokens + policy.per_tool_call * calls
