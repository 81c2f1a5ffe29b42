"""What is worth a second look in a flow that is valid: cycles, dead ends, branches that may overwrite each other.

Static and therefore incomplete: a warning is a hint, its absence no proof.  The result is data (`Warn`), never printed.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from engine.dataflow import reads_before_writes
from engine.declared import Map, Parallel, Task
from engine.plan import END, Warn
from engine.resolve import Scope
from engine.storable_keys import doubtful_keys
from engine.validate import knots

if TYPE_CHECKING:
    import networkx as nx


_OUTCOMES: Final = frozenset({"Update", "Goto", "Fallback", "End"})


def warnings_of(scope: Scope, graph: nx.MultiDiGraph[str]) -> tuple[Warn, ...]:
    """Every warning of a flow and its branches, in a fixed order."""
    return (*_warnings(scope, graph), *reads_before_writes(scope))


def _warnings(scope: Scope, graph: nx.MultiDiGraph[str]) -> Iterator[Warn]:
    for check in (_cycles, _dead_ends):
        yield from (Warn(found.code, scope.place + found.message, found.nodes, found.key) for found in check(graph))
    for other in (_doubtful_keys, _anonymous_conditions, _parallel_writers, _item_writers):
        yield from (Warn(found.code, scope.place + found.message, found.nodes, found.key) for found in other(scope))
    for name, branches in scope.branches.items():
        for branch in branches:
            yield from _warnings(branch.scope, graph.nodes[name]["branches"][branch.name])


# --- shape ----------------------------------------------------------------------------------------------------------
def _cycles(graph: nx.MultiDiGraph[str]) -> Iterator[Warn]:
    position = {name: index for index, name in enumerate(graph)}
    for nodes in sorted(knots(graph), key=lambda found: min(position[name] for name in found)):
        members = tuple(sorted(nodes, key=position.__getitem__))
        shown = " -> ".join((*members, members[0])) if len(members) == 1 else ", ".join(members)
        knot = graph.subgraph(nodes)
        yield Warn("cycle", f"nodes {shown} form a cycle", members)
        if knots(_without_caps(knot)):
            yield Warn("unprotected_cycle", f"the cycle of {shown} has no max_visits; only max_steps ends it", members)
        leaving = [kind for _, target, kind in graph.out_edges(nodes, data="kind") if target not in nodes]
        if all(kind == "fallback" for kind in leaving):
            yield Warn("cycle_without_exit", f"only a failure, a fallback or End leads out of the cycle of {shown}", members)
        for source, target, kind in knot.edges(data="kind"):
            if kind == "fallback":
                yield Warn(
                    "fallback_in_cycle", f"the fallback {source} -> {target} closes a cycle: a lasting failure runs in circles", members
                )


def _without_caps(graph: nx.MultiDiGraph[str]) -> nx.MultiDiGraph[str]:
    """The graph without nodes and edges that may be taken only so often."""
    free = [name for name, cap in graph.nodes(data="max_visits") if cap is None]
    capped = [(a, b, key) for a, b, key, cap in graph.edges(keys=True, data="max_visits") if cap is not None]
    kept = graph.subgraph(free).copy()
    kept.remove_edges_from(capped)
    return kept


def _dead_ends(graph: nx.MultiDiGraph[str]) -> Iterator[Warn]:
    for name in graph:
        kinds = {kind for _, _, kind in graph.out_edges(name, data="kind")}
        if kinds == {"conditional"}:
            yield Warn("dead_end", f"node {name!r} has conditional edges only: where none holds, the run fails (UnroutedError)", (name,))
        elif kinds == {"fallback"}:
            yield Warn("dead_end", f"node {name!r} is left by fallback edges only: success takes them, too", (name,))
        elif not kinds and name != END:
            yield Warn("dead_end", f"node {name!r} has no edge: it must return End", (name,))


def _doubtful_keys(scope: Scope) -> Iterator[Warn]:
    if scope.declaration.state is not None and scope.schema is not None:
        for key, cls in doubtful_keys(scope.schema):
            yield Warn(
                "unknown_class",
                f"key {key!r} of the state is declared as {cls.__name__}, whose values cannot be stored as it stands "
                f"(UpdateNotStorableError); make it a dataclass or a pydantic model, or register what stands for it with register_type",
                key=key,
            )


# --- functions ------------------------------------------------------------------------------------------------------
def _anonymous_conditions(scope: Scope) -> Iterator[Warn]:
    for edge in scope.declaration.edges:
        if edge.when is not None and edge.name == "<lambda>":
            yield Warn(
                "anonymous_condition",
                f"edge {edge} has a nameless condition: a change of it is not seen in the graph's hash; give it a name=",
                (edge.source, edge.target),
            )


def _parallel_writers(scope: Scope) -> Iterator[Warn]:
    for node in scope.nodes.values():
        if not isinstance(node, Parallel) or scope.schema is None:
            continue
        writers: dict[str, list[str]] = {}
        for branch in scope.branches[node.name]:
            for key in sorted(_written(branch.scope)):
                writers.setdefault(key, []).append(branch.name)
        for key in scope.schema.keys:
            names = writers.get(key, ())
            if len(names) > 1 and not scope.schema.keys[key].reducer.many:
                yield Warn(
                    "parallel_writers",
                    f"branches {', '.join(names)} of node {node.name!r} write {key!r}, which has no reducer for several writers: "
                    f"MergeConflictError at the join; declare one, e.g. Annotated[..., append]",
                    (node.name,),
                    key,
                )


def _item_writers(scope: Scope) -> Iterator[Warn]:
    for node in scope.nodes.values():
        if not isinstance(node, Map) or scope.schema is None:
            continue
        for child in scope.branches[node.name]:
            for key in sorted(_written(child.scope)) if child.scope.declaration.state is None else ():
                if key in scope.schema.keys and not scope.schema.keys[key].reducer.many:
                    yield Warn(
                        "parallel_writers",
                        f"every item of node {node.name!r} writes {key!r}, which has no reducer for several writers: "
                        f"MergeConflictError at the join; declare one, e.g. Annotated[..., append]",
                        (node.name,),
                        key,
                    )


def _written(scope: Scope) -> set[str]:
    """The keys the tasks of a scope write to the scope's own state, as far as can be seen."""
    found: set[str] = set()
    for inner in _on_one_state(scope):
        for node in inner.nodes.values():
            if isinstance(node, Task):
                found |= set(node.writes) if node.writes is not None else written_literally(node.fn)
    return found


def _on_one_state(scope: Scope) -> Iterator[Scope]:
    """The scope and everything in it that works on the same state."""
    yield scope
    for name, branches in scope.branches.items():
        for branch in branches:
            if isinstance(scope.nodes[name], Parallel) or branch.scope.declaration.state is None:
                yield from _on_one_state(branch.scope)


def written_literally(fn: Any) -> set[str]:
    """The keys of dict literals that ``fn``'s own source returns.  A hint: what is built in other ways is not seen.

    The source is parsed, never run.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return set()
    top = next((node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), None)
    found: set[str] = set()
    waiting: list[ast.AST] = list(top.body) if top is not None else []
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue  # what an inner function returns is not what the node returns
        for literal in _dict_literals(part.value) if isinstance(part, ast.Return) else ():
            found |= {key.value for key in literal.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
        waiting += ast.iter_child_nodes(part)
    return found


def _dict_literals(returned: ast.expr | None) -> list[ast.Dict]:
    """The literal itself, or those given to an outcome: ``Update({...})``, ``Goto("pay", update={...})``."""
    parts: list[ast.expr | None] = [returned]
    if isinstance(returned, ast.Call) and isinstance(returned.func, ast.Name) and returned.func.id in _OUTCOMES:
        parts = [*returned.args, *(keyword.value for keyword in returned.keywords)]
    return [part for part in parts if isinstance(part, ast.Dict)]
