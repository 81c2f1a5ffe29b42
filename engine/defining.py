"""Makes the definition: everything about a compiled flow that is data.

What stands in it decides the graph's hash (but for descriptions), so what a run depends on must stand in it.  The author's functions
appear under their own names and versions, never as import paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from engine.callables import identity_of
from engine.declared import Barrier, Edge, Map, Node, Opening, Subflow, Task, Timer, Wait
from engine.plan import END, BarrierPlan, Plan
from engine.resolve import Scope, signals_of
from engine.schema import StateSchema
from engine.stack import retry_as_data, snapshot
from engine.type_words import type_words

FORMAT = 1
"""Counted up when a reader of definitions must know of a change."""


def definition_of(scope: Scope, plan: Plan) -> dict[str, Any]:
    """Return the definition of a valid flow; ``plan`` is what it was compiled to."""
    made = {"format": FORMAT, **_scope(scope, plan), "barriers": {}}
    for inner, compiled in _with_plans(scope, plan):
        for name, node in inner.nodes.items():
            if isinstance(node, Barrier):
                _merge_barrier(made["barriers"], name, compiled.nodes[name].barrier)
    signals = signals_of(scope)
    if signals:
        made["signals"] = {event: None if kind is Any else TypeAdapter(kind).json_schema() for event, kind in signals.items()}
    return made


def _scope(scope: Scope, plan: Plan, inherited: StateSchema | None = None) -> dict[str, Any]:
    """``inherited``: the state of the flow around a branch; what stands there is not said again."""
    declaration = scope.declaration
    said = {
        "flow": declaration.name,
        "version": declaration.version,
        "description": declaration.description,
        "entry": plan.entry,
        "ends": [name for name, ways in scope.ways.items() if any(edge.target == END for edge in ways.all())],
        "nodes": {name: _node(scope, plan, name) for name in scope.nodes},
        "edges": [_edge(edge) for ways in scope.ways.values() for edge in ways.all()],
    }
    if plan.schema is not inherited:
        said["keys"] = {name: spec.reducer.name for name, spec in plan.schema.keys.items()}
        said["types"] = {name: type_words(spec.annotation) for name, spec in plan.schema.keys.items()}
        said["reducer_versions"] = {spec.reducer.name: spec.reducer.version for spec in plan.schema.keys.values() if spec.reducer.version}
    return said


def _node(scope: Scope, plan: Plan, name: str) -> dict[str, Any]:
    node = scope.nodes[name]
    said: dict[str, Any] = {"kind": node.kind}
    if isinstance(node, Task):
        compiled = plan.nodes[name]
        said |= {
            "callable": identity_of(node.fn),
            "version": node.version,
            "retry": None if compiled.retry is None else retry_as_data(compiled.retry),
            "timeout": _seconds(compiled.timeout),
            "overlap": node.overlap,
            "goto": list(node.goto),
        }
        if compiled.middleware:
            said["middleware"] = [snapshot(each) for each in compiled.middleware]
        if node.writes is not None:
            said["writes"] = sorted(set(node.writes))
        if node.reads:
            said["reads"] = sorted(set(node.reads))
    elif isinstance(node, Barrier):
        barrier = plan.nodes[name].barrier
        assert barrier is not None  # noqa: S101 - a barrier's plan has one
        said |= _barrier(barrier)
    elif isinstance(node, Timer):
        said |= {"delay": _seconds(node.delay), "key": node.key}
    elif isinstance(node, Wait):
        said |= {"event": node.event, "to": node.to, "timeout": _seconds(node.timeout), "on_timeout": node.on_timeout}
    else:
        said |= _opening(scope, plan, node)
    return said | {"max_visits": node.max_visits, "description": _description(node)}


def _opening(scope: Scope, plan: Plan, node: Opening) -> dict[str, Any]:
    said: dict[str, Any] = {"branches": [_branch(scope, plan, node.name, index) for index in range(len(scope.branches[node.name]))]}
    if isinstance(node, Subflow):
        return said | {"inputs": dict(node.inputs), "outputs": dict(node.outputs)}
    said |= {"on_error": {"policy": node.on_error.policy}, "max_concurrency": node.max_concurrency}
    if node.on_error.policy == "best_effort":
        said["on_error"] |= {"min_success": node.on_error.min_success, "failures_to": node.on_error.failures_to}
    if isinstance(node, Map):
        said |= {"over": node.over, "to": node.to, "item": node.item, "result": node.result, "inputs": dict(node.inputs)}
    return said


def _description(node: Node) -> str:
    if node.description or not isinstance(node, Task):
        return node.description
    lines = (getattr(node.fn, "__doc__", None) or "").strip().splitlines()
    return lines[0] if lines else ""


def _branch(scope: Scope, plan: Plan, node: str, index: int) -> dict[str, Any]:
    opens = plan.nodes[node].opens
    assert opens is not None  # noqa: S101 - such a node's plan has one
    branch = scope.branches[node][index]
    return {"name": branch.name, "timeout": _seconds(branch.timeout), **_scope(branch.scope, opens.branches[index].plan, plan.schema)}


def _barrier(barrier: BarrierPlan) -> dict[str, Any]:
    said: dict[str, Any] = {
        "prompt": barrier.prompt,
        "show": list(barrier.show),
        "form": barrier.form,
        "edit_keys": list(barrier.edit_keys),
        "approvers": list(barrier.approvers),
        "quorum": barrier.quorum,
        "early": barrier.early,
        "timeout": _seconds(barrier.timeout),
        "on_timeout": barrier.on_timeout,
        "on_reject": barrier.on_reject,
    }
    if barrier.nudges:
        said["nudges"] = [{"after": after.total_seconds(), "approvers": list(who)} for after, who in barrier.nudges]
    return said


def _edge(edge: Edge) -> dict[str, Any]:
    said: dict[str, Any] = {"from": edge.source, "to": edge.target, "kind": edge.kind}
    if edge.kind == "conditional":
        said["when"] = edge.name
    if edge.on:
        said["on"] = [error.__name__ for error in edge.on]
    if edge.max_visits is not None:
        said["max_visits"] = edge.max_visits
    return said


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _with_plans(scope: Scope, plan: Plan) -> Iterator[tuple[Scope, Plan]]:
    yield scope, plan
    for name, branches in scope.branches.items():
        opens = plan.nodes[name].opens
        for branch, compiled in zip(branches, opens.branches if opens else (), strict=True):
            yield from _with_plans(branch.scope, compiled.plan)


def _merge_barrier(barriers: dict[str, Any], name: str, barrier: BarrierPlan | None) -> None:
    """Barriers of one name in different branches are one entry: whoever may decide either may decide early."""
    assert barrier is not None  # noqa: S101 - a barrier's plan has one
    known = barriers.get(name)
    if known is None:
        barriers[name] = {"approvers": list(barrier.approvers), "early": barrier.early, "quorum": barrier.quorum}
        return
    anybody = not known["approvers"] or not barrier.approvers
    known["approvers"] = [] if anybody else sorted({*known["approvers"], *barrier.approvers})
    known["early"] = known["early"] and barrier.early
    known["quorum"] = max(known["quorum"], barrier.quorum)
