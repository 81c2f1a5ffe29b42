"""Compiles a declaration: resolve it, judge it, build the networkx graph, and from it the frozen plan.

Deterministic and repeatable; calls none of the author's functions.  The only way from a `Flow` to a `FlowGraph`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import networkx as nx
from pydantic import BaseModel, TypeAdapter

from engine.analysis import warnings_of
from engine.callables import condition_takes, is_async_generator, is_coroutine, item_takes, node_takes
from engine.declared import Barrier, Edge, Map, Node, Opening, Parallel, Subflow, Task, Timer, Wait
from engine.defining import definition_of
from engine.definition import hash_of
from engine.errors import FlowValidationError
from engine.flow import Flow
from engine.graph import FlowGraph
from engine.middleware import Backpressure, Timeout
from engine.plan import (
    END,
    ITEM,
    RESULT,
    BarrierPlan,
    BranchPlan,
    EachPlan,
    EdgePlan,
    Mapped,
    NodePlan,
    ParallelPlan,
    Plan,
    Retry,
    TimerPlan,
    WaitPlan,
)
from engine.resolve import Scope, needs_of, resolve, signals_of
from engine.schema import StateSchema
from engine.stack import merged, stack_of, stack_problems
from engine.validate import problems_of


def compile_flow(flow: Flow) -> FlowGraph:
    """Return the graph of ``flow`` as it is declared now.

    Raises:
        FlowValidationError: with all problems at once.
    """
    problems: list[str] = []
    scope = resolve(flow.declaration(), problems, within=(flow,))
    graph = graph_of(scope)
    problems += problems_of(scope)
    problems += stack_problems(scope)
    if scope.declaration.migrations:
        from engine.migration_checks import migration_problems  # loaded by a flow that has older versions

        problems += migration_problems(scope)
    if problems:
        raise FlowValidationError(flow.name, list(dict.fromkeys(problems)))
    plan = _plan(scope, graph)
    definition = definition_of(scope, plan)
    checks = {event: None if kind is Any else TypeAdapter(kind).validate_python for event, kind in signals_of(scope).items()}
    try:
        graph_hash = hash_of(definition)
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise FlowValidationError(
            flow.name, [f"one of its names or texts holds {half!r}, half of a surrogate pair; write the whole character"]
        ) from None
    plan = dataclasses.replace(plan, graph_hash=graph_hash, signals=MappingProxyType(checks), _places={})
    return FlowGraph(
        graph, plan, json.dumps(definition, ensure_ascii=False), warnings_of(scope, graph), scope.declaration.migrations, needs_of(scope)
    )


def graph_of(scope: Scope) -> nx.MultiDiGraph[str]:
    """The networkx graph of a scope: the nodes that exist and the edges between them, branches as graphs on their node."""
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(flow=scope.declaration.name, entry=scope.declaration.entry)
    for name, node in scope.nodes.items():
        graph.add_node(name, kind=node.kind, max_visits=node.max_visits)
        if name in scope.branches:
            graph.nodes[name]["branches"] = {branch.name: graph_of(branch.scope) for branch in scope.branches[name]}
    graph.add_node(END, kind="end")
    for name, ways in scope.ways.items():
        for order, edge in enumerate(ways.all()):
            if edge.target in graph:
                graph.add_edge(name, edge.target, kind=edge.kind, order=order, condition=edge.name, max_visits=edge.max_visits)
    return nx.freeze(graph)


def _plan(scope: Scope, graph: nx.MultiDiGraph[str], outer: Sequence[Any] = ()) -> Plan:
    """``outer``: the middleware of the flow around it."""
    assert scope.schema is not None  # noqa: S101 - a valid flow has one
    assert scope.declaration.entry is not None  # noqa: S101
    around = merged(outer, scope.declaration.middleware)
    looked_at = {each.behind for node in scope.nodes.values() for each in _middleware(around, node) if isinstance(each, Backpressure)}
    nodes = {name: _node_plan(scope, graph, name, around, looked_at) for name in scope.nodes}
    return Plan(scope.declaration.name, scope.declaration.version, scope.declaration.entry, MappingProxyType(nodes), scope.schema)


def _middleware(around: Sequence[Any], node: Node) -> tuple[Any, ...]:
    return stack_of(around, node) if isinstance(node, Task) else ()


def _node_plan(scope: Scope, graph: nx.MultiDiGraph[str], name: str, around: Sequence[Any], looked_at: Collection[str]) -> NodePlan:
    node = scope.nodes[name]
    declared = scope.ways[name].all()
    placed = sorted((order, key) for _, _, key, order in graph.out_edges(name, keys=True, data="order"))
    edges = [_edge_plan(declared[order], key) for order, key in placed]
    made: dict[str, Any] = {
        "max_visits": node.max_visits,
        "conditional": tuple(edge for edge in edges if edge.kind == "conditional"),
        "normal": next((edge for edge in edges if edge.kind == "normal"), None),
        "fallbacks": tuple(edge for edge in edges if edge.kind == "fallback"),
    }
    if isinstance(node, Task):
        stack = _middleware(around, node)
        each_attempt = tuple(each for each in stack if not isinstance(each, Retry))
        only_timeout = all(isinstance(each, Timeout) for each in each_attempt) and name not in looked_at
        made |= {
            "fn": node.fn,
            "is_async": is_coroutine(node.fn) or is_async_generator(node.fn),
            "streams": is_async_generator(node.fn),
            "takes": node_takes(node.fn) if node.gives == "update" else item_takes(node.fn),
            "gives": node.gives,
            "retry": next((each for each in stack if isinstance(each, Retry)), None),
            "timeout": min((each.after for each in stack if isinstance(each, Timeout)), default=None),
            "overlap": node.overlap,
            "writes": None if node.writes is None else frozenset(node.writes),
            "middleware": stack,
            "stack": () if only_timeout else each_attempt,
            "is_looked_at": name in looked_at,
        }
    elif isinstance(node, Parallel):
        made["opens"] = _parallel_plan(scope, graph, node, around)
    elif isinstance(node, Timer):
        made["timer"] = TimerPlan(node.delay, node.key)
    elif isinstance(node, Wait):
        made["wait"] = WaitPlan(node.event, node.to, node.timeout, node.on_timeout)  # type: ignore[arg-type]
    elif isinstance(node, Opening):
        made["opens"] = _each_plan(scope, graph, node, around)
    else:
        assert scope.schema is not None  # noqa: S101
        made["barrier"] = _barrier_plan(node, scope.schema, routes=any(edge.when_wants_outcome for edge in made["conditional"]))
    return NodePlan(name, node.kind, **made)


def _edge_plan(edge: Edge, key: int) -> EdgePlan:
    takes = None if edge.when is None else condition_takes(edge.when)
    return EdgePlan(edge.target, edge.kind, edge.name, edge.when, takes == 2, edge.on, edge.max_visits, key)


def _parallel_plan(scope: Scope, graph: nx.MultiDiGraph[str], node: Parallel, around: Sequence[Any]) -> ParallelPlan:
    graphs = graph.nodes[node.name]["branches"]
    branches = (
        BranchPlan(branch.name, index, _plan(branch.scope, graphs[branch.name], around), branch.timeout)
        for index, branch in enumerate(scope.branches[node.name])
    )
    return ParallelPlan(tuple(branches), node.on_error, node.max_concurrency)


def _each_plan(scope: Scope, graph: nx.MultiDiGraph[str], node: Map | Subflow, around: Sequence[Any]) -> EachPlan:
    (child,) = scope.branches[node.name]
    plan = _plan(child.scope, graph.nodes[node.name]["branches"][child.name], around)
    own_state = child.scope.declaration.state is not None
    if isinstance(node, Subflow):
        return EachPlan(plan, Mapped(node.inputs, None, node.outputs) if own_state else None, timeout=child.timeout)
    mapped = None
    if own_state:
        for_item = plan.nodes[plan.entry].gives != "update"
        result = RESULT if for_item else node.result
        outputs = ((node.to, result),) if node.to is not None and result is not None else ()
        mapped = Mapped((), ITEM, outputs, checked=False) if for_item else Mapped(node.inputs, node.item, outputs)
    return EachPlan(plan, mapped, node.over, node.on_error, node.max_concurrency)


def _barrier_plan(node: Barrier, schema: StateSchema, *, routes: bool) -> BarrierPlan:
    form, keys, model = _form(node, schema)
    on_reject: Any = node.on_reject or ("route" if routes else "fail")
    return BarrierPlan(
        prompt=node.prompt,
        show=node.show,
        form=form,
        edit_keys=keys,
        form_model=model,
        approvers=node.approvers,
        quorum=node.quorum,
        early=node.early,
        timeout=node.timeout,
        on_timeout=node.on_timeout or "fail",
        nudges=_nudges(node),
        on_reject=on_reject,
    )


def _nudges(node: Barrier) -> tuple[tuple[timedelta, tuple[str, ...]], ...]:
    """Reminders and escalations in the order of their times."""
    reminders: list[tuple[timedelta, tuple[str, ...]]] = [(after, ()) for after in node.remind]
    escalations = [(step.after, tuple(sorted(step.approvers))) for step in node.escalate]
    return tuple(sorted(reminders + escalations, key=lambda nudge: nudge[0]))


def _form(node: Barrier, schema: StateSchema) -> tuple[dict[str, Any] | None, tuple[str, ...], type[BaseModel] | None]:
    """The JSON Schema of a barrier's edits, the keys they may write, and the model behind it."""
    if node.form is None:
        return None, (), None
    if isinstance(node.form, type):
        model: type[BaseModel] = node.form
        return model.model_json_schema(), tuple(model.__pydantic_fields__), model
    inputs = [(key, "validation", TypeAdapter(schema.keys[key].annotation)) for key in node.form]
    schemas, shared = TypeAdapter.json_schemas(inputs)  # type: ignore[arg-type]
    properties = {key: schemas[key, "validation"] for key in node.form}
    return {"type": "object", "properties": properties, "additionalProperties": False, **shared}, tuple(node.form), None
