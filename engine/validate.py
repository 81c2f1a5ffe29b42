"""Everything that can be wrong with a flow, found before anything runs.

One small function per kind of problem; each yields sentences that name the node or edge and say what to do.  `problems_of` asks
them all, for the flow and for every branch within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import networkx as nx

from engine.arguments import is_storable
from engine.barrier_checks import barrier_settings
from engine.callables import condition_takes, is_async_generator, is_coroutine, is_generator, item_takes, node_takes
from engine.child_checks import maps, subflows
from engine.conditions import ASK_A_DECISION
from engine.declared import Barrier, Parallel, Task
from engine.option_checks import at_least_one, known_policy, retry_settings, span, text, undeclared_keys, yes_or_no
from engine.plan import END
from engine.resolve import Scope
from engine.storable_keys import impossible_keys
from engine.wait_checks import signals, timers, waits

_IN_PATHS: Final = ("#", "[", "]", ".", ",", "->")
"""What separates names in branch paths, tickets and lists of nodes."""


_NO_COLUMN: Final = "not every database can hold a NUL or half of a surrogate pair in a name"


def problems_of(scope: Scope) -> list[str]:
    """Every problem of a flow and its branches, in the order of declaration."""
    found = []
    for inner in scope.all():
        found += [inner.place + problem for check in CHECKS for problem in check(inner)]
    return found


def names(scope: Scope) -> Iterator[str]:
    if not isinstance(scope.declaration.name, str) or not scope.declaration.name:
        yield "the flow has no name"
    elif not is_storable(scope.declaration.name):
        yield f"the flow cannot have the name {scope.declaration.name!r}: {_NO_COLUMN}"
    for name, count in Counter(node.name for node in scope.declaration.nodes).items():
        if count > 1:
            yield f"node {name!r} is declared {count} times; give each its own name"
    for name in scope.nodes:
        if (reason := _reserved(name)) is not None:
            yield f"node {name!r} cannot have this name: {reason}"


def _reserved(name: object) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "a name is a text that is not empty"
    if name.startswith("__") and name.endswith("__"):
        return "names like __end__ are reserved"
    if not is_storable(name):
        return _NO_COLUMN
    held = [part for part in _IN_PATHS if part in name]
    return f"it holds {' and '.join(map(repr, held))}, which separate names in branch paths" if held else None


def entry(scope: Scope) -> Iterator[str]:
    if not scope.nodes:
        yield "the flow has no node; declare one with @flow.node"
    elif scope.declaration.entry is None:
        yield f"no entry is set; call set_entry({next(iter(scope.nodes))!r})"
    elif scope.declaration.entry not in scope.nodes:
        yield f"the entry {scope.declaration.entry!r} is no node of the flow; {_known(scope)}"


def _known(scope: Scope) -> str:
    return f"its nodes are: {', '.join(scope.nodes) or 'none'}"


def edges(scope: Scope) -> Iterator[str]:
    for edge in scope.declaration.edges:
        what = "fallback" if edge.kind == "fallback" else "edge"
        if edge.source == END:
            yield f"{what} {edge}: nothing leaves the end"
        elif edge.source not in scope.nodes:
            yield f"{what} {edge}: {edge.source!r} is no node of the flow; {_known(scope)}"
        if edge.target not in scope.nodes and edge.target != END:
            yield f"{what} {edge}: {edge.target!r} is no node of the flow; {_known(scope)}"
        yield from at_least_one(f"{what} {edge}", "max_visits", edge.max_visits)
        if not isinstance(edge.priority, int | float):
            yield f"edge {edge}: priority={edge.priority!r} must be a number; lower ones are asked first"
        if edge.kind == "fallback":
            if edge.source == edge.target:
                yield f"fallback {edge}: a node cannot be its own fallback; use retry=, or another node"
            for error in edge.on:
                if not (isinstance(error, type) and issubclass(error, BaseException)):
                    yield f"fallback {edge}: on={error!r} is no exception class"


def texts(scope: Scope) -> Iterator[str]:
    yield from text("the flow", "version", scope.declaration.version)
    yield from text("the flow", "description", scope.declaration.description)
    for name, node in scope.nodes.items():
        yield from text(f"node {name!r}", "description", node.description)
        if isinstance(node, Task):
            yield from text(f"node {name!r}", "version", node.version)


def stored_keys(scope: Scope) -> Iterator[str]:
    if scope.declaration.state is not None and scope.schema is not None:
        for key, found in impossible_keys(scope.schema):
            yield f"key {key!r} of the state is declared as {found.name}, which cannot be stored; hold {found.instead}"


def normal_edges(scope: Scope) -> Iterator[str]:
    for name, ways in scope.ways.items():
        if len(ways.normal) > 1:
            listed = " and ".join(str(edge) for edge in ways.normal)
            yield f"node {name!r} has {len(ways.normal)} edges without a condition: {listed}; give all but one a when="


def conditions(scope: Scope) -> Iterator[str]:
    for edge in scope.declaration.edges:
        if edge.when is None:
            continue
        if not callable(edge.when):
            yield f"edge {edge}: when={edge.when!r} is no function of (state)"
        elif is_coroutine(edge.when) or is_generator(edge.when):
            yield f"edge {edge}: condition {edge.name} is async; conditions are plain functions, so await in a node and write a key"
        elif condition_takes(edge.when) is None:
            yield f"edge {edge}: condition {edge.name} must take (state) or (state, outcome)"
        elif (
            any(edge.when is asks for asks in ASK_A_DECISION)
            and (source := scope.nodes.get(edge.source)) is not None
            and source.kind != "barrier"
        ):
            yield f"edge {edge}: {edge.name} asks for a decision, but {edge.source!r} is a {source.kind}, not a barrier"


def _graph(scope: Scope) -> nx.DiGraph[str]:
    """The nodes and END, with an edge wherever a run may go (``goto=[END]`` included)."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from((*scope.nodes, END))
    for name, ways in scope.ways.items():
        graph.add_edges_from((name, edge.target) for edge in ways.all() if edge.target in graph)
        node = scope.nodes[name]
        if isinstance(node, Task) and END in node.goto:
            graph.add_edge(name, END)
    return graph


def reachability(scope: Scope) -> Iterator[str]:
    graph, first = _graph(scope), scope.declaration.entry
    if first in scope.nodes:
        reached = {first, *nx.descendants(graph, first)}
        for name in scope.nodes:
            if name not in reached:
                yield f"node {name!r} cannot be reached from the entry {first!r}; add an edge to it, or remove it"
    ending = nx.ancestors(graph, END)
    for name in scope.nodes:
        if name not in ending:
            yield f"node {name!r} has no way to the end; add_edge({name!r}, END), or an edge to a node that ends"


def knots(graph: Any) -> list[set[str]]:
    """The sets of nodes that can each reach every other of their set; a lone node counts where it leads to itself."""
    found = nx.strongly_connected_components(graph)
    return [nodes for nodes in found if len(nodes) > 1 or graph.has_edge(*(tuple(nodes) * 2))]


def tasks(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if not isinstance(node, Task):
            continue
        where = f"node {node.name!r}"
        if not callable(node.fn):
            yield f"{where}: {node.fn!r} cannot be called; give a function"
        elif is_generator(node.fn) and not is_async_generator(node.fn):
            yield f"{where}: its function is a generator, and nothing would run it; make it an async generator (its text is streamed) or return the update"
        elif node.gives != "update":
            if item_takes(node.fn) is None:
                yield f"{where}: a map calls it with (item), (item, ctx), (item, state) or (item, state, ctx); bind others with functools.partial"
        elif node_takes(node.fn) is None:
            yield f"{where}: its function must take (state), (state, ctx) or nothing; bind other arguments with functools.partial"
        yield from retry_settings(where, node.retry)
        yield from span(where, "timeout", node.timeout)
        yield from yes_or_no(where, "overlap", node.overlap)
        for target in node.goto:
            if target != END and target not in {edge.target for edge in scope.ways[node.name].all()}:
                yield f"{where}: goto names {target!r}, but no edge leads there; add_edge({node.name!r}, {target!r}, when=...)"
        yield from undeclared_keys(scope, f"{where}: writes", node.writes or ())
        yield from undeclared_keys(scope, f"{where}: reads", node.reads)


def visit_caps(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        yield from at_least_one(f"node {node.name!r}", "max_visits", node.max_visits)


def parallels(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if not isinstance(node, Parallel):
            continue
        where, policy = f"node {node.name!r}", node.on_error
        if not node.branches:
            yield f"{where} has no branches; give at least one"
        for name, count in Counter(branch.name for branch in scope.branches[node.name]).items():
            if count > 1:
                yield f"{where} has {count} branches named {name!r}; name them: {{'one': ..., 'two': ...}} or branch(..., name=...)"
        yield from known_policy(where, policy)
        if not isinstance(policy.min_success, int):
            yield f"{where}: min_success={policy.min_success!r} must be a whole number"
        elif policy.policy == "best_effort" and node.branches and not 0 <= policy.min_success <= len(node.branches):
            yield f"{where}: min_success={policy.min_success} of {len(node.branches)} branches can never be met; choose 0 to {len(node.branches)}"
        if policy.failures_to is not None:
            yield from undeclared_keys(scope, f"{where}: failures_to", [policy.failures_to])
        yield from at_least_one(where, "max_concurrency", node.max_concurrency)
        for branch in scope.branches[node.name]:
            yield from span(f"{where}: branch {branch.name!r}", "timeout", branch.timeout)


def branch_keys(scope: Scope) -> Iterator[str]:
    """A branch runs on its parent's state: what it declares, its parent must declare, and merge in the same way."""
    for node, branches in scope.branches.items():
        for branch in branches if isinstance(scope.nodes[node], Parallel) else ():
            parent, own = scope.schema, branch.scope.schema
            if parent is None or own is None or own is parent:
                continue
            where = f"node {node!r}: branch {branch.name!r}"
            for key, spec in own.keys.items():
                if key not in parent.keys:
                    yield f"{where} declares the key {key!r}, which flow {scope.declaration.name!r} does not; declare it there, too"
                elif (reducer := parent.keys[key].reducer) != spec.reducer:
                    yield (
                        f"{where} merges {key!r} with {spec.reducer.name}, flow {scope.declaration.name!r} with {reducer.name}; "
                        f"declare the same reducer in both"
                    )


def barriers(scope: Scope) -> Iterator[str]:
    for node in scope.nodes.values():
        if isinstance(node, Barrier):
            yield from barrier_settings(node, scope)


CHECKS: Final[tuple[Callable[[Scope], Iterator[str]], ...]] = (
    names, texts, stored_keys, entry, edges, normal_edges, conditions, reachability, tasks, visit_caps, parallels, branch_keys, maps,
    subflows, timers, waits, signals, barriers,
)  # fmt: skip
"""Every check, in the order in which problems are listed."""
