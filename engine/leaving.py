"""How a scope leaves a node: along an edge, along a fallback, or by failing.

What every decision ends in.  `Draft` and `Decision` are the shape of an answer;
`leave` and `give_up` write the ones that move a scope.  Pure: the state is only
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import OPEN, RunState, Scope
from checkpoint_stores.ops import Op
from checkpoint_stores.records import new_tuple
from engine.commands import Command, Fail, StartBody
from engine.errors import (
    FinalStateError,
    LoopLimitExceeded,
    UpdateNotStorableError,
)
from engine.events import (
    Arrived,
    BranchEnded,
    Event,
)
from engine.failures import error_data, fallback_for
from engine.outcomes import Goto
from engine.plan import END, NodePlan, Plan
from engine.routing import Route, hop_name, route, route_goto
from engine.updates import after


class Draft(NamedTuple):
    """One checkpoint, before it is numbered, encoded and chained."""

    kind: str
    path: str
    node: str
    next: str
    ops: list[Op]
    entered: bool
    """Whether it counts a step (a node entry)."""
    started_at: int = 0


class Decision(NamedTuple):
    """What follows from one event."""

    draft: Draft | None = None
    then: tuple[Event, ...] = ()
    commands: tuple[Command, ...] = ()


NOTHING: Final = Decision()


def chosen(plan: Plan, node: NodePlan, scope: Scope, ops: list[Op], outcome: Any) -> Route:
    if isinstance(outcome, Goto):
        return route_goto(node, scope, outcome, partial(plan.schema.view, after(scope, ops)))
    if node.only_way is not None:
        return new_tuple(Route, (node.only_way, None))  # the common case needs no view of the state
    return route(node, scope, partial(plan.schema.view, after(scope, ops)), outcome)


def counted(node: NodePlan, taken: Route) -> list[Op]:
    return [["hop", hop_name(node, taken.edge)]] if taken.edge.max_visits is not None else []


def step_on(scope: Scope, node: str, ops: list[Op], target: str, started_at: int) -> Decision:
    """The checkpoint of a step along an edge to a task that begins at once: what most steps are."""
    path = scope.path
    visits = scope.visits.get(target, 0) + (target == node)
    draft = new_tuple(Draft, ("step", path, node, target, ops, True, started_at))
    return new_tuple(Decision, (draft, (), (new_tuple(StartBody, (path, target, visits + 1, 0)),)))


def leave(
    plan: Plan, state: RunState, scope: Scope, kind: str, ops: list[Op], target: str, *, node: NodePlan, started_at: int = 0,
    error: dict[str, Any] | None = None, entered: bool = True, commands: tuple[Command, ...] = (),
) -> Decision:  # fmt: skip
    """The checkpoint that leaves ``node`` for ``target``."""
    path = scope.path
    if target != END:
        moved = ops if error is None else [*ops, ["error", error]]
        draft = new_tuple(Draft, (kind, path, node.name, target, moved, entered, started_at))
        if target not in plan.at_once:
            return Decision(draft, (Arrived(path),), commands)
        visits = scope.visits.get(target, 0) + (entered and target == node.name)
        start = new_tuple(StartBody, (path, target, visits + 1, 0))
        return new_tuple(Decision, (draft, (), (*commands, start) if commands else (start,)))
    moved = [*ops, ["done"]]
    broken = _broken_end(plan, scope, ops) if scope.base is None and node.gives == "update" else None
    if broken is not None:
        kind = "failure"
        moved[-1] = ["fail", error_data(broken, node.name, path)]
    above = scope.parent
    if above is not None:
        # Nothing follows from one branch of several that went well but for the last.
        tells = above.left == 1 or broken is not None
        draft = new_tuple(Draft, (kind, path, node.name, "", moved, entered, started_at))
        return new_tuple(Decision, (draft, (BranchEnded(above.path),) if tells else (), commands))
    moved.append(["status", "completed" if broken is None else "failed"])
    told = commands if broken is None else (*commands, Fail(broken))
    return Decision(Draft(kind, path, node.name, "", moved, entered, started_at), (), told)


def _broken_end(plan: Plan, scope: Scope, ops: list[Op]) -> FinalStateError | None:
    """What is wrong with the values a flow ends with, by its own state class; None where nothing is."""
    try:
        plan.schema.check_final(after(scope, [op for op in ops if op[0] not in _NOT_VALUES]))
    except UnserialisableError:
        return None  # the walk finds the same when it seals this checkpoint, and says so
    except Exception as broken:  # noqa: BLE001 - the author's validators may raise anything
        return FinalStateError(plan.flow, str(broken))
    return None


_NOT_VALUES: Final = frozenset({"hop", "close", "decision", "error"})


def not_storable(node: NodePlan, scope: Scope, error: Exception) -> UpdateNotStorableError:
    return UpdateNotStorableError(node.name, scope.path, getattr(error, "path", ""), error)


def give_up(
    plan: Plan, state: RunState, scope: Scope, node: NodePlan, error: BaseException, now: int, *, started_at: int = 0,
    entered: bool = True, commands: tuple[Command, ...] = (), ops: Sequence[Op] = (), update: Sequence[Op] = (),
) -> Decision:  # fmt: skip
    """The node failed for good: its fallback edge, or the end of its scope.  ``update`` is merged only where there is a fallback."""
    data = error_data(error, node.name, scope.path)
    edge = fallback_for(node.fallbacks, error, data)
    closing: list[Op] = [*ops, ["close"]] if scope.phase == OPEN else list(ops)
    if edge is not None:
        # A fallback edge whose own cap is used up is no way out.
        if edge.max_visits is None or scope.hops.get(hop_name(node, edge), 0) < edge.max_visits:
            closing += [*update, *counted(node, Route(edge))]
            return leave(
                plan,
                state,
                scope,
                "fallback",
                closing,
                edge.target,
                node=node,
                started_at=started_at,
                error=data,
                entered=entered,
                commands=commands,
            )
        error = LoopLimitExceeded(node.name, scope.path, edge.max_visits, edge=hop_name(node, edge))
        data = error_data(error, node.name, scope.path)
    failing: list[Op] = [*closing, ["fail", data]]
    if scope.parent is not None:
        return Decision(
            Draft("failure", scope.path, node.name, "", failing, entered, started_at), (BranchEnded(scope.parent.path),), commands
        )
    failing.append(["status", "failed"])
    return Decision(Draft("failure", scope.path, node.name, "", failing, entered, started_at), (), (*commands, Fail(error)))
