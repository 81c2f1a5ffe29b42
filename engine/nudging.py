"""What comes while nobody decides a barrier: reminders, and escalations that let others decide too.

Part of `engine.decide`: the event `NudgeDue`.  Pure.  All that is due at once makes one checkpoint: who was away for a week
is reminded once, and a later process never repeats what an earlier one has committed.
"""

from __future__ import annotations

from dataclasses import replace

from checkpoint_stores.fold import PARKED, RunState
from checkpoint_stores.ops import Op
from engine.barriers import next_nudge, record_of
from engine.commands import Command, NudgePeople, SetTimer
from engine.events import NudgeDue
from engine.leaving import NOTHING, Decision, Draft
from engine.plan import Plan


def nudge_due(_plan: Plan, state: RunState, event: NudgeDue, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != PARKED or scope.detail[0] != event.ticket:
        return NOTHING
    details = scope.detail[1]
    if details["deadline"] is not None and details["deadline"] <= now:
        return NOTHING  # the deadline is about to decide
    record = record_of(state.run_id, scope, seq=0)
    due = [who for at, who in record.nudges[record.nudged :] if at <= now]
    if not due:
        return NOTHING
    nudged = record.nudged + len(due)
    added = {person for who in due for person in who}
    op: Op = ["nudge", nudged, sorted(added.difference(record.approvers)) if added else None]
    # What the fold makes of the op, for the ticket as people see it.
    approvers = (*record.approvers, *(op[2] or ()))
    commands: tuple[Command, ...] = (NudgePeople(replace(record, nudged=nudged, approvers=approvers)),)
    following = next_nudge({**details, "nudged": nudged})
    if following is not None:
        commands += (SetTimer(following, NudgeDue(scope.path, event.ticket, following)),)
    kind = "escalated" if added else "reminded"
    return Decision(Draft(kind, scope.path, scope.node, scope.node, [op], entered=False), (), commands)
