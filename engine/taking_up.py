"""A run that is taken as it was read, with the first commit of its drive: what people said is used in the transaction that takes it.

The short way of going on with a run, where nobody has it and nothing about it is out of the ordinary.  Whatever keeps a run from
being taken so says so by an exception, and nothing is written: the long way (`CheckpointStore.acquire`, then what is there) knows
what is wrong, or that nothing is.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from checkpoint_stores.attempts import attempt_row
from checkpoint_stores.chain import Chain
from checkpoint_stores.codec import decode, encode
from checkpoint_stores.deciding import find_ticket, judge, tickets_counting_for
from checkpoint_stores.errors import ArgumentError
from checkpoint_stores.fold import RunState
from checkpoint_stores.folding import apply_row
from checkpoint_stores.ids import new_id
from checkpoint_stores.protocol import Decides, Standing
from checkpoint_stores.records import ENDED, BarrierRecord, Commit, DecisionRecord, Inbox, Resumption, Row, RunRecord


class NotAtOnceError(Exception):
    """It does not come to what was expected; to be repeated the long way.  Never leaves the executor."""


class TakingUp:
    """How a run is taken: the attempt's row, and what was said in the very moment."""

    __slots__ = ("_behind", "_decided", "_inbox_rev", "_max_steps", "row")

    def __init__(self, row: Row, behind: bytes, inbox_rev: int, max_steps: int | None, decided: DecisionRecord | None) -> None:
        self.row = row
        self._behind = behind
        self._inbox_rev = inbox_rev
        self._max_steps = max_steps
        self._decided = decided

    def with_what_follows(self, commit: Commit) -> Resumption:
        """The resumption whose commit begins with the attempt.  Raises NotAtOnceError where the decision of the moment is not used."""
        decided = self._decided
        if decided is not None:
            if all(used != decided.id for used, _ in commit.consumed):
                raise NotAtOnceError
            commit = commit._replace(voted=(*commit.voted, decided))
        return Resumption(commit, self._inbox_rev, self._max_steps, 0 if decided is None else 1, self._behind)


class Said(NamedTuple):
    """What whoever takes a run says of its going on."""

    note: Mapping[str, Any] = MappingProxyType({})
    max_steps: int | None = None
    capabilities: list[str] | None = None

    def details(self, state: RunState) -> dict[str, Any]:
        """What the attempt records of it.  Raises ArgumentError where the run at ``state`` has made that many steps."""
        details = dict(self.note)
        if self.max_steps is not None:
            if self.max_steps <= state.step:
                raise ArgumentError("max_steps", self.max_steps, f"more than the {state.step} steps that run {state.run_id} has made")
            details["max_steps"] = self.max_steps
        if self.capabilities is not None:
            details["capabilities"] = self.capabilities
        return details


def may_be_taken_up(run: RunRecord, inbox: Inbox) -> bool:
    """Whether nobody owns the run, it has not ended, and nobody wants it to."""
    return run.owner is None and run.status not in ENDED and inbox.cancel is None


def attempted(
    chain: Chain, run: RunRecord, state: RunState, details: Mapping[str, Any], *, owner: str, decided: DecisionRecord | None = None
) -> TakingUp:
    """How the run at ``state`` is taken; ``state`` then is as behind the attempt.  Raises UnserialisableError."""
    given = {**details, "owner": owner}
    behind = state.digest
    row = attempt_row(chain, run.run_id, (state.seq, state.digest, state.step), run.epoch + 1, run.attempt + 1, given)
    apply_row(state, row)
    return TakingUp(row, behind, run.inbox_rev, details.get("max_steps"), decided)


def decided(standing: Standing, barrier: str, decision: Decides) -> DecisionRecord | None:
    """The record of a decision that lets a run go on as it stands; None where it does not, or needs to be looked at more closely.

    Raises what `deciding.find_ticket` and `deciding.judge` raise, UnserialisableError.
    """
    run, _, inbox, now = standing
    if run.status != "waiting":
        return None
    ticket = find_ticket(run, barrier, inbox.barriers, None)
    if not isinstance(ticket, BarrierRecord) or ticket.status != "open":
        return None
    votes = _votes_for(ticket, inbox.decisions)
    verdict = judge(run, ticket, votes, decision, now=now, decision_id=new_id(now))
    if not verdict.is_new or verdict.status != "decided":
        return None
    record = verdict.record
    # Nobody can change it afterwards, and it is what a store would give back.
    return record if record.edits is None else replace(record, edits=decode(encode(record.edits)))


def _votes_for(ticket: BarrierRecord, votes: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    counting = tickets_counting_for(ticket.ticket)
    return [vote for vote in votes if vote.ticket in counting]
