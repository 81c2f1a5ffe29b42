"""What people said, and what follows when nobody said anything in time.

Part of `engine.decide`: the events `Voted` and `DeadlinePassed`.  Who may vote
was checked by the store when the vote was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import PARKED, RunState, Scope
from checkpoint_stores.ops import Op
from checkpoint_stores.records import DecisionRecord
from engine import barriers
from engine.commands import (
    CloseBarrier,
    Command,
    Consume,
    Vote,
)
from engine.decisions import Decision as Outcome
from engine.errors import (
    BarrierTimeoutError,
    GotoError,
    NodeError,
    RejectedError,
    UpdateTypeError,
)
from engine.events import (
    DeadlinePassed,
    Voted,
)
from engine.failures import error_data
from engine.leaving import NOTHING, Decision, Draft, chosen, counted, give_up, leave, not_storable
from engine.outcomes import Goto
from engine.plan import NodePlan, Plan
from engine.updates import first_line


def voted(plan: Plan, state: RunState, event: Voted, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != PARKED or scope.detail[0] != event.ticket:
        return NOTHING
    deciding = barriers.verdict(scope.detail[1]["quorum"], event.records)
    if deciding is None:
        return NOTHING
    here = plan.at(event.path)
    used: tuple[Command, ...] = tuple(Consume(record.id) for record in event.records if record.consumed_seq is None)
    return _resolved(here, state, scope, deciding, event.records, used, now)


def _resolved(  # noqa: PLR0917 - the facts of one decision
    plan: Plan,
    state: RunState,
    scope: Scope,
    deciding: DecisionRecord,
    records: Sequence[DecisionRecord],
    used: tuple[Command, ...],
    now: int,
) -> Decision:
    node = plan.nodes[scope.node]
    assert node.barrier is not None  # noqa: S101
    ticket = scope.detail[0]
    closed: tuple[Command, ...] = (*used, CloseBarrier(ticket, "resolved"))
    data = barriers.decision_data(deciding, records)
    recorded: Op = ["decision", node.name, data]
    try:
        ops = _edit_ops(plan, scope, node, deciding)
        _check_target(scope, node, deciding)
    except NodeError as error:
        # The decision was sound for the store but not for the user's own rules, or not for a graph that changed since the ticket
        # opened: the ticket opens again.
        refused: list[Op] = [["error", error_data(error, node.name, scope.path)]]
        return Decision(
            Draft("decision_refused", scope.path, node.name, node.name, refused, entered=False), (), (*used, CloseBarrier(ticket, "open"))
        )
    if deciding.action == "reject" and node.barrier.on_reject == "fail":
        rejected = RejectedError(node.name, scope.path, deciding.actor, deciding.reason)
        return give_up(plan, state, scope, node, rejected, now, entered=False, commands=closed, ops=[recorded])
    try:
        if deciding.target is not None:
            taken = chosen(plan, node, scope, ops, Goto(deciding.target, force=True))
        else:
            # Only conditions are shown what was decided.
            taken = chosen(plan, node, scope, ops, Outcome.of_data(data) if node.conditional else None)
    except NodeError as error:
        return give_up(plan, state, scope, node, error, now, entered=False, commands=closed, ops=[recorded])
    except UnserialisableError as error:
        return give_up(plan, state, scope, node, not_storable(node, scope, error), now, entered=False, commands=closed, ops=[recorded])
    ops = [*ops, *counted(node, taken), recorded]
    return leave(plan, state, scope, "decision", ops, taken.edge.target, node=node, error=taken.error, entered=False, commands=closed)


def _check_target(scope: Scope, node: NodePlan, deciding: DecisionRecord) -> None:
    """Raises GotoError."""
    if deciding.target is not None and all(edge.target != deciding.target or edge.kind == "fallback" for edge in node.edges()):
        raise GotoError(node.name, scope.path, deciding.target, "the flow has no such edge any more; decide again")


def _edit_ops(plan: Plan, scope: Scope, node: NodePlan, deciding: DecisionRecord) -> list[Op]:
    """The value ops of a decision's edits: they replace values, no reducer merges them.  Raises UpdateTypeError."""
    assert node.barrier is not None  # noqa: S101
    if not deciding.edits:
        return []
    edits: dict[str, Any] = dict(deciding.edits)
    form = node.barrier.form_model
    if form is not None:
        try:
            made = form.model_validate(edits)
        except Exception as error:
            raise UpdateTypeError(node.name, scope.path, f"form {form.__name__}", first_line(error)) from error
        edits = {key: getattr(made, key) for key in form.model_fields if key in made.model_fields_set}
    ops: list[Op] = []
    for key in plan.schema.keys:
        if key in edits and key in node.barrier.edit_keys:
            try:
                ops.append(["set", key, plan.schema.validate_update(key, edits[key], scope.read)])
            except Exception as error:
                raise UpdateTypeError(node.name, scope.path, key, first_line(error)) from error
    return ops


def deadline_passed(plan: Plan, state: RunState, event: DeadlinePassed, now: int) -> Decision:
    scope = state.scopes.get(event.path)
    if scope is None or scope.phase != PARKED or scope.detail[0] != event.ticket:
        return NOTHING
    ticket, details = scope.detail
    if details["deadline"] is None or now < details["deadline"]:
        return NOTHING
    here = plan.at(event.path)
    if details["on_timeout"] == "fail":
        node = here.nodes[scope.node]
        closed = (CloseBarrier(ticket, "withdrawn"),)
        return give_up(here, state, scope, node, BarrierTimeoutError(node.name, scope.path), now, entered=False, commands=closed)
    record = barriers.timed_out(state.run_id, ticket, details["on_timeout"], details["digest"], now)
    return _resolved(here, state, scope, record, (record,), (Vote(record),), now)
