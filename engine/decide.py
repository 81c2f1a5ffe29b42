"""The heart: what follows from what happened.

    decide(plan, state, event, now) -> Decision(draft of one checkpoint, events that follow from it, commands)

Rule 1: everything that decides where a run goes lives here or in the pure
modules it calls (routing, updates, joins, barriers, retry).  Rule 2: this file
awaits nothing, asks no clock and changes nothing: it reads the state and
answers with values.  `engine.walk` folds the draft and feeds the ``then``
events back; `engine.executor` carries out the commands.

One event makes at most one checkpoint.  An event that no longer fits the state
(the late answer of a branch that was cancelled) makes none.

    BodyReturned ── step ──────▶ StartBody (the next node is a task) │ Arrived (at any other) │ BranchEnded │ run completed
    BodyFailed ──── retry ─────▶ SetTimer
                    fallback ──▶ Arrived
                    failure ───▶ BranchEnded │ run failed
                    suspended ─▶ (a side effect in doubt: the run stops until a person has settled it)
    Arrived ─────── task: StartBody   parallel: parallel ─▶ Arrived (each branch)   barrier: barrier ─▶ OpenBarrier
                    timer, wait: wait ─▶ SetTimer
                    map, subflow: map, subflow ─▶ BeginItems ─▶ Arrived (begin: what its own state class made of the input)
    BodyWaits ───── wait ──────▶ SetTimer
    Signalled, WaitOver: signal, timer ─▶ Arrived   (of a body: heard ─▶ StartBody, again)
    BranchEnded ─── join ──────▶ Arrived            (or fallback, failure)
    NudgeDue ────── reminded, escalated ─▶ NudgePeople, SetTimer
    Voted ───────── decision ──▶ Arrived            (or fallback, failure)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import AT, DONE, FAILED, OPEN, PARKED, RETRY, RunState, Scope
from checkpoint_stores.moments import later
from checkpoint_stores.ops import Op
from checkpoint_stores.records import new_tuple
from engine import barriers, children, joins, signals
from engine.commands import (
    BeginItems,
    CancelBelow,
    CancelBody,
    CloseBarrier,
    Command,
    Fail,
    OpenBarrier,
    SetTimer,
    StartBody,
    Starve,
)
from engine.errors import (
    BranchTimeoutError,
    BreakError,
    EffectInDoubtError,
    FallbackRequested,
    LoopLimitExceeded,
    NodeError,
)
from engine.events import (
    Arrived,
    BodyFailed,
    BodyReturned,
    BodyWaits,
    BranchEnded,
    BranchTimedOut,
    CancelAsked,
    DeadlinePassed,
    Event,
    LimitReached,
    NudgeDue,
    QuarantineAsked,
    ReleaseAsked,
    RetryDue,
    Signalled,
    SuspendAsked,
    Unstorable,
    Voted,
    WaitOver,
)
from engine.failures import error_data, fallback_for
from engine.identity import key_of
from engine.leaving import NOTHING, Decision, Draft, chosen, counted, give_up, leave, not_storable, step_on
from engine.nudging import nudge_due
from engine.outcomes import Break, End, Fallback
from engine.plan import END, NodePlan, Plan
from engine.resolving import deadline_passed, voted
from engine.retry import retry_due
from engine.updates import Outcome, only_declared, ops_of_update, outcome_of, result_of

_BEFORE_ITS_BODY: Final = frozenset({AT, RETRY})
"""Phases of a scope whose node's body is to run, or does."""


def decide(plan: Plan, state: RunState, event: Event, now: int) -> Decision:
    """What follows from ``event`` in ``state``; ``now`` is the store's time in microseconds.  Changes nothing, never raises for bad input."""
    return _DECIDERS[type(event)](plan, state, event, now)


# --- a node's body came back ------------------------------------------------------------------------------------------


def _returned(plan: Plan, state: RunState, event: BodyReturned, now: int) -> Decision:
    path, name, visit, value, started_at, _said = event
    scope = _in_flight(state, path, name, visit)
    if scope is None:
        return NOTHING
    here = plan.at(path) if path else plan
    node = here.nodes[name]
    try:
        outcome: Outcome | None = None
        update: Mapping[str, Any] = value
        if node.gives != "update":
            outcome, update = result_of(value, node.gives)
        elif type(value) is not dict:  # a mapping says all there is to say, and is what nearly every body returns
            outcome, update = outcome_of(value, name, path)
        if node.writes is not None:
            only_declared(node, path, update)
        ops = ops_of_update(here.schema, scope, name, update)
        if outcome is None:
            taken = chosen(here, node, scope, ops, update)
        elif isinstance(outcome, Fallback):
            gave_up = FallbackRequested(name, path, outcome.reason)
            return give_up(here, state, scope, node, gave_up, now, started_at=started_at, update=ops)
        elif isinstance(outcome, End):
            if isinstance(outcome, Break) and not scope.is_item:
                raise BreakError(name, path)
            ended = leave(here, state, scope, "step", ops, END, node=node, started_at=started_at)
            return _cut(state, scope, ended) if isinstance(outcome, Break) else ended
        else:
            taken = chosen(here, node, scope, ops, outcome)
    except NodeError as error:
        return give_up(here, state, scope, node, error, now, started_at=started_at)
    except UnserialisableError as error:
        return give_up(here, state, scope, node, not_storable(node, scope, error), now, started_at=started_at)
    edge, failure = taken
    if edge.max_visits is not None:
        ops += counted(node, taken)
    target = edge.target
    if failure is None and target in here.at_once:
        return step_on(scope, name, ops, target, started_at)
    return leave(here, state, scope, "step", ops, target, node=node, started_at=started_at, error=failure)


def _cut(state: RunState, scope: Scope, ended: Decision) -> Decision:
    """An item that has ended ends its map (where its last state is refused it failed, and ends nothing else)."""
    draft = ended.draft
    assert draft is not None  # noqa: S101
    assert scope.parent is not None  # noqa: S101
    if draft.ops[-1] != ["done"]:
        return ended
    cut = draft._replace(ops=[*draft.ops, ["cut"]])
    return Decision(cut, (BranchEnded(scope.parent.path),), (*ended.commands, *_closing(state, scope.parent)))


def _body_failed(plan: Plan, state: RunState, event: BodyFailed, now: int) -> Decision:
    scope = _in_flight(state, event.path, event.node, event.visit)
    if scope is None:
        return NOTHING
    here = plan.at(event.path)
    node = here.nodes[event.node]
    if isinstance(event.error, EffectInDoubtError):
        return _in_doubt(here, state, scope, node, event, now)
    failed = scope.failed + 1
    key = key_of(state, scope.path, node.name, event.visit)
    due = retry_due(node.retry, event.error, failed, now, key)
    if due is None:
        return give_up(here, state, scope, node, event.error, now, started_at=event.started_at)
    data = error_data(event.error, node.name, scope.path)
    draft = Draft("retry", scope.path, node.name, node.name, [["retry", failed, due, data]], entered=False, started_at=event.started_at)
    return Decision(draft, (), (SetTimer(due, RetryDue(scope.path)),))


def _body_waits(plan: Plan, state: RunState, event: BodyWaits, now: int) -> Decision:
    scope = _in_flight(state, event.path, event.node, event.visit)
    return NOTHING if scope is None else signals.body_waits(plan, state, scope, event, now)


def _in_doubt(plan: Plan, state: RunState, scope: Scope, node: NodePlan, event: BodyFailed, now: int) -> Decision:
    """Nobody knows whether a side effect happened: no retry; a fallback that names it, or the run stops until a person has settled it."""
    error = event.error
    if fallback_for(node.fallbacks, error, error_data(error, node.name, scope.path)) is not None:
        return give_up(plan, state, scope, node, error, now, started_at=event.started_at)
    ops: list[Op] = [["status", "suspended"], ["attempt", state.attempt, {"suspended": str(error)}]]
    draft = Draft("suspended", scope.path, node.name, node.name, ops, entered=False, started_at=event.started_at)
    return Decision(draft, (), (CancelBelow(""), Fail(error)))


def _unstorable(plan: Plan, state: RunState, event: Unstorable, now: int) -> Decision:
    scope = state.scopes[event.path]
    here = plan.at(event.path)
    node = here.nodes[event.node]
    error = not_storable(node, scope, event.error)
    return give_up(here, state, scope, node, error, now, started_at=event.started_at, entered=event.entered, commands=_own_ticket(scope))


def _in_flight(state: RunState, path: str, node: str, visit: int) -> Scope | None:
    """The scope whose node this answer is about, or None where the answer comes too late."""
    scope = state.scopes.get(path)
    if scope is None or scope.node != node or scope.phase not in _BEFORE_ITS_BODY or scope.visits.get(node, 0) + 1 != visit:
        return None
    return scope


# --- a scope stands before a node -------------------------------------------------------------------------------------


def _arrived(plan: Plan, state: RunState, event: Arrived, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != AT:
        return NOTHING  # a branch that opened with it has failed at once and closed the node they are branches of
    here = plan.at(event.path)
    node = here.nodes[scope.node]
    if scope.lent and not scope.begun and (begun := _begun(plan, here, state, scope, node, now)) is not None:
        return begun
    visits = scope.visits.get(node.name, 0)
    if node.kind == "task" and (node.max_visits is None or visits < node.max_visits):
        start = new_tuple(StartBody, (scope.path, node.name, visits + 1, scope.failed))
        return new_tuple(Decision, (None, (), (start,)))
    if state.step + len(state.running) >= state.max_steps:
        return Decision(None, (), (Starve(scope.path),))
    if node.max_visits is not None and visits >= node.max_visits:
        # The refused entry counts as a step: capped nodes that fall back to one another end at the step limit.
        return give_up(here, state, scope, node, LoopLimitExceeded(node.name, scope.path, node.max_visits), now)
    if node.kind == "parallel":
        return _open_parallel(scope, node, visits + 1, now)
    if node.kind in ("timer", "wait"):
        return signals.begin(here, state, scope, node, now)
    if node.kind in ("map", "subflow"):
        return _open_each(here, state, scope, node, now)
    return _open_barrier(here, state, scope, node, now)


def _open_parallel(scope: Scope, node: NodePlan, visit: int, now: int) -> Decision:
    assert node.opens is not None  # noqa: S101
    branches = node.opens.branches
    paths = [scope.child_path(node.name, visit, index) for index in range(len(branches))]
    entries = [branch.plan.entry for branch in branches]
    due = [None if branch.timeout is None else later(now, branch.timeout) for branch in branches]
    timers = tuple(SetTimer(at, BranchTimedOut(path)) for path, at in zip(paths, due, strict=True) if at is not None)
    ops: list[Op] = [["open", node.name, visit, entries, due if timers else None]]
    draft = Draft("parallel", scope.path, node.name, ",".join(entries), ops, entered=True)
    return Decision(draft, tuple(Arrived(path) for path in paths), timers)


def _open_each(plan: Plan, state: RunState, scope: Scope, node: NodePlan, now: int) -> Decision:
    try:
        each = children.opened(node, scope, now)
    except NodeError as error:
        return give_up(plan, state, scope, node, error, now)
    visit = scope.visits.get(node.name, 0) + 1
    draft = Draft(node.kind, scope.path, node.name, each["entry"], [["each", node.name, visit, each]], entered=True)
    if not each["count"]:
        return Decision(draft, (BranchEnded(scope.path),))
    return Decision(draft, (), (BeginItems(scope.path),))


def _begun(plan: Plan, here: Plan, state: RunState, scope: Scope, node: NodePlan, now: int) -> Decision | None:
    """The first checkpoint of a flow with a state of its own, where that state is more than what was lent to it; else None."""
    assert scope.parent is not None  # noqa: S101 - only a child is lent anything
    opener = plan.at(scope.parent.path).nodes[scope.parent.detail[0]]
    try:
        ops = children.own_values(opener, here, scope)
    except NodeError as error:
        return give_up(here, state, scope, node, error, now, entered=False)
    except UnserialisableError as error:
        return give_up(here, state, scope, node, not_storable(node, scope, error), now, entered=False)
    return Decision(Draft("begin", scope.path, node.name, node.name, ops, entered=False), (Arrived(scope.path),)) if ops else None


def _open_barrier(plan: Plan, state: RunState, scope: Scope, node: NodePlan, now: int) -> Decision:
    try:
        record = barriers.opened(state.run_id, node, scope, now, seq=state.seq + 1)
    except NodeError as error:
        return give_up(plan, state, scope, node, error, now)
    commands: tuple[Command, ...] = (OpenBarrier(record),)
    if record.deadline is not None:
        commands += (SetTimer(record.deadline, DeadlinePassed(scope.path, record.ticket)),)
    if record.nudges:
        first = record.nudges[0][0]
        commands += (SetTimer(first, NudgeDue(scope.path, record.ticket, first)),)
    ops: list[Op] = [["park", record.ticket, barriers.details_of(record)]]
    return Decision(Draft("barrier", scope.path, node.name, node.name, ops, entered=True), (), commands)


def _retry_due(plan: Plan, state: RunState, event: RetryDue, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != RETRY:
        return NOTHING
    return Decision(commands=(StartBody(scope.path, scope.node, scope.visits.get(scope.node, 0) + 1, scope.failed),))


# --- a branch is over -------------------------------------------------------------------------------------------------


def _branch_ended(plan: Plan, state: RunState, event: BranchEnded, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != OPEN:
        return NOTHING
    here = plan.at(event.path)
    node = here.nodes[scope.node]
    failure = joins.failure_of(node, scope)
    if failure is not None:
        return give_up(here, state, scope, node, failure, now, entered=False, commands=_closing(state, scope))
    if not joins.is_over(scope):
        return NOTHING
    try:
        ops = joins.merged(here.schema, node, scope)
        taken = chosen(here, node, scope, ops, {})
    except NodeError as error:
        return give_up(here, state, scope, node, error, now, entered=False, commands=_closing(state, scope))
    except UnserialisableError as error:
        return give_up(here, state, scope, node, not_storable(node, scope, error), now, entered=False, commands=_closing(state, scope))
    ops = [*ops, *counted(node, taken), ["close"]]
    return leave(here, state, scope, "join", ops, taken.edge.target, node=node, error=taken.error, entered=False)


def _branch_timed_out(plan: Plan, state: RunState, event: BranchTimedOut, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.parent is None or scope.phase in (DONE, FAILED) or scope.due is None or now < scope.due:
        return NOTHING
    error = error_data(BranchTimeoutError(scope.node, scope.path), scope.node, scope.path)
    ops: list[Op] = [*([["close"]] if scope.phase == OPEN else []), ["fail", error]]
    commands = (*_closing(state, scope), *_own_ticket(scope), CancelBody(scope.path))
    return Decision(Draft("failure", scope.path, scope.node, "", ops, entered=False), (BranchEnded(scope.parent.path),), commands)


def _closing(state: RunState, scope: Scope) -> tuple[Command, ...]:
    """Cancel what runs below ``scope`` and withdraw the tickets that are open there."""
    prefix = f"{scope.path}." if scope.path else ""
    withdrawn = tuple(
        CloseBarrier(below.detail[0], "withdrawn")
        for path, below in state.scopes.items()
        if below is not scope and path.startswith(prefix) and below.phase == PARKED
    )
    return (CancelBelow(scope.path), *withdrawn)


# --- the run as a whole -----------------------------------------------------------------------------------------------


def _cancel_asked(_plan: Plan, state: RunState, event: CancelAsked, _now: int) -> Decision:
    details = {"actor": event.actor, "reason": event.reason}
    draft = Draft("cancelled", "", "", "", [["status", "cancelled"], ["attempt", state.attempt, {"cancelled": details}]], entered=False)
    return Decision(draft, (), _closing(state, state.root) + _own_ticket(state.root))


def _own_ticket(scope: Scope) -> tuple[Command, ...]:
    return (CloseBarrier(scope.detail[0], "withdrawn"),) if scope.phase == PARKED else ()


def _suspend_asked(_plan: Plan, state: RunState, event: SuspendAsked, _now: int) -> Decision:
    ops: list[Op] = [["status", "suspended"], ["attempt", state.attempt, {"suspended": event.reason}]]
    return Decision(Draft("suspended", "", "", "", ops, entered=False), (), (CancelBelow(""),))


def _quarantine_asked(_plan: Plan, state: RunState, event: QuarantineAsked, _now: int) -> Decision:
    ops: list[Op] = [["status", "quarantined"], ["attempt", state.attempt, {"quarantined": event.reason}]]
    return Decision(Draft("quarantined", "", "", "", ops, entered=False))


def _release_asked(_plan: Plan, state: RunState, event: ReleaseAsked, _now: int) -> Decision:
    details = {"actor": event.actor, "reason": event.reason}
    return Decision(Draft("released", "", "", "", [["attempt", state.attempt, {"released": details}]], entered=False))


def _limit_reached(_plan: Plan, _state: RunState, _event: LimitReached, _now: int) -> Decision:
    return Decision(Draft("limit", "", "", "", [["status", "limit_reached"]], entered=False))


_DECIDERS: Final[dict[type, Callable[[Plan, RunState, Any, int], Decision]]] = {
    BodyReturned: _returned,
    BodyFailed: _body_failed,
    BodyWaits: _body_waits,
    Signalled: signals.signalled,
    WaitOver: signals.wait_over,
    Unstorable: _unstorable,
    Arrived: _arrived,
    RetryDue: _retry_due,
    BranchEnded: _branch_ended,
    BranchTimedOut: _branch_timed_out,
    Voted: voted,
    DeadlinePassed: deadline_passed,
    NudgeDue: nudge_due,
    CancelAsked: _cancel_asked,
    SuspendAsked: _suspend_asked,
    QuarantineAsked: _quarantine_asked,
    ReleaseAsked: _release_asked,
    LimitReached: _limit_reached,
}
