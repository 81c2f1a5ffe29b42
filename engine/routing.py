"""Which way leads on from a node: conditional edges, then the normal one, then the fallback.

Pure, but for the author's conditions, each of which is asked at most once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

from checkpoint_stores.errors import UnserialisableError
from checkpoint_stores.fold import Scope
from checkpoint_stores.records import new_tuple
from engine.errors import ConditionError, GotoError, LoopLimitExceeded, NodeError, UnroutedError
from engine.failures import error_data, fallback_for
from engine.outcomes import Goto
from engine.plan import EdgePlan, NodePlan


class Route(NamedTuple):
    """The edge to take; ``error`` where a fallback edge is taken."""

    edge: EdgePlan
    error: dict[str, Any] | None = None


def route(node: NodePlan, scope: Scope, view: Callable[[], Any], outcome: Any) -> Route:
    """Choose the edge after a node that did its work.

    ``view`` makes a read-only view after the node's update: what one condition does to its own, the next does not see.  Raises ConditionError, UnroutedError, LoopLimitExceeded.
    """
    evaluated: list[tuple[str, str, bool]] = []
    for edge in node.conditional:
        holds = asked(node, edge, scope.path, view(), outcome)
        if holds:
            return new_tuple(Route, (edge, None)) if edge.max_visits is None else capped(node, edge, scope)
        evaluated.append((edge.name, edge.target, holds))
    if node.normal is not None:
        return capped(node, node.normal, scope)
    unrouted = UnroutedError(node.name, scope.path, evaluated)
    return fall_back(node, unrouted, scope)


def route_goto(node: NodePlan, scope: Scope, goto: Goto, view: Callable[[], Any]) -> Route:
    """Choose the edge that ``goto`` names.  Raises GotoError, ConditionError, LoopLimitExceeded."""
    ways = [edge for edge in node.edges() if edge.target == goto.target and edge.kind != "fallback"]
    if not ways:
        declared = ", ".join(dict.fromkeys(edge.target for edge in node.edges())) or "none"
        remedy = f"add_edge({node.name!r}, {goto.target!r}, when=...) declares one"
        raise GotoError(node.name, scope.path, goto.target, f"no such edge is declared (declared targets: {declared}); {remedy}")
    for edge in ways:
        if goto.force or edge.when is None or asked(node, edge, scope.path, view(), goto):
            return capped(node, edge, scope)
    raise GotoError(node.name, scope.path, goto.target, f"its condition {ways[0].name} does not hold; use force=True to go anyway")


def asked(node: NodePlan, edge: EdgePlan, path: str, state: Any, outcome: Any) -> bool:
    """Ask one condition.  Raises ConditionError where it raises."""
    assert edge.when is not None  # noqa: S101 - only conditional edges are asked
    try:
        answer = edge.when(state, _copied(outcome)) if edge.when_wants_outcome else edge.when(state)
        return answer if answer is True or answer is False else _truth(answer)
    except UnserialisableError:
        raise  # it is not the condition's fault
    except Exception as error:
        raise ConditionError(node.name, path, f"{edge.name} -> {edge.target}", error) from error


def _copied(outcome: Any) -> Any:
    """What a node returned, for a condition to do with what it likes: the node's own values are still to be committed."""
    try:
        return deepcopy(outcome)
    except Exception:  # noqa: BLE001 - what cannot be copied (an open file that a validator makes a name of) is shown as it is
        return outcome


def _truth(answer: Any) -> bool:
    """Raises TypeError for a coroutine, which would always count as true."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError("it answered with something to await; await in a node and write a key")
    return bool(answer)


def capped(node: NodePlan, edge: EdgePlan, scope: Scope) -> Route:
    """The edge, or the fallback where its cap is used up."""
    if edge.max_visits is None or scope.hops.get(hop_name(node, edge), 0) < edge.max_visits:
        return new_tuple(Route, (edge, None))
    return fall_back(node, LoopLimitExceeded(node.name, scope.path, edge.max_visits, edge=hop_name(node, edge)), scope)


def fall_back(node: NodePlan, error: NodeError, scope: Scope) -> Route:
    """The fallback edge that takes ``error``; raises it where there is none."""
    data = error_data(error, node.name, scope.path)
    edge = fallback_for(node.fallbacks, error, data)
    if edge is None:
        raise error
    if edge.max_visits is not None and scope.hops.get(hop_name(node, edge), 0) >= edge.max_visits:
        raise LoopLimitExceeded(node.name, scope.path, edge.max_visits, edge=hop_name(node, edge))
    return Route(edge, data)


def hop_name(node: NodePlan, edge: EdgePlan) -> str:
    """How a capped edge is counted: ``a->b``, and of several edges between the two ``a->b[1]``, by its key in the graph."""
    return f"{node.name}->{edge.target}[{edge.key}]" if edge.key else f"{node.name}->{edge.target}"
